"""What is known of a server before the bootstrap, what it lacks, and what is said where that cannot be mended."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.bootstrap import _ALWAYS, _FACTS, look, packages, parse, plan, survey
from ops.config import App, Backup, BackupSource, Environment, HostAddress, Offsite
from ops.errors import Refused
from ops.host import Host
from ops.shell import sh
from tests.shell_server import shell_server

READY = {"id": "debian", "version": "13", "user": "deploy", "uid": "1000", "groups": "deploy docker", "python": "works",
         "engine": "yes", "home": "yes", **{f"has_{name}": "yes" for name in ("dockerd", "python3", "zstd", "iptables")}}  # fmt: skip
SUDO = "#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def programs(folder: Path, **contents: str) -> Path:
    """Put programs into a folder that comes before all others."""
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    return folder


def as_user() -> dict[str, str]:
    """Programs that make this machine look like a bare one where we are not root."""
    return {"id": '#!/bin/sh\ncase $1 in -u) echo 1000;; -un) echo deploy;; *) echo deploy;; esac\n', "sudo": SUDO,
            "stat": "#!/bin/sh\necho 755\n"}  # fmt: skip


@pytest.mark.parametrize("shell", ["dash", "bash", "bash --posix", "dash -u", "bash -u", "dash -e"])
def test_the_facts_are_found_by_any_posix_shell(shell: str) -> None:
    if not shutil.which(shell.partition(" ")[0]):
        pytest.skip(f"no {shell}")
    done = subprocess.run([*shell.split(), "-c", _FACTS], capture_output=True, text=True, check=True)
    facts = parse(done.stdout)
    assert facts.keys() >= _ALWAYS
    assert facts["uid"] == str(os.getuid())
    assert done.stderr == ""


def test_what_a_profile_prints_before_the_facts_is_passed_over(tmp_path: Path) -> None:
    noise = "echo 'Welcome! version=1'; echo python=works; echo home=yes; echo a=b; printf 'Last login: id=none'; PATH=/bin"
    with shell_server(tmp_path, noise) as server, Host(server.environment, server.address) as host:
        facts = parse(host.check(sh("sh", "-c", _FACTS)))
    quiet = parse(subprocess.run(["sh", "-c", _FACTS], capture_output=True, text=True, check=True).stdout)
    assert facts == quiet


def test_only_known_facts_are_taken() -> None:
    assert parse("tidegate-facts\nid=debian\nLD_PRELOAD=x\nno equals sign\ngroups=a=b\n") == {"id": "debian", "groups": "a=b"}
    assert parse("This account is currently not available.\n") == {}


def test_a_user_without_a_shell_is_told_so(tmp_path: Path) -> None:
    profile = "echo 'This account is currently not available.'; exit 1"
    with shell_server(tmp_path, profile) as server, Host(server.environment, server.address) as host:
        with pytest.raises(Refused, match="runs no commands for us") as caught:
            look(host)
        assert caught.value.why == "This account is currently not available."
        assert "usermod -s" in caught.value.fix


def test_a_sudo_that_asks_for_a_password_is_refused_with_its_words_and_the_way_out(tmp_path: Path) -> None:
    folder = programs(tmp_path / "bin", **as_user())
    with shell_server(tmp_path, f"PATH={folder}:$PATH") as server:
        with pytest.raises(Refused, match="sudo asks for a password") as caught:
            survey(server.environment, server.address)
        assert caught.value.why == "sudo: a password is required"
        assert "deploy ALL=(ALL) NOPASSWD" in caught.value.fix


def test_a_server_gets_what_its_backups_need_and_no_more() -> None:
    source = BackupSource(kind="sqlite", path="/srv/blog.db")
    plain = Backup(sources={"blog": source})
    full = Backup(sources={"blog": source}, compression="xz", recipients=("age1" + "q" * 58,),
                  offsite=Offsite(repository="r", password="P"))  # fmt: skip
    for backup, wanted in ((None, []), (plain, []), (full, ["install age, restic, xz-utils"])):
        app = App(name="blog", port=3000, backup=backup)
        env = Environment(name="test", app=app, hosts=(HostAddress(address="h"),), domains=("a.example",))
        assert [one.what for one in plan(READY, packages(env))] == wanted


def test_a_server_without_sudo_is_told_from_one_that_asks_for_a_password(tmp_path: Path) -> None:
    absent = "#!/bin/sh\nexec sh -c 'exec /nowhere/sudo' \n"
    folder = programs(tmp_path / "bin", **as_user() | {"sudo": absent})
    with shell_server(tmp_path, f"PATH={folder}:$PATH") as server:
        with pytest.raises(Refused, match="sudo is not installed") as caught:
            survey(server.environment, server.address)
        assert "apt-get install sudo" in caught.value.fix


def test_a_server_that_lacks_nothing_needs_no_sudo() -> None:
    assert plan(READY | {"sudo": "sudo: a password is required"}) == ()


def test_what_is_missing_is_done_in_an_order_that_works() -> None:
    bare = {key: READY[key] for key in ("id", "version", "user", "uid")} | {"groups": "deploy"}
    assert [one.what for one in plan(bare)] == [
        "install docker.io, iptables, python3, zstd",
        "let deploy use the engine",
        "create /srv/tidegate",
    ]
