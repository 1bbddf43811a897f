"""The program on a server: installed, told its settings, asked; with the real agent and the real program."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backup import package
from backup.agent import install
from backup.client import Client
from ops.errors import Failed, Locked, Refused
from tests.backup.local_servers import Servers, make


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Servers:
    return make(tmp_path, monkeypatch)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_program_and_the_settings_are_put_there_and_only_root_reads_the_settings(servers: Servers) -> None:
    with servers.client() as client:
        client.ensure()
    assert servers.program.read_bytes() == package.program()
    assert mode(servers.program) == 0o755
    assert mode(servers.program.parent) == 0o755
    assert mode(servers.app / "backup.json") == 0o600
    assert mode(servers.app) == 0o700
    assert [path.name for path in servers.app.iterdir()] == ["backup.json"]


def test_what_is_there_already_is_not_written_again(servers: Servers) -> None:
    with servers.client() as client:
        client.ensure()
        before = [path.stat().st_ino for path in (servers.program, servers.app / "backup.json")]
        client.ensure()
    assert [path.stat().st_ino for path in (servers.program, servers.app / "backup.json")] == before


@pytest.mark.parametrize("damage", ["other bytes", "gone", "readable by all"])
def test_what_is_not_as_it_should_be_is_put_right(servers: Servers, damage: str) -> None:
    settings = servers.app / "backup.json"
    with servers.client() as client:
        client.ensure()
        wanted = settings.read_text()
        for path in (servers.program, settings):
            if damage == "other bytes":
                path.write_text("x")
            elif damage == "gone":
                path.unlink()
            else:
                path.chmod(0o777)
        client.ensure()
    assert (servers.program.read_bytes(), settings.read_text()) == (package.program(), wanted)
    assert (mode(servers.program), mode(settings)) == (0o755, 0o600)


def test_an_older_program_is_replaced_before_it_does_anything(servers: Servers) -> None:
    with servers.client() as client:
        client.ensure()
        servers.program.write_bytes(package.program() + b"\n")
    with servers.client(told=False) as client:
        assert client.call("list") == {"backups": [], "problems": []}
    assert servers.program.read_bytes() == package.program()


def test_one_that_does_not_know_an_option_yet_is_replaced_too(servers: Servers) -> None:
    servers.program.parent.mkdir()
    servers.program.write_text("import argparse; argparse.ArgumentParser().parse_args()")
    with servers.client() as client:
        client._ready = True
        client.call("list")
    assert servers.program.read_bytes() == package.program()


def test_a_backup_is_taken_told_of_and_listed(servers: Servers) -> None:
    events: list[dict[str, Any]] = []
    with servers.client() as client:
        done = client.call("run", "--types", "manual", on_event=events.append)
        listed = client.call("list")["backups"]
    assert done["result"] == "complete"
    assert done["items"][0]["counts"] == {"posts": 2}
    assert [(one["id"], one["good"], one["agent"]) for one in listed] == [(done["id"], True, package.digest()[:12])]
    assert {event["event"] for event in events} <= {"say", "warn", "bytes"}


def test_why_it_failed_comes_back_as_an_error_of_the_right_kind(servers: Servers) -> None:
    with servers.client() as client:
        with pytest.raises(Failed, match="there is no backup") as caught:
            client.call("verify", "20260101T000000Z-abcdef")
        assert (caught.value.where, caught.value.exit_code) == ("one.invalid", 1)
        assert caught.value.fix == "inv backup.list -e test"
    with servers.client(told=False) as client:
        (servers.app / "backup.json").unlink()
        with pytest.raises(Refused, match="no settings") as refused:
            client.call("list")
    assert refused.value.fix == "inv backup.status -e test writes them"


def test_another_run_at_work_is_the_same_error_as_a_lock(servers: Servers) -> None:
    hold = "import fcntl, os, sys\nf = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    with servers.client() as client:
        client.call("run")
        command = [sys.executable, "-c", hold, str(servers.app / "backups" / ".lock")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(Locked) as caught:
                client.call("run")
    assert caught.value.exit_code == 4


def test_a_program_that_breaks_is_told_with_its_last_words(servers: Servers) -> None:
    with servers.client() as client:
        client.ensure()
        servers.program.write_text("raise SystemExit('it broke')")
        with pytest.raises(Failed, match="exit code 1") as caught:
            client.call("list")
    assert caught.value.why == "it broke"


@pytest.mark.parametrize(
    "words",
    [
        "sudo: a password is required",
        "deploy is not in the sudoers file.",
        "Sorry, user deploy is not allowed to execute 'x' as root",
    ],
)
def test_without_sudo_it_is_refused_with_what_to_allow(servers: Servers, words: str) -> None:
    with servers.client() as client:
        error = client._broken(1, f"some banner\n{words}")
    assert isinstance(error, Refused)
    assert "NOPASSWD" in error.fix
    assert "/etc/sudoers.d/tidegate" in error.fix
    assert words in error.why


def test_what_sudo_only_remarks_is_no_refusal(servers: Servers) -> None:
    with servers.client() as client:
        error = client._broken(1, "sudo: unable to resolve host x: Temporary failure\nTraceback: MemoryError")
    assert isinstance(error, Failed)
    assert "MemoryError" in error.why


def test_the_command_that_the_server_names_gets_our_environment() -> None:
    client = Client.__new__(Client)
    client._env = type("Named", (), {"name": "staging"})  # type: ignore[assignment]
    fixes = {
        "inv backup.list": "inv backup.list -e staging",
        "choose another: inv backup.list": "choose another: inv backup.list -e staging",
        "inv server.bootstrap installs it": "inv server.bootstrap -e staging installs it",
        "inv backup.status -e prod": "inv backup.status -e prod",
        "inv backup.restore-undo, or drop it": "inv backup.restore-undo -e staging, or drop it",
        "wait for it": "wait for it",
    }
    assert {fix: client._for_environment(fix) for fix in fixes} == fixes


def test_bytes_that_changed_on_their_way_are_not_put_in_place(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with pytest.raises(SystemExit, match="not what was sent"):
        install._put(str(path), 0o600, hashlib.sha256(b"other").hexdigest(), "dGhpcw==")
    assert not path.parent.exists()


def test_a_folder_that_comes_into_being_belongs_to_whom_the_one_above_belongs(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root gives folders away")
    os.chown(tmp_path, 1234, 1234)
    install._make_folder(str(tmp_path / "blog"), 0o700)
    known = (tmp_path / "blog").stat()
    assert (known.st_uid, known.st_gid, stat.S_IMODE(known.st_mode)) == (1234, 1234, 0o700)
