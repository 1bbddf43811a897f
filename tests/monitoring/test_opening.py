"""A page of the stack in a browser here: through a real ssh, and to nobody else."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from monitoring.opening import opened
from ops.errors import ConfigError, Refused, Unreachable
from tests.local_ssh import until
from tests.monitoring.a_stack import Stack, stack
from tests.monitoring.watched import environment
from tests.shell_server import ShellServer


class Forwarding(ShellServer):
    """An SSH server that leads on to a port of its loopback, as sshd does."""

    _leading = False

    def check_channel_direct_tcpip_request(self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]) -> int:
        if not self._leading:
            self._leading = True
            threading.Thread(target=self._lead, args=(destination,), daemon=True).start()
        return paramiko.common.OPEN_SUCCEEDED

    def _lead(self, destination: tuple[str, int]) -> None:
        while channel := self._transports[-1].accept(10):
            service = socket.create_connection(destination, 5)
            for ends in ((channel, service), (service, channel)):
                threading.Thread(target=_pour, args=ends, daemon=True).start()


def _pour(source: socket.socket | paramiko.Channel, target: socket.socket | paramiko.Channel) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass  # the other side has ended
    finally:
        target.close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShellServer]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    found = Forwarding(tmp_path)
    yield found
    found.close()


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    with stack(monkeypatch) as found:
        found.answers["/"] = "a page"
        yield found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_page_is_there_for_as_long_as_it_is_open(server: ShellServer, pages: Stack) -> None:
    port = free_port()
    with opened(server.environment, "loki", port) as url:
        assert url == f"http://localhost:{port}/"
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read() == b"a page"
    assert until(lambda: not listens(port))


def test_what_has_no_page_is_refused_with_those_that_have(server: ShellServer) -> None:
    with pytest.raises(ConfigError, match="no page of 'node'") as caught, opened(server.environment, "node"):
        pass
    assert "grafana, prometheus, alertmanager, loki" in caught.value.why


def test_a_page_that_is_left_out_is_refused_before_anything_is_connected() -> None:
    env = environment(monitoring={"without": ["loki"]})
    with pytest.raises(ConfigError, match="loki is left out"), opened(env, "loki"):
        pytest.fail("there is none")


def test_a_port_that_is_taken_here_is_told_before_anything_is_connected(server: ShellServer, pages: Stack) -> None:
    with (
        pytest.raises(Refused, match=f"port {pages.server_port} of this machine is taken"),
        opened(server.environment, "grafana"),
    ):
        pass
    assert server._transports == []


def test_a_server_that_does_not_let_us_in_is_told_in_ssh_s_own_words(server: ShellServer) -> None:
    server.known_hosts.write_text("")
    with (
        pytest.raises(Unreachable, match="Host key verification failed") as caught,
        opened(server.environment, "grafana", free_port()),
    ):
        pass
    assert caught.value.fix == "inv server.check -e test"


def test_a_server_that_is_not_there_is_told_too(server: ShellServer) -> None:
    server.close()
    with pytest.raises(Unreachable, match="Connection refused"), opened(server.environment, "grafana", free_port()):
        pass
