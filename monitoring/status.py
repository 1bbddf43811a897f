"""How the stack stands: its containers, what does not answer it, what fires, what is silent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from monitoring.alerts import WATCHDOG
from monitoring.inventory import Watched, inventory
from monitoring.live import Http, Prometheus
from monitoring.live_alertmanager import Alertmanager
from monitoring.server import Server, service_of
from monitoring.silences import listed
from monitoring.stack import services
from ops.config import Environment
from ops.console import Console
from ops.errors import TidegateError
from ops.link import Link


@dataclass(frozen=True)
class Container:
    """A service of the stack on one server."""

    server: str
    service: str
    image: str
    state: str
    health: str
    ok: bool


@dataclass(frozen=True)
class Status:
    """All of it; `unknown` says what could not be asked, and why."""

    containers: tuple[Container, ...]
    silent_targets: tuple[str, ...]
    targets: int
    alerts: tuple[dict[str, str], ...]
    silences: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Return whether the stack itself works; alerts that fire are its work."""
        return bool(self.containers) and all(one.ok for one in self.containers) and not self.silent_targets and not self.unknown

    def document(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {"ok": self.ok, **asdict(self)}


def look(env: Environment) -> Status:
    """Look at every server that answers, and ask the stack if its own does."""
    known, unknown = inventory(env), list[str]()
    with ExitStack() as work:
        servers = {host.name: _server(work, env, host, unknown) for host in known.hosts}
        found = ((servers[host.name], services(known, host)) for host in known.hosts)
        containers = tuple(one for server, wanted in found if server for one in _containers(server, wanted))
        server = servers[known.watcher.name]
        http = Http(server.link) if server else None
        targets = _asked(http, unknown, lambda http: Prometheus(http).get("/api/v1/targets", state="active")["activeTargets"])
        alerts = _asked(http, unknown, lambda http: Alertmanager(http).alerts())
        silences = _asked(http, unknown, listed)
        grown = bool(_asked(http, [], lambda http: Prometheus(http).query(_GROWN)))
    told = (f"{', '.join(str(one) for one in silence.matchers)} until {silence.ends:%Y-%m-%d %H:%M} UTC" for silence in silences)
    firing = tuple(map(_alert, alerts))
    if http and not unknown and grown and all(one["alert"] != WATCHDOG for one in firing):
        unknown.append("Watchdog does not reach Alertmanager, so nothing else would: inv monitoring.drill says where it ends")
    return Status(containers, tuple(_silent(targets)), len(targets), firing, tuple(told), tuple(unknown))


_GROWN = 'time() - process_start_time_seconds{job="prometheus"} > 180'  # else no alert has had the time yet


def _server(work: ExitStack, env: Environment, host: Watched, unknown: list[str]) -> Server | None:
    """Connect to a server; one that does not answer is what somebody looks for here."""
    link = Link(env, host.address)
    work.callback(link.close)
    server = Server(link)
    try:
        _ = server.engine
    except TidegateError as error:
        unknown.append(f"{link.name}: {error.what}: {error.why}")
        return None
    return server


def _asked(http: Http | None, unknown: list[str], ask: Callable[[Http], Sequence[Any]]) -> Sequence[Any]:
    if http is None:
        return ()
    try:
        return ask(http)
    except TidegateError as error:
        unknown.append(f"{error.what}: {error.why}")
        return ()


def _containers(server: Server, wanted: Sequence[str]) -> Iterator[Container]:
    seen = {service_of(one): one for one in server.containers()}
    for name in sorted({*wanted, *seen}):
        one = seen.get(name)
        if one is None:
            yield Container(server.name, name, "", "missing", "", ok=False)
            continue
        told = re.search(r"\((?:health: )?(unhealthy|healthy|starting)\)", one["Status"])
        health = told[1] if told else ""
        ok = one["State"] == "running" and health in ("", "healthy")
        yield Container(server.name, name, one["Image"], one["Status"], health, ok=ok)


def _silent(targets: Sequence[dict[str, Any]]) -> Iterator[str]:
    for one in targets:
        if one["health"] != "up":
            yield f"{one['labels']['job']} of {one['labels'].get('host', one['labels']['instance'])}: {one['lastError'] or 'not asked yet'}"


def _alert(found: dict[str, Any]) -> dict[str, str]:
    labels, state = found["labels"], found["status"]
    muted = "silenced" if state["silencedBy"] else "muted" if state["inhibitedBy"] else ""
    summary = found["annotations"].get("summary", "")
    return {
        "alert": labels["alertname"],
        "severity": labels.get("severity", ""),
        "summary": summary,
        "since": found["startsAt"][:19] + "Z",
        "muted": muted,
    }


def show(console: Console, status: Status) -> None:
    """Print it."""
    rows = (("✓" if one.ok else "✗", one.server, one.service, one.state, one.image) for one in status.containers)
    console.table("", ("", "server", "service", "state", "image"), rows)
    console.say(f"{status.targets - len(status.silent_targets)} of {status.targets} targets answer")
    for line in (*status.silent_targets, *status.unknown):
        console.say(f"  ✗ {line}", "red")
    firing = [one for one in status.alerts if one["severity"] != "none"]
    if firing:
        console.table("alerts", ("severity", "alert", "what", "since", ""), (
            (one["severity"], one["alert"], one["summary"], one["since"], one["muted"]) for one in firing))  # fmt: skip
    else:
        console.say(
            "no alert fires" if status.alerts else "no alert fires, not even Watchdog: nothing would be told",
            "green" if status.alerts else "red",
        )
    for line in status.silences:
        console.say(f"silence: {line}")
