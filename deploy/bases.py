"""Base images under their upstream names: pulled where a registry is in reach, else built from Debian's packages."""

from __future__ import annotations

import re
import shlex
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from deploy.build_client import build
from deploy.this_machine import Report, local_client, machine_lock, need, tail
from ops.errors import Failed, Refused

if TYPE_CHECKING:
    from docker import DockerClient

DEBIAN = "debian:trixie-slim"
NGINX = "nginx:1.30"
BASES = (DEBIAN, NGINX)
STAND_IN = "dev.tidegate.stand-in"
VERSIONS = "dev.tidegate.debian"
FOLDER = Path(__file__).resolve().parent.parent / "docker" / "bases"
_PULL_SILENCE, _PULL_SECONDS = 15, 300
_TOOLS = {"mmdebstrap": "mmdebstrap"}
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_UNWANTED = ("doc", "man", "info", "groff", "lintian", "linda", "locale")
_LEFTOVERS = ("var/cache/apt/*", "var/cache/debconf/*-old", "var/lib/dpkg/*-old", "var/log/*")


def ensure_base(name: str, report: Report, engine: DockerClient | None = None) -> None:
    """Make a base image present under its upstream name; says so when a stand-in had to be built."""
    client = engine or local_client()
    if _present(client, name):
        return
    with machine_lock("base-" + re.sub(r"\W", "-", name)):
        if not _present(client, name):
            _obtain(client, name, report)


def is_stand_in(engine: DockerClient, name: str) -> bool:
    """Say whether the image of that name was built here from Debian's packages."""
    return bool(engine.images.get(name).labels.get(STAND_IN) == "true")


def debian_command() -> list[str]:
    """Return the mmdebstrap command for a slim Debian: no documentation, no caches, no daemons started by packages."""
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in _UNWANTED]
    kept = "--dpkgopt=path-include=/usr/share/doc/*/copyright"
    hooks = [
        f'install -m 755 {shlex.quote(str(FOLDER / "debian/policy-rc.d"))} "$1/usr/sbin/"',
        f'install -m 644 {shlex.quote(str(FOLDER / "debian/99-keep-small"))} "$1/etc/apt/apt.conf.d/"',
        "rm -rf " + " ".join(f'"$1"/{path}' for path in _LEFTOVERS),
    ]
    options = ["--variant=minbase", "--include=ca-certificates", *excluded, kept]
    return ["mmdebstrap", *options, *(f"--customize-hook={hook}" for hook in hooks), "trixie", "-"]


def pull_problem(lines: Iterable[Mapping[str, object]], deadline: float, now: Callable[[], float]) -> str:
    """Follow the engine's lines about a pull; return why it failed, or nothing when it is done."""
    for line in lines:
        if "error" in line:
            return str(line["error"])
        if now() > deadline:
            return "the registry is too slow"
    return ""


def _present(engine: DockerClient, name: str) -> bool:
    from ops.engine import NotFound

    try:
        engine.images.get(name)
    except NotFound:
        return False
    return True


def _obtain(engine: DockerClient, name: str, report: Report) -> None:
    report(f"pulling {name}")
    problem = _pull(name)
    if not problem:
        return
    if name not in _STAND_INS:
        fix = f"`docker load` an archive of {name}, or let this machine reach its registry"
        raise Refused(f"cannot pull {name}", why=problem, fix=fix)
    report(f"{name} cannot be pulled; building a stand-in from Debian's packages")
    report(f"{name} is a stand-in: {_STAND_INS[name](engine, report)}")


def _pull(name: str) -> str:
    """Return why the pull failed, or nothing; a registry that does not speak is not waited for."""
    client = local_client(timeout=_PULL_SILENCE)
    from requests.exceptions import RequestException

    from ops.engine import EngineError

    repository, _, tag = name.partition(":")
    try:
        lines = client.api.pull(repository, tag, stream=True, decode=True)
        return pull_problem(lines, time.monotonic() + _PULL_SECONDS, time.monotonic)
    except (EngineError, RequestException) as error:
        return str(error)


def _debian(engine: DockerClient, report: Report) -> str:
    need(_TOOLS if _KEYRING.exists() else {**_TOOLS, str(_KEYRING): "debian-archive-keyring"}, report)
    with tempfile.TemporaryFile() as archive, tempfile.TemporaryFile() as log:
        done = subprocess.run(debian_command(), stdin=subprocess.DEVNULL, stdout=archive, stderr=log, check=False)
        if done.returncode:
            log.seek(0)
            why, fix = tail(log.read().decode(errors="replace")), "let this machine reach a registry or a Debian mirror"
            raise Failed(f"building {DEBIAN} failed", where="mmdebstrap", why=why, fix=fix)
        return _import_debian(engine, archive)


def _import_debian(engine: DockerClient, archive: IO[bytes]) -> str:
    version = f"Debian {_debian_version(archive)}"
    archive.seek(0)
    changes = ['CMD ["bash"]', f"LABEL {STAND_IN}=true", f'LABEL {VERSIONS}="{version}"']
    repository, _, tag = DEBIAN.partition(":")
    # Not import_image_from_stream: it declares chunks and sends none (docker SDK 7.2).
    engine.api.import_image_from_data(archive, repository, tag, changes)
    if not _present(engine, DEBIAN):
        fix = "the engine's log says why; then run this again"
        raise Failed(f"the engine did not import {DEBIAN}", where="docker import", fix=fix)
    return version


def _debian_version(archive: IO[bytes]) -> str:
    archive.seek(0)
    with tarfile.open(fileobj=archive) as members:
        member = members.extractfile("./etc/debian_version")
        return member.read().decode().strip() if member else "unknown"


def _nginx(engine: DockerClient, report: Report) -> str:
    ensure_base(DEBIAN, report, engine)
    draft = "tidegate/nginx-stand-in"
    build(FOLDER / "nginx", draft)
    version = f"Debian's {_output(engine, draft, 'dpkg-query', '-W', '-f', '${Package} ${Version}', 'nginx')}"
    build(FOLDER / "nginx", NGINX, "--label", f"{STAND_IN}=true", "--label", f"{VERSIONS}={version}")
    engine.images.remove(draft)
    return version


def _output(engine: DockerClient, image: str, *command: str) -> str:
    """Wait before reading: following the log of so short a run can miss its output."""
    container = engine.containers.run(image, list(command), detach=True, network_disabled=True)
    try:
        container.wait()
        return str(container.logs(stderr=False).decode().strip())
    finally:
        container.remove(force=True)


_STAND_INS: dict[str, Callable[[DockerClient, Report], str]] = {DEBIAN: _debian, NGINX: _nginx}
