"""The stack's pages in a browser here, through SSH: nothing of them is open to others."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from monitoring.inventory import inventory
from monitoring.live import PORTS
from ops.config import Environment
from ops.errors import ConfigError, Refused, Unreachable
from ops.link import ssh_options

SECONDS = 20.0
_PAUSE = 0.05


@contextmanager
def opened(env: Environment, service: str, port: int | None = None) -> Iterator[str]:
    """Forward a service's page to this machine and hand out its address. Raises ConfigError, Refused, Unreachable."""
    if service not in PORTS:
        raise ConfigError(
            f"there is no page of {service!r}", why=f"known are {', '.join(PORTS)}", fix="inv monitoring.open --what grafana"
        )
    if not inventory(env).has(service):
        raise ConfigError(
            f"{service} is left out", where=f"[environments.{env.name}]", fix="inv monitoring.open --what prometheus"
        )
    local = port or PORTS[service]
    _require_free(local)
    forward = f"127.0.0.1:{local}:127.0.0.1:{PORTS[service]}"
    command = [
        "ssh",
        *ssh_options(env, env.watcher),
        "-o",
        "ExitOnForwardFailure=yes",
        "-N",
        "-L",
        forward,
        "--",
        env.watcher.address,
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _await(process, local, env)
        yield f"http://localhost:{local}/"
    finally:
        process.terminate()
        process.communicate()


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            fix = "is it open in another terminal? else: inv monitoring.open --port 17810"
            raise Refused(f"port {port} of this machine is taken", why=error.strerror or "", fix=fix) from None


def _await(process: subprocess.Popen[str], port: int, env: Environment) -> None:
    """Wait until ssh listens here, which it does once it is let in."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = (process.stderr.read() if process.stderr else "").strip()
            raise Unreachable("ssh cannot reach it", where=env.watcher.name, why=said, fix=f"inv server.check -e {env.name}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(_PAUSE)
    raise Unreachable(
        "ssh does not get through", where=env.watcher.name, why=f"waited {SECONDS:.0f} s", fix=f"inv server.check -e {env.name}"
    )
