"""Host keys that are new, known or changed, and what is asked before servers are made ready."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from deploy import bootstrap, servers
from deploy.servers import HostKeys, fetch_keys, make_ready, trust
from ops.config import App, Environment, HostAddress
from ops.errors import Failed
from tests.shell_server import ShellServer, shell_server

OLD, OTHER = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()
RSA = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAQQ=="


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShellServer]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with shell_server(tmp_path) as server:
        yield server


def line(hosts: str, key: paramiko.PKey) -> str:
    return f"{hosts} {key.get_name()} {key.get_base64()}"


def name(server: ShellServer) -> str:
    return f"[127.0.0.1]:{server.address.port}"


def fetch(server: ShellServer) -> HostKeys:
    return fetch_keys(server.environment, server.address)


def test_a_first_key_is_neither_trusted_nor_a_change_until_it_is_agreed_to(server: ShellServer) -> None:
    server.known_hosts.unlink()
    keys = fetch(server)
    assert (keys.trusted, keys.changed, keys.warning) == (False, (), "")
    assert keys.lines == (line(name(server), server.key),)
    trust(server.environment, keys)
    assert fetch(server).trusted
    assert server.known_hosts.read_text() == keys.lines[0] + "\n"


def test_a_key_is_not_glued_to_a_last_line_without_newline(server: ShellServer) -> None:
    before = line("other.example", OTHER)
    server.known_hosts.write_text(before)
    trust(server.environment, fetch(server))
    assert server.known_hosts.read_text().splitlines() == [before, line(name(server), server.key)]


def test_a_changed_key_is_told_with_the_old_fingerprint(server: ShellServer) -> None:
    server.known_hosts.write_text(line(name(server), OLD) + "\n")
    shown = subprocess.run(["ssh-keygen", "-lf", server.known_hosts], capture_output=True, text=True, check=True).stdout
    keys = fetch(server)
    assert not keys.trusted
    assert keys.changed == (shown.split()[1],)
    assert keys.warning.startswith(f"CHANGED, was {keys.changed[0]}")


def test_trust_puts_a_changed_key_in_the_place_of_the_old_one_and_of_nothing_else(server: ShellServer) -> None:
    me = name(server)
    others = ["# ours", "", line("other.example", OLD), f"{me} {RSA}", f"@revoked {line(me, OTHER)}"]
    server.known_hosts.write_text("\n".join([*others, line(me, OLD), line(f"a.example,{me}", OLD), line(me, OTHER)]))
    server.known_hosts.chmod(0o640)
    trust(server.environment, fetch(server))
    assert server.known_hosts.read_text().splitlines() == [*others, line("a.example", OLD), line(me, server.key)]
    assert stat.S_IMODE(server.known_hosts.stat().st_mode) == 0o640
    assert not [path for path in os.listdir(server.known_hosts.parent) if path.startswith(".known_hosts")]
    assert fetch(server).trusted


def test_an_old_key_beside_the_right_one_is_a_change_still(server: ShellServer) -> None:
    server.known_hosts.write_text(f"{line(name(server), server.key)}\n{line(name(server), OLD)}\n")
    keys = fetch(server)
    assert (keys.trusted, len(keys.changed)) == (False, 1)
    trust(server.environment, keys)
    assert server.known_hosts.read_text().splitlines() == [line(name(server), server.key)]


def test_hashed_lines_are_recognized(server: ShellServer) -> None:
    server.known_hosts.write_text(f"{line(name(server), server.key)}\n")
    subprocess.run(["ssh-keygen", "-Hf", server.known_hosts], capture_output=True, check=True)
    hashed = server.known_hosts.read_text()
    assert hashed.startswith("|1|")
    assert fetch(server).trusted
    trust(server.environment, fetch(server))
    assert server.known_hosts.read_text() == hashed
    server.known_hosts.write_text(hashed.replace(server.key.get_base64(), OLD.get_base64()))
    assert fetch(server).changed


def test_damaged_lines_are_kept_and_do_no_harm(server: ShellServer) -> None:
    damaged = ["|1|x ecdsa-sha2-nistp256 AAAA", "|1|%%%|a ecdsa-sha2-nistp256 AAAA", "lonely", "caf\udce9 ssh-rsa AAAA"]
    server.known_hosts.write_text("\n".join(damaged), errors="surrogateescape")
    trust(server.environment, fetch(server))
    assert server.known_hosts.read_text(errors="surrogateescape").splitlines()[:-1] == damaged


def test_a_linked_known_hosts_stays_a_link(server: ShellServer, tmp_path: Path) -> None:
    (tmp_path / "real").write_text("")
    server.known_hosts.unlink()
    server.known_hosts.symlink_to("real")
    trust(server.environment, fetch(server))
    assert server.known_hosts.is_symlink()
    assert name(server) in (tmp_path / "real").read_text()


def test_a_server_that_shows_no_key_is_a_failure_with_what_ssh_said(server: ShellServer) -> None:
    server.close()
    with pytest.raises(Failed, match="showed no host key") as caught:
        fetch(server)
    assert "refused" in caught.value.why


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Environment, list[str]]:
    """Two servers of which the first lacks a folder, and a list of what is done to them."""
    done: list[str] = []
    folder = bootstrap.plan({"uid": "0", "user": "root", "groups": "root", "engine": "yes", "python": "works",
                             **{f"has_{program}": "yes" for program in bootstrap.PACKAGES}})  # fmt: skip
    monkeypatch.setattr(bootstrap, "survey", lambda env, host: folder if host.address == "one.example" else ())
    monkeypatch.setattr(bootstrap, "carry_out", lambda env, host, missing, say: done.append(f"change {host.address}"))
    monkeypatch.setattr(servers, "_ensure_edges", lambda env, say: done.append("edges"))
    hosts = (HostAddress(address="one.example"), HostAddress(address="two.example"))
    known = tmp_path / "known_hosts"
    return Environment(name="test", app=App(name="blog", port=3000), hosts=hosts, domains=("a.example",), known_hosts=known), done


def test_each_server_is_asked_about_once_with_all_that_will_be_done(two: tuple[Environment, list[str]]) -> None:
    env, done = two
    asked: list[tuple[str, list[str]]] = []

    def confirm(server: str, what: Sequence[str]) -> bool:
        assert not done
        asked.append((server, list(what)))
        return True

    assert make_ready(env, lambda server, what: None, confirm)
    edge = "network, edge nginx and its files are checked and brought up to date"
    assert asked == [
        ("one.example", ["create /srv/tidegate", edge]),
        ("two.example", ["packages, engine and folders are there", edge]),
    ]
    assert done == ["change one.example", "edges"]


@pytest.mark.parametrize("declined", ["one.example", "two.example"])
def test_nothing_is_changed_anywhere_when_one_server_is_declined(two: tuple[Environment, list[str]], declined: str) -> None:
    env, done = two
    assert not make_ready(env, lambda server, what: None, lambda server, what: server != declined)
    assert done == []


def test_a_key_that_did_not_change_has_no_warning() -> None:
    keys = HostKeys("a", ("a ssh-rsa AAAA",), ("2048 SHA256:x a (RSA)",), trusted=False)
    assert keys.warning == ""
    assert "SHA256:old" in replace(keys, changed=("SHA256:old",)).warning
