"""The docker client that runs BuildKit builds on this machine's engine, and what it is told."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.errors import Failed, Refused
from ops.this_machine import can_install, engine_address, install, known_packages, tail

PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
NEVER = (".git", ".tidegate", ".env", ".env.*", "__pycache__")  # the last comes of running Python beside it
_PREFIXES = ("/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec")
_OLDEST, _BUILDX_SINCE = 19, 23
_FIX = "install docker-buildx (https://docs.docker.com/go/buildx/), then run this again"


def build_cli() -> list[str]:
    """Return the docker client for BuildKit builds, installing one where we can; run it under `build_environment()`."""
    client = _find_client() or _install_client()
    return [str(client)]


def build_environment() -> dict[str, str]:
    """Return the environment for builds: BuildKit on, against the very engine that the docker SDK uses."""
    return {**os.environ, "DOCKER_BUILDKIT": "1", "DOCKER_HOST": engine_address(), "BUILDX_BUILDER": "default"}


def build_options() -> list[str]:
    """Return the options this machine calls for: its CA bundle as build secret `ca`, its proxies by name."""
    bundle = ca_secret()
    secret = ["--secret", f"id=ca,src={bundle}"] if bundle else []
    return secret + [part for name in PROXIES if os.environ.get(name) for part in ("--build-arg", name)]


def ca_secret() -> Path | None:
    """Return this machine's CA bundle, for package sources behind a certificate of the house."""
    named = os.environ.get("SSL_CERT_FILE")
    candidates = ([Path(named)] if named else []) + [Path("/etc/ssl/certs/ca-certificates.crt")]
    return next((path for path in candidates if path.is_file()), None)


def ignore_patterns(context: Path, dockerfile: Path) -> list[str]:
    """Return what a build does not get: the app's own patterns, then what no image may hold and no `!` brings back."""
    own = Path(f"{dockerfile}.dockerignore")
    ignore = own if own.exists() else context / ".dockerignore"
    lines = ignore.read_text("utf-8-sig", "surrogateescape").split("\n") if ignore.exists() else []
    kept = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return [*kept, *(pattern for name in NEVER for pattern in (f"**/{name}", f"**/{name}/**"))]


@contextmanager
def staged(dockerfile: Path, patterns: Iterable[str]) -> Iterator[Path]:
    """Lend a copy of a Dockerfile with an ignore file beside it, which BuildKit prefers; the user's files stay as they are."""
    with tempfile.TemporaryDirectory(prefix="tidegate-build-") as folder:
        copy = Path(folder, dockerfile.name)
        shutil.copyfile(dockerfile, copy)
        Path(f"{copy}.dockerignore").write_text("\n".join([*patterns, ""]), "utf-8", "surrogateescape")
        yield copy


def build(context: Path, tag: str, *options: str) -> None:
    """Build a small image of our own; on failure the error carries the end of the output."""
    command = [*build_cli(), "build", "--progress=plain", *build_options(), "-t", tag, *options, str(context)]
    done = subprocess.run(
        command,
        env=build_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        errors="replace",
    )
    if done.returncode:
        fix = "the end of the build's output says why; then run this again"
        raise Failed(f"building {tag} failed", where=str(context), why=tail(done.stdout, 25), fix=fix)


def _find_client() -> Path | None:
    clients = _clients()
    if clients and _has_buildx():
        return clients[0]
    return next((client for client in clients if _builds_by_itself(client)), None)


def _clients() -> list[Path]:
    found = [Path(folder) / "docker" for folder in os.get_exec_path()]
    return list(dict.fromkeys(path.resolve() for path in found if os.access(path, os.X_OK)))


def _has_buildx() -> bool:
    own = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    folders = (own, *(Path(prefix) / "docker" for prefix in _PREFIXES))
    return any(os.access(folder / "cli-plugins/docker-buildx", os.X_OK) for folder in folders)


def _builds_by_itself(client: Path) -> bool:
    return has_buildkit(_version_line(client))


def has_buildkit(version_line: str) -> bool:
    """Say whether a client has BuildKit built in, by its `docker --version`: 19.03 to 22 do, later ones need buildx."""
    words = version_line.removeprefix("Docker version ").split(".")
    return words[0].isdigit() and _OLDEST <= int(words[0]) < _BUILDX_SINCE


@functools.cache
def _version_line(client: Path) -> str:
    return subprocess.run([client, "--version"], capture_output=True, text=True, check=True).stdout


def _install_client() -> Path:
    if not can_install():
        raise Refused("no docker client on this machine can run BuildKit builds", fix=_FIX)
    cli = known_packages(["docker-cli"]) or ["docker.io"]  # Debian 13 packages the client apart from the engine
    install([*known_packages(["docker-buildx"]), *cli], lambda _: None)
    client = _find_client()
    if client is None:
        raise Refused("no docker client on this machine can run BuildKit builds", fix=_FIX)
    return client
