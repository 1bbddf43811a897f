"""Commands on a server through Fabric: which host keys are good enough, and what is said when something is not."""

from __future__ import annotations

from pathlib import Path

import paramiko
import pytest

from ops.config import App, Environment, HostAddress
from ops.errors import Failed, Unreachable
from ops.host import Host, _hops
from ops.shell import sh
from tests.shell_server import shell_server

KEY = paramiko.ECDSAKey.generate()
ENTRY = f"{KEY.get_name()} {KEY.get_base64()}"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without anybody's keys and ssh_config."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


def host(folder: Path) -> Host:
    address = HostAddress(address="inner.example", user="deploy")
    app, known = App(name="blog", port=3000), folder / "known_hosts"
    return Host(Environment(name="test", app=app, hosts=(address,), domains=("a.example",), known_hosts=known), address)


def test_every_hop_of_a_proxy_jump_refuses_unknown_keys_and_knows_those_we_trust(tmp_path: Path, home: Path) -> None:
    (home / ".ssh/config").write_text("Host inner.example\n  ProxyJump first.example,second.example:2200\n")
    (tmp_path / "known_hosts").write_text(f"first.example {ENTRY}\n")
    (home / ".ssh/known_hosts").write_text(f"[second.example]:2200 {ENTRY}\n")
    (home / ".ssh/known_hosts2").write_text(f"inner.example {ENTRY}\n")
    hops = list(_hops(host(tmp_path)._connection))
    assert hops[0].host == "inner.example"
    assert {hop.host for hop in hops} == {"inner.example", "first.example", "second.example"}
    for hop in hops:
        assert isinstance(hop.client._policy, paramiko.RejectPolicy)
        assert set(hop.client.get_host_keys()) == {"first.example", "[second.example]:2200", "inner.example"}


def test_a_proxy_command_is_left_to_check_for_itself(tmp_path: Path, home: Path) -> None:
    (home / ".ssh/config").write_text("Host inner.example\n  ProxyCommand ssh -W %h:%p first.example\n")
    (hop,) = _hops(host(tmp_path)._connection)
    assert isinstance(hop.client._policy, paramiko.RejectPolicy)
    assert hop.gateway.startswith("ssh -W")


def test_a_jump_host_with_an_unknown_key_is_refused(tmp_path: Path, home: Path) -> None:
    with shell_server(tmp_path) as jump:
        (home / ".ssh/config").write_text(
            f"Host inner.example\n  ProxyJump deploy@127.0.0.1:{jump.address.port}\n"
            f"Host 127.0.0.1\n  IdentityFile {jump.address.identity}\n"
        )
        jump.known_hosts.unlink()
        with pytest.raises(Unreachable, match="cannot connect") as caught, host(tmp_path) as inner:
            inner.run(sh("true"))
        assert "host key is not trusted" in caught.value.why
        assert "server.trust" in caught.value.fix


def test_a_command_is_run_and_its_failure_names_cause_and_next_command(tmp_path: Path) -> None:
    with shell_server(tmp_path) as server, Host(server.environment, server.address) as there:
        assert there.check(sh("echo", "a  b")) == "a  b\n"
        with pytest.raises(Failed, match="exit code 3") as caught:
            there.check(sh("sh", "-c", "echo no >&2; exit 3"), fix="try again")
        assert (caught.value.why, caught.value.fix) == ("no", "try again")
        with pytest.raises(Failed) as caught:
            there.check(sh("false"))
        assert caught.value.why == "it said nothing"


def test_a_server_that_opens_no_shell_is_explained(tmp_path: Path) -> None:
    with shell_server(tmp_path, profile=None) as server, Host(server.environment, server.address) as there:
        with pytest.raises(Unreachable, match="opens no shell") as caught:
            there.run(sh("true"))
        assert "shell" in caught.value.fix


def test_another_key_than_the_known_one_is_refused(tmp_path: Path) -> None:
    with shell_server(tmp_path) as server:
        server.known_hosts.write_text(f"[127.0.0.1]:{server.address.port} {ENTRY}\n")
        with pytest.raises(Unreachable) as caught, Host(server.environment, server.address) as there:
            there.run(sh("true"))
        assert "not the one that was trusted" in caught.value.why
