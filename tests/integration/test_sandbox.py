"""The sandbox for real: servers that one can log in to, break and bring back."""

from __future__ import annotations

import stat
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from deploy import sandbox_server
from deploy.sandbox import Sandbox
from deploy.sandbox_server import SandboxServer
from ops import bases
from ops.shell import sh
from ops.stand_ins import DEBIAN, NGINX
from ops.this_machine import local_client

pytestmark = pytest.mark.integration
engine = cache(local_client)  # asked for by a test, never while tests are collected: there may be no engine yet


def login(sandbox: Sandbox, server: SandboxServer) -> list[str]:
    """Return the command line with which a user's own OpenSSH logs in, host keys checked."""
    settings = [f"UserKnownHostsFile={sandbox.known_hosts}", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"]
    options = [part for setting in settings for part in ("-o", setting)]
    return [
        *("ssh", "-F", "none", *options, "-i", str(sandbox.identity)),
        *("-p", str(server.ssh_port), f"deploy@{server.address}"),
    ]


def ssh(sandbox: Sandbox, server: SandboxServer, script: str) -> str:
    """Run a script on a server and return what it prints."""
    command = [*login(sandbox, server), sh("bash", "-c", script).reveal()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def ready(server: SandboxServer) -> dict[str, str]:
    """Wait until a server answers again."""
    return sandbox_server.wait_ready(engine(), server.name)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path_factory.mktemp("project"))
    yield sandbox
    sandbox.down(print)


@pytest.fixture(scope="module")
def servers(sandbox: Sandbox) -> list[SandboxServer]:
    return sandbox.up(2, print)


@pytest.fixture(scope="module")
def web(sandbox: Sandbox, servers: list[SandboxServer]) -> SandboxServer:
    """A server that serves a page from an image which came over SSH."""
    bases.ensure_base(NGINX, print)
    with subprocess.Popen([*login(sandbox, servers[0]), "docker load"], stdin=subprocess.PIPE) as load:
        assert load.stdin is not None
        for chunk in engine().images.get(NGINX).save(named=True):
            load.stdin.write(chunk)
    assert load.returncode == 0
    ssh(sandbox, servers[0], f"docker run -d --restart always --name web -p 80:80 {NGINX}")
    return servers[0]


def page(server: SandboxServer) -> int:
    """Fetch the server's page through its published port."""
    with urllib.request.urlopen(server.url, timeout=10) as response:
        return int(response.status)


def await_page(sandbox: Sandbox, server: SandboxServer) -> int:
    """Wait inside until the restarted web container runs and listens, then fetch its page."""
    ssh(sandbox, server, "timeout 20 bash -c 'until (exec 3<>/dev/tcp/127.0.0.1/80) 2>&-; do sleep 0.05; done'")
    return page(server)


def test_a_server_is_reached_by_plain_ssh_with_strict_host_keys_and_has_its_own_engine(
    sandbox: Sandbox, servers: list[SandboxServer]
) -> None:
    for server in servers:
        assert server.engine
        said = ssh(sandbox, server, "docker info --format '{{.ServerVersion}} {{.Driver}}'")
        assert said.split() == [server.engine, "overlay2"]
    names = {ssh(sandbox, server, "hostname").strip() for server in servers}
    assert names == {server.name for server in servers}


def test_a_server_has_what_a_deploy_needs(sandbox: Sandbox, servers: list[SandboxServer]) -> None:
    script = "sudo -n id -u && id -Gn && python3 -c 'import http.client, json, zipfile, socket, threading' && zstd -V"
    lines = ssh(sandbox, servers[0], script).splitlines()
    assert lines[0] == "0"
    assert "docker" in lines[1].split()


def test_keys_and_host_keys_are_for_us_alone(sandbox: Sandbox, servers: list[SandboxServer]) -> None:
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (sandbox.folder, sandbox.identity, sandbox.environment)}
    assert modes == {sandbox.folder: 0o700, sandbox.identity: 0o600, sandbox.environment: 0o600}
    assert len(sandbox.known_hosts.read_text().splitlines()) == len(servers)


