"""An image that cannot be pulled is piped from one engine into the other, and a transfer that is stopped leaves nobody at work."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from deploy import ship
from deploy.ship import pipe_whole
from ops.errors import Failed
from tests.local_ssh import until
from tests.programs import Programs

SAVES = 'case "$*" in --version*) echo "Docker version 20.10.24";; save*) {save};; *load) {load};; esac'


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    found = Programs(tmp_path, monkeypatch)
    monkeypatch.setattr(ship, "build_cli", lambda: [str(found.folder / "docker")])
    return found


def test_every_byte_arrives_at_the_servers_engine(programs: Programs, tmp_path: Path) -> None:
    programs.add("docker", SAVES.format(save="head -c 3000000 /dev/zero", load=f"cat > {tmp_path}/arrived"))
    pipe_whole("tidegate/blog:v2", tmp_path / "engine.sock", where="one", stop=threading.Event())
    assert (tmp_path / "arrived").stat().st_size == 3_000_000
    assert sorted(programs.called) == [f"docker -H unix://{tmp_path}/engine.sock load", "docker save tidegate/blog:v2"]


@pytest.mark.parametrize(
    ("save", "load", "why"),
    [
        ("echo 'no such image' >&2; exit 1", "cat > /dev/null", "no such image"),
        ("echo all", "cat > /dev/null; echo 'no space left' >&2; exit 1", "no space left"),
    ],
)
def test_either_ends_trouble_is_told_in_its_own_words(programs: Programs, tmp_path: Path, save: str, load: str, why: str) -> None:
    programs.add("docker", SAVES.format(save=save, load=load))
    with pytest.raises(Failed, match="could not be piped") as caught:
        pipe_whole("tidegate/blog:v2", tmp_path / "engine.sock", where="one", stop=threading.Event())
    assert (caught.value.where, caught.value.why) == ("one", why)


def test_a_transfer_that_is_stopped_ends_both(programs: Programs, tmp_path: Path) -> None:
    programs.add("docker", SAVES.format(save="exec sleep 60", load=f"touch {tmp_path}/loading; exec cat"))
    stop = threading.Event()

    def stop_it() -> None:
        if until((tmp_path / "loading").exists):
            stop.set()

    threading.Thread(target=stop_it, daemon=True).start()
    with pytest.raises(Failed, match="could not be piped"):
        pipe_whole("tidegate/blog:v2", tmp_path / "engine.sock", where="one", stop=stop)
