"""Silences: alerts that are not told for a while. One always ends by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from monitoring.alerts import WATCHDOG, Matcher, Silence
from monitoring.live import Http, Prometheus
from monitoring.live_alertmanager import Alertmanager
from ops.errors import ConfigError, Refused

LONGEST = timedelta(days=31)


def matchers(alert: str = "", host: str = "", app: str = "") -> tuple[Matcher, ...]:
    """Return what a silence is about; several names are given with commas between."""
    return tuple(one_of(name, value.split(",")) for name, value in (("alertname", alert), ("host", host), ("app", app)) if value)


def one_of(label: str, values: Sequence[str]) -> Matcher:
    """Return the matcher of a label that is one of these values."""
    if len(values) == 1:
        return Matcher(label, values[0])
    return Matcher(label, "|".join(re.sub(r"([^\w:/@-])", r"\\\1", value) for value in values), pattern=True)


def add(http: Http, about: tuple[Matcher, ...], lasts: timedelta, by: str, comment: str) -> Silence:
    """Open a silence. Raises ConfigError for one of everything or without end, Refused for one of the Watchdog."""
    if not about:
        raise ConfigError("a silence of everything", fix="say what it is about: --alert, --host or --app")
    if not timedelta() < lasts <= LONGEST:
        raise ConfigError("a silence has to end", why=f"at most {LONGEST.days} days", fix="give it an end: --for 2h")
    now = server_time(http)
    wanted = Silence(about, now, now + lasts, by, comment)
    if wanted.mutes({"alertname": WATCHDOG, "severity": "none"}):
        raise Refused(
            "the Watchdog is not silenced", why="whoever takes the heartbeat would think that the monitoring is down",
            fix="name other alerts; to end the heartbeat, take monitoring.heartbeat out of ops.toml",
        )  # fmt: skip
    return Alertmanager(http).silence(wanted)


def muted(http: Http, silence: Silence) -> list[str]:
    """Return the summaries of what fires now and a silence covers."""
    found = [alert for alert in Alertmanager(http).alerts() if silence.mutes(alert["labels"])]
    return sorted(alert["annotations"].get("summary", alert["labels"]["alertname"]) for alert in found)


def listed(http: Http) -> list[Silence]:
    """Return the silences that hold or will, the one that ends first before the others."""
    return sorted((one for one in Alertmanager(http).silences() if one.state != "expired"), key=lambda one: one.ends)


def expire(http: Http, id: str) -> Silence:
    """End a silence by the beginning of its id. Raises ConfigError where that is none's, or several's."""
    found = [one for one in listed(http) if id and one.id.startswith(id)]
    if len(found) != 1:
        why = f"{len(found)} silences begin with that" if found else "no silence that holds begins with that"
        raise ConfigError(f"which silence is {id!r}?", where=http.name, why=why, fix="inv monitoring.silence --list")
    Alertmanager(http).expire(found[0].id)
    return found[0]


def server_time(http: Http) -> datetime:
    """Return what time it is where the stack runs: silences begin and end by that clock."""
    now = Prometheus(http).value("vector(time())")
    assert now is not None
    return datetime.fromtimestamp(now, UTC)
