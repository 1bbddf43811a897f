"""The servers of a watched environment at work: connected, locked, looked at, and what each is to become."""

from __future__ import annotations

import json
import secrets as randomness
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from monitoring import images, stack
from monitoring.certificates import RENEW, expires, is_for, issue
from monitoring.files import OWNER, File
from monitoring.inventory import Inventory, Watched
from monitoring.render import PASSWORD, identity_files, render, tls_services
from monitoring.server import PROJECT, Server
from monitoring.stack import Wanted, services, wanted
from ops.config import Environment
from ops.errors import Refused
from ops.link import Link
from ops.names import HOME
from ops.secret import Secret

UPGRADE_NOTE = f"{HOME}/monitoring-upgrade.json"  # an upgrade that has begun; not among the stack's own files
T = TypeVar("T")


@dataclass
class Host:
    """A server at work: what was found there, and what it is to become."""

    watched: Watched
    server: Server
    found: Mapping[str, str | None] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)
    keep: list[str] = field(default_factory=list)
    images: Mapping[str, str] = field(default_factory=dict)
    outdated: Sequence[str] = ()
    engine_group: int = 0
    journal: bool = False

    def wanted(self, env: Environment, known: Inventory) -> Wanted:
        """Return what is to run there."""
        return wanted(known, self.watched, env.monitoring, self.engine_group, self.images)


@contextmanager
def connected(env: Environment, known: Inventory) -> Iterator[list[Host]]:
    """Connect to every server for as long as the block runs."""
    links = [Link(env, host.address) for host in known.hosts]
    try:
        hosts = [Host(watched, Server(link)) for watched, link in zip(known.hosts, links, strict=True)]
        each(hosts, lambda host: host.server.engine)
        yield hosts
    finally:
        with ThreadPoolExecutor(len(links)) as pool:
            list(pool.map(Link.close, links))


@contextmanager
def at_work(env: Environment, known: Inventory, what: str) -> Iterator[list[Host]]:
    """Connect to every server, take each one's lock of the stack and look at what is there. Raises Locked, Refused."""
    with connected(env, known) as hosts:
        each(hosts, lambda host: host.server.look([]))  # the folder of the lock is there now
        each(hosts, lambda host: host.server.lock(f"{what} of {env.name}"))
        each(hosts, lambda host: _look(host, known))
        yield hosts


def each(hosts: Sequence[Host], act: Callable[[Host], T]) -> list[T]:
    """Do something on all servers at once."""
    with ThreadPoolExecutor(len(hosts)) as pool:
        return list(pool.map(act, hosts))


def watcher(hosts: Sequence[Host]) -> Host:
    """Return the server with the stack."""
    return next(host for host in hosts if host.watched.stack)


def _look(host: Host, known: Inventory) -> None:
    """Read what is there already; another environment's stack is left alone. Raises Refused."""
    seen = host.server.look([OWNER, PASSWORD, "gate/tls/ca.pem", "gate/tls/cert.pem"])
    host.found, host.engine_group, host.journal = seen["files"], seen["engine_group"], seen["journal"]
    owner = json.loads(host.found[OWNER] or "{}")
    if owner and owner != {"app": known.app, "environment": known.environment}:
        raise Refused(
            f"the stack there watches {owner['app']} in {owner['environment']}", where=host.server.name,
            why="one stack watches one environment; its exporters and its ports are there once",
            fix=f"in that project: inv monitoring.down -e {owner['environment']} --volumes; or [monitoring] host = another server",
        )  # fmt: skip


def decide(env: Environment, known: Inventory, hosts: Sequence[Host], secrets: Mapping[str, Secret]) -> Secret | None:
    """Decide on every server's files and images, and on what stays as it is; returns Grafana's password where it is a new one."""
    for host in hosts:
        host.files = render(env, known, host.watched, secrets, journal=host.journal)
        _choose_images(host, services(known, host.watched))
    if len(hosts) > 1:
        _identify(known, hosts)
    return _password(known, watcher(hosts))


def _choose_images(host: Host, names: Sequence[str]) -> None:
    """Take the lock's images for what is new, and leave what runs on its own: changing those is `upgrade`'s."""
    lock, running = images.load(), images.images_running(host.server.engine, PROJECT)
    host.images = {name: running[name].name if name in running else lock[name].name for name in names}
    host.outdated = [
        name for name in names if name in running and not (
            running[name].name == lock[name].name and images.is_wanted(lock[name], running[name].digests))
    ]  # fmt: skip


def _identify(known: Inventory, hosts: Sequence[Host]) -> None:
    """Keep the servers' identities while all are of one CA and good for long; else make all anew."""
    now = datetime.now(UTC)
    if _good_for_long(hosts, now):
        for host in hosts:
            folders = tls_services(known, host.watched)
            host.keep += [f"{service}/tls/{name}.pem" for service in folders for name in ("ca", "cert", "key")]
        return
    issued = issue([host.watched.address.private or "" for host in hosts], now)
    for host in hosts:
        host.files += identity_files(known, host.watched, issued[host.watched.address.private or ""])


def _good_for_long(hosts: Sequence[Host], now: datetime) -> bool:
    authorities = {host.found["gate/tls/ca.pem"] for host in hosts}
    if len(authorities) > 1 or None in authorities:
        return False
    return all(_is_good(host, now) for host in hosts)


def _is_good(host: Host, now: datetime) -> bool:
    certificate, private = host.found["gate/tls/cert.pem"], host.watched.address.private or ""
    return certificate is not None and expires(certificate) - now > RENEW and is_for(certificate, private)


def _password(known: Inventory, host: Host) -> Secret | None:
    if not known.has("grafana"):
        return None
    if host.found[PASSWORD]:
        host.keep.append(PASSWORD)
        return None
    password = randomness.token_urlsafe(18)
    host.files.append(File(PASSWORD, password, 0o400, stack.OWNERS["grafana"]))
    return Secret(password)
