"""What a deploy would run, brought to the servers without running it, so that its migration can be tried on a copy of the data."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from deploy import parts
from deploy.intent import Options, Progress, make_intent
from deploy.model import HostState, ImageRef
from deploy.release import Work
from deploy.server import Server
from deploy.session import Session
from ops.errors import Refused
from ops.secret import Secret


@dataclass(frozen=True)
class Next:
    """The next version's image, as it lies on the servers, and how its migration is run."""

    image: str
    version: str
    command: tuple[str, ...]
    environment: Mapping[str, str | Secret]
    timeout: float


def bring(session: Session, options: Options, environ: Mapping[str, str], reporter: Progress) -> Next:
    """Build the next version and ship it. Raises Refused when it has no migration, Failed."""
    app = session.env.app
    if app.migrate is None:
        raise Refused("there is no migration to rehearse", where=session.env.name, fix="app.migrate in ops.toml")
    with Work(session, reporter, None, looks_only=True) as work:
        intent = make_intent(session.env, options, environ, reporter)
        with ThreadPoolExecutor(len(work.servers)) as pool:
            list(pool.map(lambda one: _ship(intent.image, one, one.observe()), work.servers.values()))
    return Next(intent.image.name, intent.image.version, app.migrate.command, intent.environment, app.migrate.timeout)


def _ship(image: ImageRef, server: Server, state: HostState) -> None:
    for step in parts.ship(image, state):
        step.apply(server)
