"""The toolbox: programs in a container, joined to ours by named pipes, with every failure told and nothing left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from backup.agent.errors import BackupError, Stopped
from backup.agent.mariadb_tools import options
from backup.agent.model import Settings
from backup.agent.postgres_restore import conninfo, named
from backup.agent.sockets import local_ports
from backup.agent.streams import pipe
from backup.agent.toolbox import PREFIX, Kit, Toolbox, toolbox
from ops.agent.engine import Engine

IMAGE = "debian:trixie-slim"
integration = pytest.mark.integration


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(f"tool-{os.urandom(3).hex()}", "production", "here", (), home=str(tmp_path))


@pytest.fixture
def box(settings: Settings) -> Iterator[Toolbox]:
    from ops.bases import ensure_base

    ensure_base(IMAGE, print)
    with toolbox(Engine(settings.engine), settings, Kit(IMAGE, files={"password": "secret"})) as box:
        yield box
    assert list(settings.folder.glob(f"{PREFIX}*")) == []
    assert containers(settings) == []


def containers(settings: Settings) -> list[str]:
    command = ["docker", "ps", "-aq", "--filter", f"label=dev.tidegate.backup={settings.app}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def into(path: Path, reader: int, program: str = "cat") -> None:
    with path.open("wb") as file:
        pipe([["sh", "-c", program]], reader, file.fileno())


def zeros(size: int, writer: int) -> None:
    pipe([["head", "-c", str(size), "/dev/zero"]], 0, writer)


@integration
def test_what_a_program_writes_is_received_to_its_last_byte(box: Toolbox, tmp_path: Path) -> None:
    box.produce(["sh", "-c", "head -c 5000000 /dev/urandom | tee /tidegate/copy"], lambda fd: into(tmp_path / "got", fd))
    assert (tmp_path / "got").read_bytes() == (box.folder / "copy").read_bytes()


@integration
def test_a_program_that_writes_nothing_ends_what_receives_it(box: Toolbox, tmp_path: Path) -> None:
    box.produce(["true"], lambda fd: into(tmp_path / "got", fd))
    assert (tmp_path / "got").read_bytes() == b""


@integration
@pytest.mark.parametrize(
    ("script", "why"),
    [("echo some; echo it broke >&2; exit 3", "it broke"), ("kill -9 $$", "killed"), ("exec no-such-program", "no-such-program")],
)
def test_a_program_that_fails_is_what_is_told(box: Toolbox, tmp_path: Path, script: str, why: str) -> None:
    with pytest.raises(BackupError, match=why):
        box.produce(["sh", "-c", script], lambda fd: into(tmp_path / "got", fd))
    with pytest.raises(BackupError, match=why):
        box.consume(["sh", "-c", script], lambda fd: pipe([["head", "-c", "9000000", "/dev/zero"]], 0, fd))


@integration
def test_what_receives_and_fails_is_what_is_told(box: Toolbox, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="full"):
        box.produce(["cat", "/dev/zero"], lambda fd: into(tmp_path / "got", fd, "head -c 100; echo full >&2; exit 1"))


@integration
def test_what_is_fed_arrives_to_its_last_byte_however_little(box: Toolbox) -> None:
    for size in (0, 1, 70000, 3_000_000):
        box.consume(["sh", "-c", "wc -c >/tidegate/size"], partial(zeros, size))
        assert int((box.folder / "size").read_text()) == size


@integration
def test_a_feeder_that_fails_is_what_is_told(box: Toolbox) -> None:
    with pytest.raises(BackupError, match="damaged"):
        box.consume(["sh", "-c", "cat >/dev/null"], lambda fd: pipe([["sh", "-c", "echo x; echo damaged >&2; exit 1"]], 0, fd))


@integration
def test_many_complaints_do_not_block_a_program(box: Toolbox, tmp_path: Path) -> None:
    box.produce(["sh", "-c", "head -c 3000000 /dev/zero >&2; echo done"], lambda fd: into(tmp_path / "got", fd))
    assert (tmp_path / "got").read_text() == "done\n"


@integration
def test_the_container_has_no_rights_and_its_folder_is_private(box: Toolbox) -> None:
    assert box.run(["cat"], 'it\'s $HOME "ü"\n') == 'it\'s $HOME "ü"\n'
    assert "CapEff:\t0000000000000000" in box.run(["cat", "/proc/self/status"])
    assert box.run(["cat", "/tidegate/password"]) == "secret"
    assert box.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in box.folder.iterdir()} == {0o600}
    with pytest.raises(BackupError, match="Read-only"):
        box.run(["touch", "/x"])


@integration
def test_a_stop_anywhere_leaves_nothing(settings: Settings) -> None:
    def stop(_: int) -> None:
        raise Stopped

    engine = Engine(settings.engine)
    with pytest.raises(Stopped), toolbox(engine, settings, Kit(IMAGE)) as box:
        box.produce(["cat", "/dev/zero"], stop)
    with pytest.raises(Stopped), toolbox(engine, settings, Kit(IMAGE)) as box:
        box.consume(["cat"], stop)
    assert containers(settings) == []
    assert list(settings.folder.glob(f"{PREFIX}*")) == []


@integration
def test_an_engine_that_is_not_there_is_told(settings: Settings) -> None:
    with pytest.raises(BackupError, match="/nowhere"), toolbox(Engine("/nowhere"), settings, Kit(IMAGE)):
        pass
    assert list(settings.folder.glob(f"{PREFIX}*")) == []


def test_names_are_taken_for_what_they_are() -> None:
    assert conninfo("it's \\ host=x") == "dbname='it\\'s \\\\ host=x'"
    assert 'password="a\\\\b\\"c#d"' in options("db", 3306, "root", 'a\\b"c#d')


def test_a_name_that_is_too_long_is_cut_and_stays_one_of_its_own() -> None:
    first, second = (named("ü" * 30 + end, "_before_20261123t103000z") for end in ("a", "b"))
    assert named("blog", "_before_x") == "blog_before_x"
    assert len(first.encode()) <= 63
    assert first.endswith("_before_20261123t103000z")
    assert first != second


def test_a_process_that_is_gone_speaks_from_no_port() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert local_ports(child.pid) == set()


@integration
def test_a_text_of_any_length_reaches_a_program_and_is_in_no_argument(box: Toolbox) -> None:
    text = 'it\'s "ü" $HOME `id` \\n %s\n' * 20_000
    assert box.run(["cat"], text) == text
    assert box.run(["cat"]) == ""
    seen = box.run(["sh", "-c", "cat >/dev/null; cat /proc/[0-9]*/cmdline | tr '\\0' ' '"], "hunter2hunter2")
    assert "hunter2" not in seen
