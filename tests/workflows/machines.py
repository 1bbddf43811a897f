"""Where the steps of a job are run: this machine, or a container with nothing but Debian's packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Protocol

from ops.bases import ensure_base
from ops.build_client import PROXIES, build, build_environment, ca_secret
from ops.stand_ins import OLDER_DEBIAN
from tests.workflows.workflows import ROOT

IMAGE = "tidegate/workflow-runner:local"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
SOCKET = "/var/run/docker.sock"
PASSED_ON = (*PROXIES, "LANG")


class LeftOut(Exception):
    """This machine cannot run a step; the reason says what it lacks."""


class Machine(Protocol):
    """Runs programs; files are at the same paths inside and outside."""

    path: str

    def start(self, command: list[str], folder: Path, env: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start a program with exactly these variables; both its outputs come as one."""

    def make_python(self, version: str, folder: Path) -> None:
        """Make a Python of that version, with pip, as the programs of a folder. Raises LeftOut."""


class Here:
    """This machine."""

    path = os.environ["PATH"]

    def start(self, command: list[str], folder: Path, env: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start a program here."""
        return subprocess.Popen(command, cwd=folder, env=dict(env), text=True, errors="replace", start_new_session=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip

    def make_python(self, version: str, folder: Path) -> None:
        """Make a virtual environment whose pip is one that is here: not every Python can install its own."""
        program = shutil.which(f"python{version}", path=os.pathsep.join([str(Path(sys.executable).parent), self.path]))
        if not program:
            raise LeftOut(f"there is no Python {version} here")
        subprocess.run([program, "-m", "venv", "--without-pip", folder], check=True)
        pip = folder / "bin" / "pip"
        pip.write_text(f'#!/bin/sh\nexec {_with_pip()} -m pip --python {folder}/bin/python "$@"\n')
        pip.chmod(0o755)


class Container:
    """A container on this machine's network and engine, as a hosted runner has both."""

    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    def __init__(self, name: str) -> None:
        self.name = name

    def start(self, command: list[str], folder: Path, env: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start a program in it; values reach it through the client's environment and stand on no command line."""
        names = [word for name in env for word in ("--env", name)]
        client = {**env, "PATH": os.environ["PATH"], "DOCKER_HOST": build_environment()["DOCKER_HOST"]}
        inside = ["env", f"PATH={env['PATH']}", *command] if "PATH" in env else command
        return Here().start(["docker", "exec", "--workdir", str(folder), *names, self.name, *inside], Path("/"), client)

    def make_python(self, version: str, folder: Path) -> None:
        """Make a virtual environment of Debian's Python."""
        process = self.start([f"python{version}", "-m", "venv", str(folder)], Path("/"), {})
        said = process.communicate()[0]
        if process.returncode:
            raise LeftOut(f"there is no Python {version} in the container: {said.strip()[-200:]}")

    def kill(self) -> None:
        """End it as a lost machine ends: nothing in it has a say."""
        subprocess.run(["docker", "kill", self.name], check=True, capture_output=True)


@contextmanager
def container(workspace: Path) -> Iterator[Container]:
    """Lend a container in which a folder of this machine is at its own path."""
    ensure_base(OLDER_DEBIAN, print)
    build(ROOT / "tests" / "workflows" / "machine", IMAGE)
    name = f"tidegate-workflow-{uuid.uuid4().hex[:8]}"
    bundle = ca_secret()
    mounts = [f"{workspace}:{workspace}", f"{SOCKET}:{SOCKET}", *([f"{bundle}:{CERTIFICATES}:ro"] if bundle else [])]
    passed = [name for name in PASSED_ON if os.environ.get(name)]
    options = [word for mount in mounts for word in ("--volume", mount)] + [word for one in passed for word in ("--env", one)]
    subprocess.run(
        ["docker", "run", "--detach", "--rm", "--init", "--network", "host", "--name", name, *options, IMAGE, "sleep", "infinity"],
        check=True, capture_output=True,
    )  # fmt: skip
    try:
        yield Container(name)
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=False, capture_output=True)


@cache
def _with_pip() -> str:
    """Return a Python of this machine that has pip."""
    candidates = [sys.executable, *(str(Path(folder) / "python3") for folder in os.get_exec_path())]
    for program in candidates:
        if (
            Path(program).exists()
            and not subprocess.run([program, "-m", "pip", "--version"], capture_output=True, check=False).returncode
        ):
            return program
    raise LeftOut("no Python here has pip")
