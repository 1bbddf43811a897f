"""What `up` and `down` do besides: whom they refuse, what they remark on, and what Compose is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest

from monitoring import up
from monitoring.files import MEMBERS, File
from monitoring.hosts import UPGRADE_NOTE, Host
from monitoring.inventory import Watched, inventory
from monitoring.server import Server
from monitoring.snapshots import LABEL_SNAPSHOT
from monitoring.tasks import monitoring_down
from monitoring.up import _left_behind, _password_not_lost, _require_no_upgrade, _take_down, compose_up
from ops.errors import Failed, Refused
from ops.secret import Secret
from tests.monitoring.watched import ONE, TWO, environment

ENV = environment()
KNOWN = inventory(ENV)
PAIR = inventory(environment(ONE, TWO))


class Engine:
    """An engine with two volumes of the stack and a copy of one of them."""

    def __init__(self) -> None:
        self.kept = {"dev.tidegate.snapshot": ["grafana-before"], "": ["grafana", "loki"]}

    def volumes(self, filters: dict[str, str]) -> dict[str, Any]:
        return {
            "Volumes": [
                {"Name": name} for name in self.kept["dev.tidegate.snapshot" if filters["label"] == LABEL_SNAPSHOT else ""]
            ]
        }

    def remove_volume(self, name: str) -> None:
        for names in self.kept.values():
            if name in names:
                names.remove(name)


class Line:
    """The connection to a server on which an upgrade has begun."""

    socket, environment = None, "production"

    def __init__(self, note: str | None = "{}") -> None:
        self.note = note

    def call(self, op: str, path: str) -> str | None:
        assert path == UPGRADE_NOTE
        if op == "remove":
            self.note = None
        return self.note


class Bare(Server):
    """A server as it is before `down`."""

    def __init__(self, note: str | None = "{}") -> None:
        self.name = "one"
        self.link = Line(note)  # type: ignore[assignment]
        self.__dict__["engine"] = Engine()

    def place(self, files: Sequence[File], keep: Any = ()) -> set[str]:
        return set()

    def all_read(self) -> None:
        pass

    def last_words(self) -> str:
        return ""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What Compose is told."""
    found: list[tuple[str, ...]] = []

    class Compose:
        def __init__(self, *_: Any) -> None:
            pass

        def follow(self, *words: str, **_: Any) -> tuple[int, str]:
            found.append(words)
            return 0, ""

    monkeypatch.setattr(up, "Compose", Compose)
    return found


def host(watched: Watched = KNOWN.watcher, **more: Any) -> Host:
    names = ("prometheus", "alertmanager", "grafana", "loki", "blackbox", "gate", "node", "cadvisor", "alloy", "edge-exporter")
    return Host(watched, Bare(), images=dict.fromkeys(names, "image:1"), **more)


def quiet(server: str, what: str) -> None:
    pass


def test_an_upgrade_that_never_finished_stands_in_the_way() -> None:
    with pytest.raises(Refused, match="never finished") as caught:
        _require_no_upgrade(host())
    assert "--put-back" in caught.value.fix
    _require_no_upgrade(Host(KNOWN.watcher, Bare(note=None)))


def test_so_the_stack_is_not_taken_down_but_with_all_it_collected(
    told: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = [host()]
    monkeypatch.setattr(up, "at_work", lambda *_: nullcontext(hosts))
    monkeypatch.setattr(up, "publish", lambda *_: None)
    with pytest.raises(Refused, match="never finished"):
        up.down(ENV, quiet)
    assert told == []
    assert up.down(ENV, quiet, volumes=True) == []
    assert up.down(ENV, quiet) == []


def test_taken_down_with_all_it_collected_nothing_is_left_of_an_upgrade_that_never_finished(told: list[tuple[str, ...]]) -> None:
    one = host()
    assert _take_down(one, quiet, volumes=True) == []
    assert (one.server.link.call("read", path=UPGRADE_NOTE), one.server.volumes(), one.server.volumes(LABEL_SNAPSHOT)) == (
        None,
        [],
        [],
    )


def test_taken_down_for_a_while_it_keeps_its_volumes(told: list[tuple[str, ...]]) -> None:
    one = host()
    assert _take_down(one, quiet, volumes=False) == ["grafana", "loki"]
    assert one.server.volumes(LABEL_SNAPSHOT) == ["grafana-before"]


def test_compose_makes_all_of_it_and_removes_the_rest_or_makes_some_and_touches_nothing_else(told: list[tuple[str, ...]]) -> None:
    compose_up(host(), ENV, KNOWN, quiet)
    compose_up(host(), ENV, KNOWN, quiet, ["grafana", "node"])
    whole, some = told
    assert whole[-1] == "--remove-orphans"
    assert "--no-deps" not in whole
    assert some[-3:] == ("--no-deps", "grafana", "node")
    assert "--remove-orphans" not in some


def test_a_server_that_was_taken_out_is_named_for_it_may_go_on_telling() -> None:
    def found(*before: str) -> list[str]:
        members = {MEMBERS: json.dumps(before)}
        return list(_left_behind([host(one, found=members) for one in PAIR.hosts], PAIR))

    assert found("10.0.0.1", "fd00::2") == found() == []
    (remark,) = found("10.0.0.1", "10.0.0.3", "fd00::2")
    assert remark.startswith("10.0.0.3 is not in ops.toml any more")
    assert "docker compose -p tidegate-monitoring down" in remark


def test_of_a_server_where_no_stack_was_nobody_was_taken_out() -> None:
    assert list(_left_behind([host(one, found={MEMBERS: None}) for one in PAIR.hosts], PAIR)) == []


@pytest.mark.parametrize(("password", "said"), [(Secret("hunter2"), 1), (None, 0)])
def test_a_new_password_is_not_lost_where_the_stack_does_not_come_up(password: Secret | None, said: int) -> None:
    told: list[str] = []
    with pytest.raises(Failed, match="broken"), _password_not_lost(host(), password, lambda _, what: told.append(what)):
        raise Failed("broken")
    assert len(told) == said
    assert all("/srv/tidegate/monitoring/grafana/secrets/" in one and "hunter2" not in one for one in told)


def test_programs_are_told_what_stays() -> None:
    assert {"json", "volumes", "yes"} <= {argument.name for argument in monitoring_down.get_arguments()}
