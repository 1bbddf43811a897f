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
    seen = host.server.look([OWNER, PASSWORD, *_identity_paths(known, host, "ca", "cert")])
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
    if _good_for_long(known, hosts, now):
        for host in hosts:
            host.keep += _identity_paths(known, host, "ca", "cert", "key")
        return
    issued = issue([host.watched.address.private or "" for host in hosts], now)
    for host in hosts:
        host.files += identity_files(known, host.watched, issued[host.watched.address.private or ""])


def _identity_paths(known: Inventory, host: Host, *names: str) -> list[str]:
    return [f"{service}/tls/{name}.pem" for service in tls_services(known, host.watched) for name in names]


def _good_for_long(known: Inventory, hosts: Sequence[Host], now: datetime) -> bool:
    """Look at every service's: one that is new on a server, because the stack moved there, has none yet."""
    authorities = {host.found[path] for host in hosts for path in _identity_paths(known, host, "ca")}
    return len(authorities) == 1 and None not in authorities and all(_is_good(known, host, now) for host in hosts)


def _is_good(known: Inventory, host: Host, now: datetime) -> bool:
    found, private = [host.found[path] for path in _identity_paths(known, host, "cert")], host.watched.address.private or ""
    return all(one is not None and expires(one) - now > RENEW and is_for(one, private) for one in found)


def _password(known: Inventory, host: Host) -> Secret | None:
    if host.found[PASSWORD]:  # kept where Grafana is left out now, too: its volume knows this one and no other
        host.keep.append(PASSWORD)
        return None
    if not known.has("grafana"):
        return None
    password = randomness.token_urlsafe(18)
    host.files.append(File(PASSWORD, password, 0o400, stack.OWNERS["grafana"]))
    return Secret(password)
