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
from monitoring.certificates import is_good, issue
from monitoring.files import MEMBERS, OWNER, PROJECT, File
from monitoring.inventory import GATE_PORT, Inventory, Watched, addresses
from monitoring.live import PORTS
from monitoring.render import PASSWORD, identity_files, render, tls_services
from monitoring.server import Server
from monitoring.stack import Ground, Wanted, services, wanted
from ops.compose import Compose
from ops.config import Environment
from ops.errors import Refused
from ops.link import Link
from ops.names import HOME, NETWORK
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
    there: Sequence[str] = ()
    remarks: list[str] = field(default_factory=list)
    compose: Compose | None = None  # at work there
    ground: Ground = field(default_factory=Ground)
    journal: bool = False
    taken: Sequence[str] = ()  # where the stack is to listen and cannot
    apps: tuple[str, ...] = ()  # the subnets of the apps' network

    def wanted(self, env: Environment, known: Inventory) -> Wanted:
        """Return what is to run there."""
        return wanted(known, self.watched, env.monitoring, self.ground, self.images)


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
        each(hosts, lambda host: look(host, known))
        yield hosts


def each(hosts: Sequence[Host], act: Callable[[Host], T]) -> list[T]:
    """Do something on all servers at once."""
    with ThreadPoolExecutor(len(hosts)) as pool:
        try:
            return list(pool.map(act, hosts))
        except KeyboardInterrupt:
            for host in hosts:
                if host.compose:
                    host.compose.stop()
            raise


def watcher(hosts: Sequence[Host]) -> Host:
    """Return the server with the stack."""
    return next(host for host in hosts if host.watched.stack)


def look(host: Host, known: Inventory) -> None:
    """Read what is there already; another environment's stack is left alone. Raises Refused."""
    keys = _identity_paths(known, host, "key")
    seen = host.server.look([OWNER, MEMBERS, *_identity_paths(known, host, "ca", "cert")], [PASSWORD, *keys], _ports(known, host))
    host.found, host.there, host.journal, host.taken = seen["files"], seen["there"], seen["journal"], seen["unbound"]
    host.ground = Ground(seen["engine_group"], seen["propagation"])
    owner = json.loads(host.found[OWNER] or "{}")
    if owner and owner != {"app": known.app, "environment": known.environment}:
        raise Refused(
            f"the stack there watches {owner['app']} in {owner['environment']}", where=host.server.name,
            why="one stack watches one environment; its exporters and its ports are there once",
            fix=f"in that project: inv monitoring.down -e {owner['environment']} --volumes; or [monitoring] host = another server",
        )  # fmt: skip


def _ports(known: Inventory, host: Host) -> list[tuple[str, int]]:
    """Return where the stack is to listen and does not yet."""
    running = host.server.running()
    wanted = (
        [("127.0.0.1", PORTS[name]) for name in known.stack if name in PORTS and name not in running]
        if host.watched.stack
        else []
    )
    private = host.watched.address.private
    return [*wanted, *([(private, 0 if "gate" in running else GATE_PORT)] if private and len(known.hosts) > 1 else [])]


def _require_free(host: Host) -> None:
    if host.taken:
        raise Refused(f"nothing of the stack can listen on {', '.join(host.taken)}", where=host.server.name,
                      why="another program has the port, or the address is not the server's own",
                      fix="there: ss -ltnp, ip address; private in ops.toml is what the server itself is called among the others")  # fmt: skip


def decide(env: Environment, known: Inventory, hosts: Sequence[Host], secrets: Mapping[str, Secret]) -> Secret | None:
    """Decide on every server's files and images, and on what stays as it is; returns Grafana's password where it is a new one.

    Raises Refused where the stack could not listen, or the apps' network is missing.
    """
    for host in hosts:
        _require_free(host)
        host.apps = _subnets(host)
        host.files = render(env, known, host.watched, secrets, journal=host.journal, apps=host.apps)
        _choose_images(host, services(known, host.watched))
    if len(hosts) > 1:
        _identify(known, hosts)
    return _password(known, hosts)


def _subnets(host: Host) -> tuple[str, ...]:
    """Return the subnets of the apps' network. Raises Refused where the app is to run and it is missing."""
    if not host.watched.app:
        return ()
    for one in host.server.engine.networks(names=[NETWORK]):
        if one["Name"] == NETWORK:
            return tuple(pool["Subnet"] for pool in one["IPAM"]["Config"])
    fix = f"inv server.bootstrap -e {host.server.link.environment}"
    raise Refused(f"the network {NETWORK} is missing", where=host.server.name, fix=fix)


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
        host.files.sort(key=lambda file: file.path == MEMBERS)  # last: until then the one that is no more is still written there


def _identity_paths(known: Inventory, host: Host, *names: str) -> list[str]:
    return [f"{service}/tls/{name}.pem" for service in tls_services(known, host.watched) for name in names]


def _good_for_long(known: Inventory, hosts: Sequence[Host], now: datetime) -> bool:
    """Look at every service's: one that is new on a server, because the stack moved there, has none yet."""
    if any(set(json.loads(host.found[MEMBERS] or "[]")) - set(addresses(known)) for host in hosts):
        return False  # one that is no more is not to be believed any more
    authorities = {host.found[path] for host in hosts for path in _identity_paths(known, host, "ca")}
    return len(authorities) == 1 and None not in authorities and all(_is_good(known, host, now) for host in hosts)


def _is_good(known: Inventory, host: Host, now: datetime) -> bool:
    """Return whether a server's identities are whole: a run that died between two of their files left what does not fit."""
    if not set(_identity_paths(known, host, "key")) <= set(host.there):
        return False
    pairs = zip(_identity_paths(known, host, "cert"), _identity_paths(known, host, "ca"), strict=True)
    private = host.watched.address.private or ""
    return all(is_good(host.found[cert] or "", host.found[ca] or "", private, now) for cert, ca in pairs)


def _password(known: Inventory, hosts: Sequence[Host]) -> Secret | None:
    """Keep the password wherever one is, with or without Grafana: its volume there knows this one and no other."""
    for host in hosts:
        host.keep += [PASSWORD] if PASSWORD in host.there else []
    host = watcher(hosts)
    if not known.has("grafana") or PASSWORD in host.there:
        return None
    password = randomness.token_urlsafe(18)
    host.files.append(File(PASSWORD, password, 0o400, stack.OWNERS["grafana"]))
    if f"{PROJECT}_grafana" not in host.server.volumes():
        return Secret(password)
    reset = f"docker exec {PROJECT}-grafana-1 grafana cli admin reset-admin-password NEW"
    host.remarks.append(f"Grafana's data is from before, and so is its password; to set another, on {host.server.name}: {reset}")
    return None
