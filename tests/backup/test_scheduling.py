"""Schedules put on a server and taken away: a real sshd's shell, whose files, cron and systemd are a folder of the test's."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backup import schedule as schedules
from backup import schedule_files, scheduling
from backup.client import Client
from backup.progress import Printer
from backup.schedule_files import File
from ops.config import Environment
from ops.console import Console
from ops.errors import Failed, Refused
from ops.host import Host
from tests.backup.local_servers import make
from tests.programs import Programs
from tests.shell_server import ShellServer, shell_server

STAT = 'printf \'%s 0\\n\' "$(/usr/bin/stat -c %a "$3")"'  # what is written is root's, whoever runs the tests


class Machine:
    """Where the server's programs and files are."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, cron: int) -> None:
        self.folder = folder
        self.programs = Programs(folder, monkeypatch)
        self.programs.add("stat", STAT)
        self.programs.add("cron")
        self.programs.add("service", f"echo {cron} > {folder}/crond.pid")
        self.programs.add("systemctl", f"""
case "$*" in
*is-active*|*is-enabled*) [ -e {folder}/runs ] ;;
restart*) touch {folder}/runs ;;
disable*) rm {folder}/runs ;;
esac""")  # fmt: skip
        facts = schedules._FACTS.replace("/run/crond.pid", f"{folder}/crond.pid")
        monkeypatch.setattr(schedules, "_FACTS", facts.replace("/run/systemd/system", f"{folder}/systemd"))
        for name in ("for_cron", "for_systemd"):
            monkeypatch.setattr(schedules, name, self._here(getattr(schedule_files, name)))
        monkeypatch.setattr(schedules, "programs", lambda env: ("whole_python",))

    def _here(self, files: object) -> object:
        def moved(app: str, minute: int) -> tuple[File, ...]:
            found: Sequence[File] = files(app, minute)  # type: ignore[operator]
            return tuple(File(f"{self.folder}/etc/{Path(one.path).name}", one.text) for one in found)

        return moved

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "etc").iterdir())


@pytest.fixture
def cron(tmp_path: Path) -> Iterator[int]:
    """Return the process of a cron."""
    (tmp_path / "daemon").mkdir()
    (tmp_path / "daemon/cron").symlink_to("/bin/sleep")
    with subprocess.Popen([tmp_path / "daemon/cron", "600"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cron: int) -> Machine:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "etc").mkdir()
    return Machine(tmp_path, monkeypatch, cron)


@pytest.fixture
def server(tmp_path: Path, machine: Machine) -> Iterator[ShellServer]:
    with shell_server(tmp_path) as found:
        yield found


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ShellServer) -> Environment:
    """An app with something to save, on that server."""
    known = make(tmp_path, monkeypatch).env
    monkeypatch.setattr(Client, "ensure", lambda self: None)  # tests/backup/test_client.py asks it
    return known.model_copy(update={"hosts": (server.address,), "known_hosts": server.known_hosts})


def schedule(env: Environment, *, remove: bool = False, agrees: bool = True) -> tuple[dict[str, list[str]], object]:
    """Return what people were asked, and what came of it."""
    asked: dict[str, list[str]] = {}

    def confirm(server: str, todo: Sequence[str]) -> bool:
        asked[server] = list(todo)
        return agrees

    return asked, scheduling.schedule(env, {}, Printer(Console(), 1), confirm, remove=remove)


def test_cron_is_told_once_and_a_second_time_there_is_nothing_to_do(
    env: Environment, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    name = env.hosts[0].name
    asked, done = schedule(env)
    assert asked == {name: [f"write {machine.folder}/etc/tidegate-blog", "start cron"]}
    assert done.errors == {}  # type: ignore[attr-defined]
    found = done.results[name]  # type: ignore[attr-defined]
    assert (found["by"], 0 <= found["minute"] < 60, len(found["next"]) > 0) == ("cron", True, True)
    assert machine.files == ["tidegate-blog"]
    assert (machine.folder / "etc/tidegate-blog").stat().st_mode & 0o777 == 0o644
    assert "· start cron" in capsys.readouterr().out
    assert schedule(env)[0] == {name: []}


def test_systemd_takes_crons_place_where_it_runs_the_server(env: Environment, machine: Machine) -> None:
    schedule(env)
    (machine.folder / "systemd").mkdir()
    asked, done = schedule(env)
    (todo,) = asked.values()
    assert [one.partition(" ")[0] for one in todo] == ["remove", "write", "write", "start"]
    assert [one["by"] for one in done.results.values()] == ["systemd"]  # type: ignore[attr-defined]
    assert machine.files == ["tidegate-backup-blog.service", "tidegate-backup-blog.timer"]
    assert "systemctl restart tidegate-backup-blog.timer" in machine.programs.called


def test_it_is_taken_away_as_it_was_installed_and_then_there_is_none(env: Environment, machine: Machine) -> None:
    (machine.folder / "systemd").mkdir()
    schedule(env)
    asked, done = schedule(env, remove=True)
    assert list(asked.values()) == [["take away its schedule, if it has one"]]
    assert [one["removed"] for one in done.results.values()] == [True]  # type: ignore[attr-defined]
    assert machine.files == []
    assert "systemctl disable --now tidegate-backup-blog.timer" in machine.programs.called
    _, again = schedule(env, remove=True)
    assert [one["removed"] for one in again.results.values()] == [False]  # type: ignore[attr-defined]


def test_what_a_person_declines_is_not_done(env: Environment, machine: Machine) -> None:
    asked, done = schedule(env, agrees=False)
    assert (len(asked), done) == (1, None)
    assert machine.files == []


def test_what_is_still_missing_afterwards_is_named(env: Environment, machine: Machine) -> None:
    machine.programs.add("service")
    with Host(env, env.hosts[0]) as host, pytest.raises(Failed, match="still missing: start cron") as caught:
        schedules.install(env, host, lambda *_: None, datetime.now(UTC))
    assert caught.value.fix == "inv backup.schedule -e test"


def test_a_step_that_fails_is_told_in_the_servers_words(env: Environment, machine: Machine) -> None:
    machine.programs.add("service", "echo 'cron: unrecognized service' >&2; exit 1")
    _, done = schedule(env)
    (error,) = done.errors.values()  # type: ignore[attr-defined]
    assert "cron: unrecognized service" in error.why
    assert error.fix == "put that right on the server, then inv backup.schedule -e test"


def test_without_root_nothing_is_begun(env: Environment, machine: Machine) -> None:
    machine.programs.add("id", "echo 1000")
    (machine.folder / "bin/sudo").write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    with pytest.raises(Refused, match="we are not root and cannot become it") as caught:
        schedule(env)
    assert caught.value.why == "sudo: a password is required"
    assert "inv server.bootstrap" in caught.value.fix
    assert machine.files == []


def test_a_server_whose_shell_runs_no_commands_is_told(env: Environment, server: ShellServer) -> None:
    server.profile = "echo 'This account is not available'; exit 1"
    with pytest.raises(Refused, match="the server runs no commands for us") as caught:
        schedule(env)
    assert caught.value.why == "This account is not available"
