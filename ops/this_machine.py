"""What local work needs of the machine it runs on: packages, locks, the engine's address."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ops.errors import Refused

if TYPE_CHECKING:
    from docker import DockerClient

Report = Callable[[str], None]


def engine_address() -> str:
    """Return the address of the engine that the docker SDK would use."""
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def local_client(timeout: int = 60) -> DockerClient:
    """Return a docker SDK client for this machine's engine."""
    import ops.engine  # noqa: F401  # it loads the SDK without what takes long

    import docker  # isort: skip

    return docker.from_env(timeout=timeout)


def can_install() -> bool:
    """Say whether we may install packages here: Debian or Ubuntu, as root, or in CI as one who becomes root unasked."""
    if shutil.which("apt-get") is None or not Path("/etc/debian_version").exists():
        return False
    become = _sudo()
    return os.geteuid() == 0 or (
        bool(become) and subprocess.run([*become, "true"], capture_output=True, check=False).returncode == 0
    )


def need(programs: dict[str, str], report: Report) -> None:
    """Install the Debian packages of those programs (program → package) that this machine lacks."""
    packages = sorted({package for program, package in programs.items() if not shutil.which(program)})
    if packages:
        install(packages, report)


def install(packages: Iterable[str], report: Report) -> None:
    """Install Debian packages on this machine, or refuse and say which ones it needs."""
    names = " ".join(packages)
    if not can_install():
        raise Refused(f"this machine lacks {names}", fix=f"install {names}, then run this again")
    report(f"installing {names} on this machine")
    with machine_lock("packages"):
        _apt("update")
        _apt("install", "-y", "--no-install-recommends", *names.split())


def known_packages(packages: Iterable[str]) -> list[str]:
    """Return those packages that this machine's package lists offer."""
    return [name for name in packages if has_candidate(_policy(name))]


def has_candidate(policy: str) -> bool:
    """Say whether the answer of `apt-cache policy` names a version to install."""
    return "Candidate: " in policy and "Candidate: (none)" not in policy


@contextmanager
def machine_lock(name: str) -> Iterator[None]:
    """Hold a lock that all of this user's processes on this machine share; the kernel frees it with its holder."""
    with file_lock(Path(tempfile.gettempdir()) / f"tidegate-{os.getuid()}-{name}.lock"):
        yield


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file of its own; the kernel frees it with its holder."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def tail(text: str, lines: int = 15) -> str:
    """Return the last lines of a log, indented for an error message."""
    return "\n         ".join(text.strip().splitlines()[-lines:])


def _policy(package: str) -> str:
    command = ["apt-cache", "policy", "--", package]
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def _sudo() -> list[str]:
    """Return what makes us root: nothing for root, and never sudo on the machine of a person, whom it would surprise."""
    return ["sudo", "-n"] if os.geteuid() and os.environ.get("CI") and shutil.which("sudo") else []


def _apt(*arguments: str) -> None:
    command = [*_sudo(), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=120", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        fix = "put the package sources right, then run this again"
        raise Refused(f"apt-get {arguments[0]} failed", why=tail(done.stderr or done.stdout), fix=fix)
