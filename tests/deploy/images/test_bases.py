"""Base images are told with their age, and whether their tags have moved; what cannot be told is said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from deploy.images.bases import Base, report, verdict
from ops.engine import EngineError, NotFound
from ops.errors import ConfigError
from ops.stand_ins import STAND_IN

if TYPE_CHECKING:
    from docker import APIClient

NOW = datetime(2026, 3, 1, tzinfo=UTC)
OLD, NEW = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


class Engine:
    """An engine that knows images, and registries that answer or do not."""

    def __init__(self, images: dict[str, dict[str, Any]], registry: dict[str, str]) -> None:
        self._images, self._registry = images, registry

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name not in self._images:
            raise NotFound("No such image")
        return self._images[name]

    def inspect_distribution(self, name: str) -> dict[str, Any]:
        if name not in self._registry:
            raise EngineError("no such host")
        return {"Descriptor": {"digest": self._registry[name]}}


def known(created: str = "2026-02-20T00:00:00.123Z", digest: str = OLD, **labels: str) -> dict[str, Any]:
    return {"Created": created, "RepoDigests": [f"debian@{digest}"], "Config": {"Labels": labels or None}}


def look(tmp_path: Path, text: str, images: dict[str, dict[str, Any]], registry: dict[str, str]) -> list[Base]:
    (tmp_path / "Dockerfile").write_text(text)
    return report(tmp_path / "Dockerfile", cast("APIClient", Engine(images, registry)))


def test_a_tag_that_has_not_moved_is_fine(tmp_path: Path) -> None:
    (one,) = look(tmp_path, "FROM debian:13\n", {"debian:13": known()}, {"debian:13": OLD})
    assert (one.drift, one.old(NOW), one.remarks(NOW), verdict([one], NOW)) == (False, False, [], 0)
    assert one.age(NOW) == timedelta(days=9)


def test_a_tag_that_names_another_image_by_now_is_told(tmp_path: Path) -> None:
    (one,) = look(tmp_path, "FROM debian:13\n", {"debian:13": known()}, {"debian:13": NEW})
    assert (one.drift, verdict([one], NOW)) == (True, 1)
    assert "docker pull" in one.remarks(NOW)[0]


def test_a_digest_that_the_dockerfile_pins_is_what_counts(tmp_path: Path) -> None:
    text = f"FROM debian:13@{OLD}\n"
    (one,) = look(tmp_path, text, {}, {"debian:13": NEW})
    assert (one.pinned, one.present, one.drift) == (OLD, False, True)
    assert "pin that" in one.remarks(NOW)[0]
    assert "not here" in one.remarks(NOW)[1]
    (one,) = look(tmp_path, text, {f"debian:13@{OLD}": known()}, {"debian:13": OLD})
    assert one.drift is False


def test_a_registry_that_does_not_answer_is_said_and_is_not_no_drift(tmp_path: Path) -> None:
    (one,) = look(tmp_path, "FROM debian:13\n", {"debian:13": known()}, {})
    assert (one.drift, verdict([one], NOW)) == (None, 3)
    assert one.remarks(NOW) == ["whether the tag has moved is not known: no such host"]
    assert one.document(NOW)["drift"] is None


def test_what_our_own_registry_calls_an_image_does_not_count(tmp_path: Path) -> None:
    shipped = {**known(), "RepoDigests": [f"localhost:4711/token/debian@{NEW}"]}
    (one,) = look(tmp_path, "FROM debian:13\n", {"debian:13": shipped}, {"debian:13": OLD})
    assert (one.digests, one.drift, verdict([one], NOW)) == ((), None, 3)


def test_a_base_that_is_not_here_cannot_be_judged(tmp_path: Path) -> None:
    (one,) = look(tmp_path, "FROM debian:13\n", {}, {"debian:13": NEW})
    assert (one.present, one.drift, verdict([one], NOW)) == (False, None, 3)


def test_a_stand_in_is_said_to_be_one_and_is_not_compared(tmp_path: Path) -> None:
    (one,) = look(tmp_path, "FROM debian:13\n", {"debian:13": known(**{STAND_IN: "true"})}, {"debian:13": NEW})
    assert (one.stand_in, one.drift, verdict([one], NOW)) == (True, None, 0)
    assert "stand-in" in one.remarks(NOW)[0]


def test_an_old_base_is_told_and_one_that_says_no_time_is_not(tmp_path: Path) -> None:
    (one,) = look(tmp_path, "FROM debian:13\n", {"debian:13": known("2026-01-01T00:00:00Z")}, {"debian:13": OLD})
    assert (one.old(NOW), verdict([one], NOW), one.document(NOW)["age_days"]) == (True, 1, 59)
    for created in ("1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", ""):
        (one,) = look(tmp_path, "FROM debian:13\n", {"debian:13": known(created)}, {"debian:13": OLD})
        assert (one.age(NOW), one.old(NOW), one.document(NOW)["created"]) == (None, False, None)


def test_every_base_is_looked_at_and_an_argument_without_a_default_is_said(tmp_path: Path) -> None:
    found = look(
        tmp_path,
        "ARG X\nFROM debian:13 AS a\nFROM $X\nFROM scratch\nCOPY --from=a / /\n",
        {"debian:13": known()},
        {"debian:13": OLD},
    )
    assert [(one.name, one.line, bool(one.silence)) for one in found] == [("debian:13", 2, False), ("$X", 3, True)]


def test_nothing_to_stand_on_is_fine_and_no_dockerfile_is_an_error(tmp_path: Path) -> None:
    assert look(tmp_path, "FROM scratch\n", {}, {}) == []
    with pytest.raises(ConfigError, match="cannot be read"):
        report(tmp_path / "none", cast("APIClient", Engine({}, {})))
