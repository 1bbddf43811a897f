"""A drill: a synthetic alert on its way through the whole chain, from a server's figures to everybody who is told of alerts.

A file for the node exporter makes it fire. Each receiver has a twin of the same settings that hears of drills only, and
Alertmanager counts what each receiver took; so a message that arrived can be told from one that was only sent.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from monitoring.alertmanager import DRILLED
from monitoring.alerts import DRILL
from monitoring.live import Http, Prometheus
from monitoring.live_alertmanager import Alertmanager, Tally
from monitoring.silences import server_time
from ops.errors import Refused

FILE = "drill.prom"
METRIC = "tidegate_drill_started_timestamp_seconds"
TIMEOUT = 120.0

_PAUSE = 0.5  # a question to the stack is two round trips; whoever waits for seconds need not ask more often


class Textfile(Protocol):
    """The file of that name in the folder that the node exporter of the stack's server reads."""

    def put(self, text: str) -> None:
        """Write it, atomically."""

    def remove(self) -> None:
        """Remove it, if it is there."""


@dataclass(frozen=True)
class Stage:
    """A step of the way, and after how many seconds it was reached; where it was not, why."""

    name: str
    seconds: float | None
    why: str = ""


@dataclass(frozen=True)
class Report:
    """How a drill went."""

    id: str
    stages: tuple[Stage, ...]
    receivers: tuple[Stage, ...] = ()

    @property
    def ok(self) -> bool:
        """Return whether everybody has it."""
        return bool(self.receivers) and all(stage.seconds is not None for stage in (*self.stages, *self.receivers))

    @property
    def seconds(self) -> float:
        """After how long the last one reached had it."""
        return max((stage.seconds or 0.0 for stage in (*self.stages, *self.receivers)), default=0.0)

    def document(self) -> Mapping[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self) | {"ok": self.ok, "seconds": self.seconds}

    def lines(self) -> Iterator[str]:
        """Say it in words."""
        for stage in (*self.stages, *self.receivers):
            reached = "never" if stage.seconds is None else f"{stage.seconds:5.1f} s"
            yield f"{reached:>7}  {stage.name}{f': {stage.why}' if stage.why else ''}"


def drill(
    http: Http, textfile: Textfile, receivers: Sequence[str], timeout: float = TIMEOUT, log: Callable[[], str] = lambda: ""
) -> Report:
    """Fire a synthetic alert and wait until every receiver has it; `log` is Alertmanager's, asked where one has not.

    What the alert stands for is gone at the end in any case. That it resolves is not waited for: nobody is told of it.
    """
    _require(Alertmanager(http), receivers, http.name)
    id = secrets.token_hex(4)
    before = Alertmanager(http).tallies()
    try:
        begun = time.monotonic()
        textfile.put(_figures(id, server_time(http).timestamp()))
        return _watch(http, id, receivers, before, _Wait(begun, begun + timeout), log)
    finally:
        textfile.remove()


def _require(alertmanager: Alertmanager, receivers: Sequence[str], where: str) -> None:
    if not receivers:
        fix = "in ops.toml: [monitoring.slack], [monitoring.email] or [monitoring.webhooks.NAME], then inv monitoring.up"
        raise Refused("nobody is told of alerts", where=where, fix=fix)
    known = alertmanager.receivers()
    if missing := [name for name in receivers if DRILLED + name not in known]:
        raise Refused(f"alertmanager does not know {', '.join(missing)}", where=where, fix="inv monitoring.up")


def _figures(id: str, now: float) -> str:
    return (
        f"# HELP {METRIC} When a drill of the alerts began; its alert ends by itself ten minutes later.\n"
        f'# TYPE {METRIC} gauge\n{METRIC}{{id="{id}"}} {now:.0f}\n'
    )


@dataclass(frozen=True)
class _Wait:
    """Waiting for several things one after another, all within one time."""

    begun: float
    ends: float

    def until(self, reached: Callable[[], bool]) -> float | None:
        """Return after how many seconds it was so; None where time was up."""
        while not reached():
            if time.monotonic() >= self.ends:
                return None
            time.sleep(_PAUSE)
        return round(time.monotonic() - self.begun, 1)


def _watch(
    http: Http, id: str, receivers: Sequence[str], before: Mapping[str, Tally], wait: _Wait, log: Callable[[], str]
) -> Report:
    reached: list[Stage] = []
    for name, seen, why in _stages(Prometheus(http), Alertmanager(http), id):
        seconds = wait.until(seen)
        reached.append(Stage(name, seconds, "" if seconds is not None else why))
        if seconds is None:
            return Report(id, tuple(reached))
    return Report(id, tuple(reached), _delivered(Alertmanager(http), id, receivers, before, wait, log))


def _stages(prometheus: Prometheus, alertmanager: Alertmanager, id: str) -> list[tuple[str, Callable[[], bool], str]]:
    is_it = f'id="{id}"'
    firing = f'ALERTS{{alertname="{DRILL}",alertstate="firing",{is_it}}}'
    return [
        ("scraped", lambda: bool(prometheus.query(f"{METRIC}{{{is_it}}}")), "the node exporter is not scraped, or does not read its folder"),
        ("firing", lambda: bool(prometheus.query(firing)), f"Prometheus does not evaluate the rule {DRILL}: inv monitoring.check"),
        ("in Alertmanager", lambda: bool(alertmanager.alerts(is_it)), "Prometheus does not reach Alertmanager: inv monitoring.status"),
    ]  # fmt: skip


def _delivered(
    alertmanager: Alertmanager,
    id: str,
    receivers: Sequence[str],
    before: Mapping[str, Tally],
    wait: _Wait,
    log: Callable[[], str],
) -> tuple[Stage, ...]:
    after: dict[str, float] = {}

    def all_have_it() -> bool:
        # Twice, because an attempt and its failure are counted one after the other.
        once, again = alertmanager.tallies(), alertmanager.tallies()
        for name in receivers:
            own = DRILLED + name
            if min(once[own].delivered, again[own].delivered) > before[own].delivered:
                after.setdefault(name, round(time.monotonic() - wait.begun, 1))
        return len(after) == len(receivers)

    if wait.until(lambda: all_have_it() or bool(_muted(alertmanager, id))) is not None and len(after) == len(receivers):
        return tuple(Stage(name, after[name]) for name in receivers)
    now, muted, said = alertmanager.tallies(), _muted(alertmanager, id), log()
    return tuple(
        Stage(name, after.get(name), "" if name in after else muted or _why(DRILLED + name, before, now, said))
        for name in receivers
    )


def _muted(alertmanager: Alertmanager, id: str) -> str:
    """Return by what the alert is muted, if it is."""
    for alert in alertmanager.alerts(f'id="{id}"'):
        if by := alert["status"]["silencedBy"]:
            return f"silenced: inv monitoring.silence --expire {by[0]}"
        if by := alert["status"]["inhibitedBy"]:
            return f"muted by another alert ({by[0]})"
    return ""


def _why(receiver: str, before: Mapping[str, Tally], now: Mapping[str, Tally], log: str) -> str:
    """Return what Alertmanager says of a message that did not arrive: its last words, else what it counted."""
    said = [line for line in log.splitlines() if f"receiver={receiver} " in line and "err=" in line]
    failed = now[receiver].failed - before[receiver].failed
    reasons = [
        name for name, count in (now[receiver].given_up or {}).items() if count > (before[receiver].given_up or {}).get(name, 0)
    ]
    told = said[-1].partition("err=")[2].strip('"') if said else ", ".join(reasons)
    counted = f"tried {failed} times without success" if failed else "not tried, or without an answer so far"
    return f"{counted}: {told}" if told else counted
