"""What there is to watch: an environment's servers, apps, domains and containers, from ops.toml alone. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ops.config import Environment, HostAddress, Monitoring
from ops.errors import ConfigError
from ops.names import EDGE

GATE_PORT = 7814
STACK = ("prometheus", "alertmanager", "grafana", "loki", "blackbox")
HOST_JOBS = ("node", "cadvisor", "collector", "edge", "postgres")
WEB = "web"


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server that runs in a container beside the app."""

    container: str
    user: str
    database: str
    password: str | None  # name of a secret


@dataclass(frozen=True)
class Watched:
    """One server: whether the app runs on it and the stack, and what it tells."""

    address: HostAddress
    app: bool
    stack: bool
    jobs: tuple[str, ...]
    containers: tuple[str, ...]
    postgres: Postgres | None = None
    backups: bool = False  # whether anything on it is backed up

    @property
    def name(self) -> str:
        """What its series and alerts call it: its address, with the port where that is unusual."""
        return self.address.name.rpartition("@")[2]


@dataclass(frozen=True)
class Probe:
    """An address that is asked from outside, the label values of what it tells, and where it is asked instead of its domain."""

    url: str
    asked: str
    domain: str
    app: str


@dataclass(frozen=True)
class Inventory:
    """All that is watched in an environment."""

    environment: str
    app: str
    hosts: tuple[Watched, ...]
    probes: tuple[Probe, ...]
    collector: str
    without: frozenset[str]
    figures: str = ""  # port and path of the app's own

    @property
    def watcher(self) -> Watched:
        """The server with the stack."""
        return next(host for host in self.hosts if host.stack)

    @property
    def stack(self) -> tuple[str, ...]:
        """The services of the stack."""
        return tuple(name for name in STACK if name not in self.without)

    def has(self, part: str) -> bool:
        """Return whether a part of the stack is not left out."""
        return part not in self.without


def inventory(env: Environment) -> Inventory:
    """Return what is to be watched. Raises ConfigError where several servers do not say how they reach each other."""
    watcher, settings = env.watcher, env.monitoring
    addresses = env.hosts if watcher in env.hosts else (*env.hosts, watcher)
    if len(addresses) > 1:
        _require_private(env, addresses)
    hosts = tuple(_watched(env, address, index, stack=address == watcher) for index, address in enumerate(addresses))
    return Inventory(
        env.name, env.app.name, hosts, tuple(_probes(env)) if "blackbox" not in settings.without else (), settings.collector,
        frozenset(_without(settings)),
        figures=f"{env.app.metrics.port or env.app.port}{env.app.metrics.path}" if env.app.metrics else "",
    )  # fmt: skip


def addresses(known: Inventory) -> list[str]:
    """Return the private addresses of the servers that believe each other."""
    return sorted(host.address.private for host in known.hosts if host.address.private) if len(known.hosts) > 1 else []


def _without(settings: Monitoring) -> Iterator[str]:
    yield from settings.without
    # Each is of no use without the other; and a rule would tell for ever that nothing comes.
    if "loki" in settings.without:
        yield "collector"
    if "collector" in settings.without:
        yield "loki"


def _require_private(env: Environment, addresses: tuple[HostAddress, ...]) -> None:
    silent = [address.name for address in addresses if address.private is None]
    if silent:
        raise ConfigError(
            f"servers without a private address: {', '.join(silent)}", where=f"[environments.{env.name}]",
            why="with several servers the one with the stack reaches the others (and they it) over mutual TLS on that address",
            fix='give each host private = "10.0.0.…"; without a private network, its public address',
        )  # fmt: skip
    known = [address.private for address in addresses]
    if twice := sorted({str(one) for one in known if known.count(one) > 1}):
        raise ConfigError(
            f"{', '.join(twice)} is the private address of several servers", where=f"[environments.{env.name}]",
            why="one of them would be watched twice, and another never", fix="give each host its own",
        )  # fmt: skip


def _watched(env: Environment, address: HostAddress, index: int, *, stack: bool) -> Watched:
    app = index < len(env.hosts)
    postgres = _postgres(env) if index == 0 and "postgres" not in env.monitoring.without else None
    without = set(_without(env.monitoring)) | (set() if app else {"edge"}) | (set() if postgres else {"postgres"})
    jobs = tuple(job for job in HOST_JOBS if job not in without)
    containers = (*(f"{env.app.name}-{process}" for process in (WEB, *env.app.processes)), EDGE) if app else ()
    sources = env.app.backup.sources.values() if env.app.backup and app else ()
    backups = any(one.each or index == 0 for one in sources)
    return Watched(address, app, stack, jobs, containers, postgres, backups)


def _postgres(env: Environment) -> Postgres | None:
    """Return the database that backups know of and that runs in a container."""
    for source in (env.app.backup.sources if env.app.backup else {}).values():
        if source.kind == "postgres" and source.container:
            return Postgres(source.container, source.user or "postgres", source.database or "postgres", source.password)
    return None


def _probes(env: Environment) -> Iterator[Probe]:
    scheme, path = "https" if env.tls else "http", env.app.health.path
    for domain in env.domains:
        # A name that leads every machine to itself, as the sandbox has, is asked for at the edge beside the stack.
        local = domain.endswith(".localhost") and env.watcher in env.hosts
        yield Probe(f"{scheme}://{domain}{path}", f"{scheme}://{EDGE if local else domain}{path}", domain, env.app.name)
    if public := env.monitoring.grafana:
        url = f"https://{public.domain}/api/health"
        yield Probe(url, url, public.domain, "grafana")
