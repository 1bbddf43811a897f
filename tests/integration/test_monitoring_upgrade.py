"""Upgrades on a real engine: a failing image is back on the old one with its data, and copies of volumes are whole."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from monitoring import snapshots
from monitoring.images import Image, bring
from monitoring.snapshots import OnEngine
from monitoring.upgrade import upgrade
from ops.bases import ensure_base
from ops.compose import Compose
from ops.errors import Failed
from ops.stand_ins import NGINX
from ops.this_machine import engine_address, local_client

if TYPE_CHECKING:
    from docker import APIClient

pytestmark = pytest.mark.integration

# Three tiny images of one service: each start adds a line to its data; the third removes what its health check looks for.
SCRIPT = "cp -n /etc/os-release /data/ok; echo {} >> /data/log; {} exec sleep 3600"
TINY = {"1": ":;", "2": ":;", "3": "rm /data/ok;"}


@pytest.fixture
def engine() -> APIClient:
    return local_client().api


@pytest.fixture
def name() -> str:
    """What no other run on this machine calls its things."""
    return f"monitoring-upgrade-{secrets.token_hex(4)}"


@pytest.fixture
def tiny(name: str, engine: APIClient) -> Iterator[str]:
    """The repository of the tiny images."""
    ensure_base(NGINX, print)
    made = engine.create_container(NGINX)["Id"]
    for number, then in TINY.items():
        script = SCRIPT.format(number, then)
        engine.commit(made, name, number, changes=[f'CMD ["sh", "-c", "{script}"]'])
    engine.remove_container(made)
    yield name
    for one in engine.images(name):
        engine.remove_image(one["Id"], force=True)


class TinyStack(OnEngine):
    """One service with its data on this machine's engine, behind the seam of upgrades."""

    name = "here"

    def __init__(self, engine: APIClient, repository: str, note: Path) -> None:
        super().__init__(engine, repository, NGINX, {"tiny": f"{repository}_data"})
        self._note = note
        self._compose = Compose(repository, {}, Path(engine_address().removeprefix("unix://")))
        self._health = ""

    def note(self) -> str:
        return self._note.read_text() if self._note.exists() else ""

    def write_note(self, text: str) -> None:
        self._note.write_text(text)

    def bring(self, reference: str) -> None:
        bring(self.engine, reference, print)

    def check(self, images: Mapping[str, str]) -> Sequence[str]:
        return ()

    def stop(self, services: Sequence[str]) -> None:
        for service in services:
            self.engine.stop(f"{self.project}-{service}-1", timeout=1)

    def start(self, images: Mapping[str, str]) -> None:
        health = {"test": ["CMD", "test", "-e", "/data/ok"], "interval": "200ms", "retries": 5}
        tiny = {
            "image": images["tiny"],
            "volumes": ["data:/data"],
            "init": True,
            "stop_grace_period": "1s",
            "healthcheck": health,
        }
        document = {"services": {"tiny": tiny}, "volumes": {"data": {}}}
        code, last = self._compose.follow("up", "--detach", "--wait", "--pull", "never", document=document, say=print)
        self._health = last if code else ""

    def healthy(self) -> str:
        return self._health

    def log(self) -> list[str]:
        """Return which images have run on the data."""
        return _in(f"{self.project}_data", "cat /d/log").split()

    def down(self) -> None:
        self._compose.follow("down", "--volumes", document=None, say=print)
        snapshots.drop(self.engine, f"{self.project}_data")


def test_an_upgrade_that_fails_is_back_on_the_old_image_with_its_data(tiny: str, tmp_path: Path, engine: APIClient) -> None:
    stack = TinyStack(engine, tiny, tmp_path / "note")
    try:
        stack.start({"tiny": f"{tiny}:1"})
        before = stack.running()["tiny"]
        with pytest.raises(Failed, match="the old images are back"):
            upgrade([stack], {"tiny": Image(tiny, "3")}, lambda planned: True, print)
        assert stack.running()["tiny"] == before
        assert stack.log() == ["1", "1"]  # started twice; what the failing one wrote is gone
        assert upgrade([stack], {"tiny": Image(tiny, "2")}, lambda planned: True, print)
        assert stack.running()["tiny"].name == f"{tiny}:2"
        assert stack.log() == ["1", "1", "2"]
        assert not engine.volumes(filters={"name": snapshots.snapshot_name(f"{tiny}_data")})["Volumes"]
        assert not engine.images(snapshots.HELD)
    finally:
        stack.down()


def test_a_copy_of_a_volume_keeps_owners_modes_links_and_times(name: str, engine: APIClient) -> None:
    ensure_base(NGINX, print)
    volume, look = f"{name}_copied", "cd /d && stat -c '%n %U %a %s %Y %N' . * .hidden && cat file"
    make = "cd /d && echo old > file && ln -s file link && touch .hidden && chown 472:0 . file && chmod 2750 . && chmod 400 file"
    try:
        _in(volume, make)
        before = _in(volume, look)
        snapshots.snapshot(engine, volume, NGINX)
        _in(volume, "cd /d && chmod 600 file && echo new > file && rm link .hidden && mkdir more && chown 0 .")
        assert _in(volume, look.replace(" .hidden", "")) != before
        for _ in range(2):  # it can be repeated
            snapshots.put_back(engine, volume, NGINX)
            assert _in(volume, look) == before
    finally:
        snapshots.drop(engine, volume)
        engine.remove_volume(volume, force=True)


def _in(volume: str, script: str) -> str:
    return local_client().containers.run(NGINX, ["sh", "-c", script], volumes=[f"{volume}:/d"], remove=True).decode()
