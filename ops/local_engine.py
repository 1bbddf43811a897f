"""This machine's own engine: made ready where we can, explained where we cannot."""

from __future__ import annotations

import http
import http.client
import os
import socket
import subprocess
from pathlib import Path

from ops.build_client import build_cli, build_environment, build_options, ca_secret
from ops.errors import Refused
from ops.this_machine import Report, can_install, engine_address, local_client, machine_lock, need, tail

__all__ = ["answers", "build_cli", "build_environment", "build_options", "ca_secret", "ensure", "forget_dead_engine"]

PACKAGES = {"dockerd": "docker.io", "iptables": "iptables", "ssh-keygen": "openssh-client"}
LOG = Path("/var/log/tidegate-dockerd.log")
_SOCKET = Path("/var/run/docker.sock")
_START_SECONDS = 60.0
_PAUSE = 0.1


def ensure(report: Report) -> None:
    """Make this machine's engine answer: install and start it on Debian or Ubuntu as root, else say what to do."""
    if answers():
        return
    _refuse_unless_ours()
    with machine_lock("engine"):
        if not answers():
            need(PACKAGES, report)
            _start(report)


def answers() -> bool:
    """Say whether the engine that DOCKER_HOST (or the default socket) names answers a ping."""
    address = engine_address()
    if not address.startswith("unix://"):
        return _answers_remotely()
    try:
        return _ping(address.removeprefix("unix://"))
    except (OSError, http.client.HTTPException):
        return False


def forget_dead_engine(run: Path = Path("/var/run")) -> None:
    """Remove the pid files of an engine that is gone: they make the next one refuse to start."""
    for name, program in {"docker.pid": "dockerd", "docker/containerd/containerd.pid": "containerd"}.items():
        file = run / name
        if file.is_file() and not _alive(file.read_text().strip(), program):
            file.unlink(missing_ok=True)


def _ping(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(path)
        connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status == http.HTTPStatus.OK


def _answers_remotely() -> bool:
    import ops.engine  # noqa: F401  # it loads the SDK without what takes long

    from docker.errors import DockerException  # isort: skip

    try:
        return bool(local_client(timeout=10).ping())
    except DockerException:
        return False


def _refuse_unless_ours() -> None:
    if os.environ.get("DOCKER_HOST"):
        fix = "start that engine, or unset DOCKER_HOST to use this machine's own"
        raise Refused("the Docker engine does not answer", where=f"DOCKER_HOST={engine_address()}", fix=fix)
    if _SOCKET.exists() and not os.access(_SOCKET, os.W_OK):
        fix = "sudo usermod -aG docker $USER, log in again, then run this again"
        raise Refused("this user may not use the Docker engine", where=str(_SOCKET), fix=fix)
    if not can_install():
        fix = "install Docker (https://docs.docker.com/engine/install/) and start it, then run this again"
        raise Refused("no Docker engine answers on this machine", where=str(_SOCKET), fix=fix)


def _start(report: Report) -> None:
    if answers():  # its package started it
        return
    report("starting this machine's Docker engine")
    if Path("/run/systemd/system").is_dir():
        _start_by_systemd()
    else:
        _start_by_ourselves()


def _start_by_systemd() -> None:
    done = subprocess.run(["systemctl", "enable", "--now", "docker"], capture_output=True, text=True, check=False)
    if done.returncode or not answers():
        fix = "journalctl -u docker says why; put it right, then run this again"
        raise Refused("the Docker engine does not start", why=tail(done.stderr), fix=fix)


def _start_by_ourselves() -> None:
    forget_dead_engine()
    with LOG.open("ab") as log:
        process = subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/")
    if not _comes_up(process):
        why, fix = tail(LOG.read_text(errors="replace")), "put that right, then run this again"
        raise Refused("the Docker engine does not start", where=str(LOG), why=why, fix=fix)


def _comes_up(process: subprocess.Popen[bytes]) -> bool:
    for _ in range(int(_START_SECONDS / _PAUSE)):
        if answers():
            return True
        try:
            process.wait(timeout=_PAUSE)
        except subprocess.TimeoutExpired:
            continue
        return answers()  # it ended, which is fine only where another one was faster
    process.terminate()
    return False


def _alive(pid: str, program: str) -> bool:
    try:
        name, _, rest = Path("/proc", pid, "stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return False
    return name == program and rest.split()[0] != "Z"  # a zombie stays where PID 1 does not reap
