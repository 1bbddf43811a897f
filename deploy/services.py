"""Databases and caches beside the app: the user's own Compose file, on the engine of the environment's first server.

Deploys never touch them: those know their containers by labels that nothing here has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy import services_check
from deploy.docker_server import DockerServer
from deploy.inspect import connected
from deploy.model import ImageRef
from deploy.observe import app_home
from deploy.services_check import COMPOSE, Change
from deploy.session import Session
from deploy.ship import Shipper
from ops import local_engine
from ops.bases import ensure_base
from ops.compose import Compose, Document
from ops.config import Environment, Services
from ops.errors import ConfigError, Failed, Refused
from ops.link import AgentError, Link
from ops.names import LABEL_SERVICES, NETWORK
from ops.secret import Mask
from ops.secrets import resolve_secrets
from ops.this_machine import local_client
from ops.who import who

if TYPE_CHECKING:
    from docker import APIClient

LOG_LINES = 30

Say = Callable[[str], None]
Confirm = Callable[[str, Sequence[Change]], bool]


@dataclass(frozen=True)
class Row:
    """One container of a service, as `services.status` shows it."""

    server: str
    service: str
    image: str
    state: str
    health: str
    ports: str
    volumes: str
    since: str
    container: str
    id: str


def up(env: Environment, environ: Mapping[str, str], say: Say, confirm: Confirm) -> bool:
    """Bring the services to what the file says and wait until they are healthy; returns whether that was agreed to.

    Raises ConfigError, Refused, Locked before anything is changed, and Failed with the last logs.
    """
    services = _configured(env)
    secrets = resolve_secrets(env, services.secrets, environ)
    with Mask(secrets), _at_work(env, ships=True) as (link, server):
        compose = Compose(services_check.project(env.app.name), secrets, link.socket)
        document = _wanted(compose, services.compose, env)
        _take_lock(link, env, "services.up")
        _are_ours(env, link, server.engine)
        _has_network(env, link, server.engine)
        if len(env.hosts) > 1:
            say(f"on {link.name} only: the app's containers on other servers do not reach them")
        changes = _changes(compose, document, env, server.engine)
        if not confirm(link.name, changes):
            return False
        declared = {one["image"]: _bring(server, one["image"], say) for one in document["services"].values()}
        if found := services_check.volume_refusals(document, declared):
            raise _refused(services.compose, found)
        _bring_up(compose, document, env, link, server.engine, say)
    return True


def down(env: Environment, say: Say, confirm: Confirm) -> bool:
    """Stop and remove the services' containers and networks, never a volume; returns whether that was agreed to."""
    with _at_work(env, ships=False) as (link, server):
        _take_lock(link, env, "services.down")
        _are_ours(env, link, server.engine)
        known = _containers(env, server.engine)
        kept = sorted({mount["Name"] for one in known for mount in one["Mounts"] if mount["Type"] == "volume"})
        changes = [Change(one["Labels"][f"{COMPOSE}.service"], one["Image"], "remove", "its volumes stay") for one in known]
        if not confirm(link.name, changes):
            return False
        if changes:
            code, last = Compose(services_check.project(env.app.name), {}, link.socket).follow("down", document=None, say=say)
            if code:
                raise Failed("the services are not all down", where=link.name, why=last, fix="run this again")
            say(f"kept: {', '.join(kept)}" if kept else "they had no volumes")
    return True


def status(env: Environment) -> list[Row]:
    """Return the containers of the services on the first server. Raises Unreachable, Refused."""
    with connected(env, env.hosts[0]) as (link, server):
        return [_row(link.name, server.engine.inspect_container(one["Id"])) for one in _containers(env, server.engine)]


def _configured(env: Environment) -> Services:
    if env.app.services is None:
        raise ConfigError(
            "no services are configured", where=env.name, fix='in ops.toml: [app.services] compose = "services.yaml"'
        )
    return env.app.services


@contextmanager
def _at_work(env: Environment, *, ships: bool) -> Iterator[tuple[Link, DockerServer]]:
    """Connect to the first server."""
    here = env.model_copy(update={"hosts": env.hosts[:1]})
    with Session(here, ships=ships) as session, ExitStack() as stack:
        door, link = session.door, session.links[0]
        shipper = stack.enter_context(Shipper(door, session.state, lambda: local_client().api)) if door else None
        yield link, DockerServer(here, link, shipper, lambda done, total: None)


