"""Which images the stack runs on: the lock file, and what the registries say of it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from monitoring import images
from monitoring.images import Image, is_wanted, parse
from ops.errors import ConfigError, Refused
from ops.stand_ins import MONITORING, NGINX

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(shutil.copy(images.LOCK, tmp_path / "images.toml"))


def test_every_image_has_a_tag_of_its_own_version() -> None:
    lock = images.load()
    assert tuple(lock) == images.NAMES
    assert not [one for one in lock.values() if not re.search(r"\d+\.\d+", one.tag)]


def test_the_gate_is_the_edges_own_nginx() -> None:
    assert images.load()["gate"].name == NGINX


def test_what_debian_has_can_be_stood_in_for_whichever_its_tag() -> None:
    made = {name for name, one in images.load().items() if one.repository in MONITORING}
    assert made == {"prometheus", "alertmanager", "node", "blackbox", "edge-exporter", "postgres-exporter"}


def test_a_reference_says_the_digest_where_one_is_known() -> None:
    lock = {"gate": Image("nginx", "1.30"), "node": Image("127.0.0.1:5000/prom/node-exporter", "v1", DIGEST)}
    assert images.image("gate", lock) == "nginx:1.30"
    assert images.image("node", lock) == f"127.0.0.1:5000/prom/node-exporter:v1@{DIGEST}"
    assert all(parse(one.reference) == one for one in lock.values())


def test_what_is_written_is_read_and_comments_stay(file: Path) -> None:
    lock = {
        **images.load(file),
        "loki": Image("mirror.example/grafana/loki", "9.9.9", DIGEST),
        "gate": Image("nginx", "1.30", DIGEST),
    }
    images.write(lock, file)
    assert images.load(file) == lock
    before, after = images.LOCK.read_text(), file.read_text()
    assert re.findall("#.*", before) == re.findall("#.*", after)
    assert len(before.splitlines()) == len(after.splitlines())


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[loki]", "[lokki]", r"\[loki\] is missing; \[lokki\] is nothing we know"),
        ('tag = "3.7', 'tag = "latest!3.7', r"\[loki\] tag = 'latest!3.7"),
        ('digest = "sha256:', 'digest = "sha512:', r"digest = 'sha512:"),
        ('image = "prom/prometheus"', "image = 7", r"\[prometheus\] image = 7"),
        ("[gate]", "[gate", "cannot be read"),
    ],
)
def test_a_wrong_lock_file_says_what_is_wrong(file: Path, old: str, new: str, told: str) -> None:
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ConfigError) as raised:
        images.load(file)
    assert re.search(told, str(raised.value))


def test_a_lock_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        images.load(tmp_path / "none.toml")


def test_new_digests_come_from_the_registries_by_tag() -> None:
    lock = {"gate": Image("nginx", "1.30", DIGEST), "loki": Image("grafana/loki", "3")}
    asked = {"nginx:1.30": DIGEST.replace("0", "f"), "grafana/loki:3": DIGEST}
    assert images.refreshed(lock, asked.__getitem__) == {
        "gate": Image("nginx", "1.30", DIGEST.replace("0", "f")), "loki": Image("grafana/loki", "3", DIGEST),
    }  # fmt: skip


def test_one_registry_that_does_not_answer_leaves_no_half_new_lock() -> None:
    def ask(name: str) -> str:
        if name.startswith("ghcr.io/"):
            raise Refused(f"the registry does not tell what {name} is")
        return DIGEST

    with pytest.raises(Refused, match=r"ghcr\.io/google/cadvisor"):
        images.refreshed(images.load(), ask)


@pytest.mark.parametrize(
    ("pinned", "known", "counts"),
    [
        ("", (), True),
        ("", (DIGEST,), True),
        (DIGEST, (DIGEST, "sha256:other"), True),
        (DIGEST, (), True),  # built as a stand-in, or sent to an engine that forgets digests then
        (DIGEST, ("sha256:other",), False),
    ],
)
def test_an_image_of_the_right_name_counts_unless_its_digest_is_another(
    pinned: str, known: tuple[str, ...], counts: bool
) -> None:
    assert is_wanted(Image("prom/prometheus", "v3", pinned), known) is counts
