"""Base images under their upstream names: pulled where a registry is in reach, else built from Debian's packages."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from ops.errors import Refused
from ops.stand_ins import DEBIAN, NGINX, can_make, make, recipe
from ops.this_machine import Report, local_client, machine_lock

if TYPE_CHECKING:
    from docker import DockerClient

BASES = (DEBIAN, NGINX)  # what every deployment needs
TEMPLATES = ("node:24-trixie-slim", "rust:1-slim-trixie")  # what others of docker/templates build on
DATABASES = ("postgres:17", "postgres:16", "postgres:15", "mariadb:11.8")  # what backups are tried with
_PULL_SILENCE, _PULL_SECONDS = 15, 300


def ensure_base(name: str, report: Report, engine: DockerClient | None = None) -> None:
    """Make a base image present under its upstream name; says so when a stand-in had to be built.

    A digest (`name:tag@sha256:…`) is what a pull has to yield; an image that is there already is not compared to it.
    """
    client = engine or local_client()
    name, _, digest = name.partition("@")
    if _present(client, name):
        return
    with machine_lock("base-" + re.sub(r"\W", "-", name)):
        if not _present(client, name):
            _obtain(client, name, digest, report)


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


def _obtain(engine: DockerClient, name: str, digest: str, report: Report) -> None:
    report(f"pulling {name}")
    problem = _pull(name, digest)
    if not problem:
        return
    if not can_make(name):
        fix = f"`docker load` an archive of {name}, or let this machine reach its registry"
        raise Refused(f"cannot pull {name}", why=problem, fix=fix)
    report(f"{name} cannot be pulled; building a stand-in from Debian's packages")
    if how := recipe(name):
        ensure_base(how.base, report, engine)
    report(f"{name} is a stand-in: {make(name, engine, report)}")


def _pull(name: str, digest: str) -> str:
    """Return why the pull failed, or nothing; a registry that does not speak is not waited for."""
    client = local_client(timeout=_PULL_SILENCE)
    from requests.exceptions import RequestException

    from ops.engine import EngineError

    repository, _, tag = name.rpartition(":")
    try:
        lines = client.api.pull(repository, digest or tag, stream=True, decode=True)
        problem = pull_problem(lines, time.monotonic() + _PULL_SECONDS, time.monotonic)
        if digest and not problem:
            client.api.tag(f"{repository}@{digest}", repository, tag)
    except (EngineError, RequestException) as error:
        return str(error)
    return problem