def _take_lock(link: Link, env: Environment, what: str) -> None:
    """Take the app's lock: no deploy runs while a database of its comes or goes."""
    holder = {"what": what, "who": who(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        link.call("lock", path=f"{app_home(env.app.name)}/lock", holder=holder)
    except AgentError as error:
        raise Refused(
            "cannot take the lock", where=link.name, why=error.what, fix=f"inv server.bootstrap -e {env.name}"
        ) from None


def _wanted(compose: Compose, file: Path, env: Environment) -> Document:
    document = compose.resolve(file)
    if found := services_check.refusals(document):
        raise _refused(file, found)
    return services_check.joined(document, env.app.name, env.name)


def _refused(file: Path, found: Sequence[str]) -> Refused:
    return Refused("these services cannot run on a server", where=str(file), why="\n         ".join(found), fix="mend the file")


def _has_network(env: Environment, link: Link, engine: APIClient) -> None:
    if not any(one["Name"] == NETWORK for one in engine.networks(names=[NETWORK])):
        raise Refused(f"the network {NETWORK} is missing", where=link.name, fix=f"inv server.bootstrap -e {env.name}")


def _are_ours(env: Environment, link: Link, engine: APIClient) -> None:
    others = {one["Labels"].get(LABEL_SERVICES, env.name) for one in _containers(env, engine)} - {env.name}
    if others:
        raise Refused(f"the services of {env.app.name} there belong to environment {', '.join(others)}", where=link.name,
                      fix=f"give this one its own app.name in [environments.{env.name}.app]")  # fmt: skip


def _changes(compose: Compose, document: Document, env: Environment, engine: APIClient) -> list[Change]:
    images = {one["image"]: _image(engine, one["image"]).get("Id") for one in document["services"].values()}
    return services_check.changes(document, compose.hashes(document), _containers(env, engine), images)


def _containers(env: Environment, engine: APIClient) -> list[Document]:
    label = f"{COMPOSE}.project={services_check.project(env.app.name)}"
    found: list[Document] = engine.containers(all=True, filters={"label": label})
    return sorted(found, key=lambda one: str(one["Names"]))


def _image(engine: APIClient, name: str) -> Document:
    from ops.engine import NotFound

    try:
        found: Document = engine.inspect_image(name)
    except NotFound:
        return {}
    return found


def _bring(server: DockerServer, image: str, say: Say) -> tuple[str, ...]:
    """Have an image on the server: pulled there, else shipped from here; returns the volumes that it declares."""
    reference = image.rpartition("@" if "@" in image else ":")[2]
    if not _image(server.engine, image):
        say(f"{server.name} pulls {image}")
        try:
            server.receive(ImageRef(image, reference, "", pull=True))
        except Failed as error:
            say(f"it cannot be pulled there: {error.why}")
            if "@" in image:
                raise
            local_engine.ensure(say)
            ensure_base(image, say)
            say(f"shipping {image}")
            server.receive(ImageRef(image, reference, ""))
    return tuple(_image(server.engine, image)["Config"].get("Volumes") or ())


def _bring_up(compose: Compose, document: Document, env: Environment, link: Link, engine: APIClient, say: Say) -> None:
    seconds = str(max(1, round(_configured(env).timeout)))
    words = ("up", "--detach", "--wait", "--wait-timeout", seconds, "--pull", "never", "--no-build", "--remove-orphans")
    code, last = compose.follow(*words, document=document, say=say)
    if code:
        raise Failed("the services did not come up", where=link.name, why=last + "".join(_last_words(env, engine)),
                     fix=f"mend it and run this again; inv services.status -e {env.name} shows what runs")  # fmt: skip


def _last_words(env: Environment, engine: APIClient) -> Iterator[str]:
    for one in _containers(env, engine):
        row = _row("", engine.inspect_container(one["Id"]))
        if row.state != "running" or row.health not in ("healthy", "-"):
            logs = engine.logs(row.id, tail=LOG_LINES).decode("utf-8", "replace").strip().splitlines()
            yield f"\n  {row.service} ({row.state}, {row.health}), its last words:\n"
            yield "\n".join(f"    {line}" for line in logs) or "    it said nothing"


def _row(server: str, known: Any) -> Row:
    state, labels = known["State"], known["Config"]["Labels"]
    began = state["StartedAt"] if state["Running"] else state["FinishedAt"]
    return Row(
        server, labels[f"{COMPOSE}.service"], known["Config"]["Image"],
        state["Status"] if state["Running"] else f"{state['Status']} ({state['ExitCode']})",
        state.get("Health", {}).get("Status", "-"), ", ".join(_ports(known)) or "-",
        ", ".join(mount["Name"] for mount in known["Mounts"] if mount["Type"] == "volume") or "-",
        began[:19] + "Z", known["Name"].removeprefix("/"), known["Id"],
    )  # fmt: skip


def _ports(known: Any) -> Iterator[str]:
    for inside, outside in (known["NetworkSettings"]["Ports"] or {}).items():
        for one in outside or ():
            yield f"{one['HostIp']}:{one['HostPort']}→{inside.removesuffix('/tcp')}"