def test_a_second_up_keeps_the_servers_and_says_the_same(sandbox: Sandbox, servers: list[SandboxServer]) -> None:
    started = [engine().api.inspect_container(server.name)["State"]["StartedAt"] for server in servers]
    said: list[str] = []
    assert sandbox.up(2, said.append) == servers
    assert sandbox.status() == servers
    assert said == []
    assert [engine().api.inspect_container(server.name)["State"]["StartedAt"] for server in servers] == started


def test_two_ups_at_once_agree(sandbox: Sandbox, servers: list[SandboxServer]) -> None:
    results: list[list[SandboxServer]] = []
    threads = [threading.Thread(target=lambda: results.append(Sandbox(sandbox.root).up(2, print))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [servers, servers]


def test_a_restarted_server_returns_with_its_ports_its_host_key_and_its_containers(sandbox: Sandbox, web: SandboxServer) -> None:
    engine().api.restart(web.name)
    assert ready(web) == {"key": web.host_key, "engine": web.engine}
    assert await_page(sandbox, web) == 200


@pytest.mark.slow
def test_a_killed_server_returns_too(sandbox: Sandbox, web: SandboxServer) -> None:
    engine().api.kill(web.name)
    said: list[str] = []
    assert web in sandbox.up(2, said.append)
    assert await_page(sandbox, web) == 200


def stop_engine(sandbox: Sandbox, server: SandboxServer, signal: str) -> str:
    """Signal a server's engine and wait until its process is gone; return its process id."""
    gone = "while kill -0 $pid; do sleep 0.05; done"
    script = f"pid=$(cat /run/docker.pid); kill -{signal} $pid; {gone} 2>&-; echo $pid"
    return ssh(sandbox, server, f"sudo timeout 30 bash -c '{script}'").strip()


@pytest.mark.slow
def test_a_killed_engine_returns_by_itself(sandbox: Sandbox, web: SandboxServer) -> None:
    before = stop_engine(sandbox, web, "KILL")
    assert ready(web)["engine"] == web.engine
    assert ssh(sandbox, web, "cat /run/docker.pid").strip() != before
    assert await_page(sandbox, web) == 200


@pytest.mark.slow
def test_an_engine_told_to_stay_down_stays_down(sandbox: Sandbox, servers: list[SandboxServer]) -> None:
    ssh(sandbox, servers[1], "sudo touch /run/engine-stays-down")
    stop_engine(sandbox, servers[1], "TERM")
    assert [bool(server.engine) for server in sandbox.status()] == [True, False]
    ssh(sandbox, servers[1], "sudo rm /run/engine-stays-down")
    assert ready(servers[1])["engine"] == servers[1].engine


@pytest.mark.slow
def test_a_server_whose_port_was_taken_moves_and_keeps_its_data(sandbox: Sandbox, servers: list[SandboxServer]) -> None:
    moving = servers[1]
    ssh(sandbox, moving, "echo precious | sudo tee /srv/data")
    engine().api.stop(moving.name)
    taker = engine().containers.run(DEBIAN, ["sleep", "300"], detach=True, ports={"1/tcp": ("127.0.0.1", moving.http_port)})
    said: list[str] = []
    try:
        moved = sandbox.up(2, said.append)[1]
    finally:
        taker.remove(force=True)
    assert moved.ports != moving.ports
    assert moved.host_key == moving.host_key
    assert any("taken" in line for line in said)
    assert ssh(sandbox, moved, "cat /srv/data") == "precious\n"
    servers[1] = moved


def test_a_bare_server_has_neither_engine_nor_python(sandbox: Sandbox) -> None:
    bare = Sandbox(sandbox.root, "bare", target="bare")
    try:
        (server,) = bare.up(1, print)
        assert server.engine == ""
        script = "sudo -n id -u; command -v python3 docker dockerd; test -e /usr/sbin/policy-rc.d || echo fresh"
        assert ssh(bare, server, script).split() == ["0", "fresh"]
    finally:
        bare.down(print)
    assert not bare.environment.exists()


def test_down_leaves_nothing(tmp_path: Path) -> None:
    passing = Sandbox(tmp_path, "passing")
    passing.up(1, print)
    passing.down(print)
    label = {"label": f"{sandbox_server.SANDBOX}={passing.id}"}
    assert engine().api.containers(all=True, filters=label) == []
    assert not engine().api.volumes(filters=label)["Volumes"]
    assert not passing.folder.exists()
    assert not passing.environment.exists()
    passing.down(print)  # nothing there is fine
