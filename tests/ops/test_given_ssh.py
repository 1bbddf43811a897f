"""A key and host keys that come in variables: in an agent while a command works, in no file, and gone after it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops import menu
from ops.errors import ConfigError, Refused
from ops.given_ssh import HOSTS, HOSTS_FILE, KEY, given_ssh, trusted_files
from tests.local_ssh import until

WORKS = """
import os, signal
from ops.given_ssh import given_ssh
with given_ssh(os.environ):
    print(os.environ["SSH_AUTH_SOCK"], flush=True)
    signal.pause()
"""
HOST_KEY = "server.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ"


@pytest.fixture
def key(tmp_path: Path) -> str:
    return made(tmp_path / "key")


def made(file: Path, passphrase: str = "") -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "ci", "-f", file], check=True)
    return file.read_text()


def held() -> str:
    """Return what the agent of this process says it holds."""
    done = subprocess.run(["ssh-add", "-L"], env=dict(os.environ), capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_an_agent_holds_the_key_while_a_command_works(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, key)
    with given_ssh(os.environ):
        agent = Path(os.environ["SSH_AUTH_SOCK"])
        assert held() == (tmp_path / "key.pub").read_text()
    assert not agent.exists()
    assert not agent.parent.exists()
    assert os.environ[KEY] == key, "the next task of the same command finds none"


def test_the_agent_ends_with_a_command_that_is_killed(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", WORKS], env={**os.environ, KEY: key}, text=True, stdout=subprocess.PIPE
    ) as works:
        assert works.stdout
        monkeypatch.setenv("SSH_AUTH_SOCK", works.stdout.readline().strip())
        assert held() == (tmp_path / "key.pub").read_text()
        works.kill()
    assert until(lambda: not Path(os.environ["SSH_AUTH_SOCK"]).exists())
    assert "ssh-ed25519" not in held()


def test_no_program_that_is_started_sees_the_key(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, key)
    with given_ssh(os.environ):
        assert KEY.encode() not in subprocess.run(["env"], capture_output=True, check=True).stdout


def test_no_file_holds_the_key(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, key)
    monkeypatch.setenv(HOSTS, HOST_KEY)
    with given_ssh(os.environ):
        folder = Path(os.environ["SSH_AUTH_SOCK"]).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert [file.name for file in folder.iterdir() if file.is_file()] == ["known_hosts"]


@pytest.mark.parametrize(
    "change", [lambda key: key.rstrip("\n"), lambda key: key.replace("\n", "\r\n"), lambda key: key + "\n\n"]
)
def test_a_key_that_went_through_a_form_is_understood(key: str, change: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, change(key))  # type: ignore[operator]
    with given_ssh(os.environ):
        assert held().startswith("ssh-ed25519 ")


def test_the_agent_of_a_user_is_theirs_again_afterwards(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/user/1000/agent")
    monkeypatch.setenv(KEY, key)
    with given_ssh(os.environ):
        assert os.environ["SSH_AUTH_SOCK"] != "/run/user/1000/agent"
    assert os.environ["SSH_AUTH_SOCK"] == "/run/user/1000/agent"


@pytest.mark.parametrize(
    "broken", ["no key at all", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----"]
)
def test_what_is_no_key_is_an_error_that_does_not_quote_it(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, broken)
    with pytest.raises(ConfigError) as caught, given_ssh(os.environ):
        raise AssertionError("unreachable")
    assert caught.value.where == KEY
    assert broken not in str(caught.value)
    assert "SSH_AUTH_SOCK" not in os.environ or os.environ["SSH_AUTH_SOCK"]


def test_a_key_with_a_passphrase_is_an_error_and_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, made(tmp_path / "locked", "a passphrase"))
    with pytest.raises(ConfigError, match="cannot be used"), given_ssh(os.environ):
        raise AssertionError("unreachable")


def test_a_machine_without_an_agent_is_told_what_to_install(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, key)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="ssh-agent is not installed"), given_ssh(os.environ):
        raise AssertionError("unreachable")


def test_given_host_keys_are_trusted_beside_those_of_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOSTS_FILE, raising=False)
    monkeypatch.setenv(HOSTS, HOST_KEY)
    own = trusted_files(Path("known_hosts"))
    with given_ssh(os.environ):
        first, given, *rest = trusted_files(Path("known_hosts"))
        assert [first, *rest] == own
        assert given.read_text() == HOST_KEY + "\n"
    assert trusted_files(Path("known_hosts")) == own


def test_without_either_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    before = dict(os.environ)
    with given_ssh(os.environ):
        assert dict(os.environ) == before


def test_every_command_takes_them(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, key)
    with menu.opened():
        assert held().startswith("ssh-ed25519 ")
