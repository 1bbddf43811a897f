"""Alerts by name: which one speaks for which others, what a deploy may mute, and what a silence is. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ops.names import EDGE

WATCHDOG = "Watchdog"  # fires always: its absence outside is what tells that we are gone
DRILL = "TidegateDrill"
SYMPTOMS = ("ProbeFailed", "ProbeSlow", "ErrorBudgetBurn", "LatencyBudgetBurn")  # what users feel; a cause is only our guess

# What a swap of containers looks like from outside. Nothing that users feel, nor of the server, its data or the deploy itself.
OF_A_SWAP = ("ContainerMissing", "ContainerRestarting", "ContainerUnhealthy", "AppMetricsDown")


@dataclass(frozen=True)
class Inhibition:
    """While an alert that `when` matches is firing, those that `mutes` matches and that equal it in labels are not told."""

    name: str
    when: tuple[str, ...]
    mutes: tuple[str, ...]
    equal: tuple[str, ...] = ()


def named(*names: str) -> str:
    """Return the matcher of alerts by name."""
    return f'alertname="{names[0]}"' if len(names) == 1 else f'alertname=~"{"|".join(names)}"'


# What mutes has to be there first, so in the rules it fires before what it mutes; tests/monitoring compares the two.
INHIBITIONS = (
    Inhibition(
        "a server that is down",
        (named("HostDown"),),
        (f'alertname!~"{"|".join(("HostDown", WATCHDOG, DRILL, *SYMPTOMS))}"',),
        ("host",),
    ),
    Inhibition(
        "the worse of two",
        ('severity="critical"',),
        ('severity="warning"',),
        ("alertname", "host", "app", "container", "instance", "device"),
    ),
    Inhibition("a full disk", (named("DiskFull"),), (named("DiskWillFill"),), ("host", "device")),
    # The probe is the page, for it is what users suffer; where probes pass all the same, what is missing pages by itself.
    Inhibition("users are not served: the edge", (named("ProbeFailed"), 'app!="grafana"'), (named("EdgeDown"),)),
    Inhibition(
        "users are not served: its container",
        (named("ProbeFailed"), 'app!="grafana"'),
        (named("ContainerMissing"), f'container="{EDGE}"'),
    ),
    Inhibition("users are not served: the app", (named("ProbeFailed"),), (named("ContainerMissing"),), ("app",)),
    Inhibition("an expired certificate", (named("CertificateExpired"),), (named("ProbeFailed"),), ("instance",)),
    Inhibition("the edge is not there", (named("ContainerMissing"), f'container="{EDGE}"'), (named("EdgeDown"),), ("host",)),
    Inhibition("an app that is not there", (named("ContainerMissing"),), (named("AppMetricsDown"),), ("host", "app")),
    # Of every server's: the one database is on the first.
    Inhibition(
        "a database that is down",
        (named("PostgresDown"),),
        (named("ContainerRestarting", "ContainerUnhealthy", "AppMetricsDown", "LogErrorSpike"),),
    ),
    Inhibition("backups fail", (named("BackupFailed"),), (named("BackupStale", "BackupAbsent"),), ("host", "app")),
    Inhibition("nobody collects logs", (named("TargetDown", "JobAbsent"), 'job="collector"'), (named("NoLogsIngested"),)),
)


@dataclass(frozen=True)
class Matcher:
    """A label and what it is to be, in full; a pattern is one of Go's (and, as far as we use them, Python's)."""

    name: str
    value: str
    pattern: bool = False
    equal: bool = True

    def __str__(self) -> str:
        sign = ("=~" if self.equal else "!~") if self.pattern else ("=" if self.equal else "!=")
        return f'{self.name}{sign}"{self.value}"'

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether it matches labels; one that is missing is empty."""
        label = labels.get(self.name, "")
        found = re.fullmatch(self.value, label) is not None if self.pattern else label == self.value
        return found == self.equal


@dataclass(frozen=True)
class Silence:
    """Alerts that all of the matchers match are not told, from one moment to another."""

    matchers: tuple[Matcher, ...]
    starts: datetime
    ends: datetime
    by: str
    comment: str
    id: str = ""
    state: str = ""

    def mutes(self, labels: Mapping[str, str]) -> bool:
        """Return whether it covers an alert."""
        return all(matcher.matches(labels) for matcher in self.matchers)

    def document(self) -> dict[str, Any]:
        """Return it as Alertmanager takes it."""
        matchers = [{"name": one.name, "value": one.value, "isRegex": one.pattern, "isEqual": one.equal} for one in self.matchers]
        known = {"id": self.id} if self.id else {}
        starts, ends = (moment.astimezone(UTC).isoformat().replace("+00:00", "Z") for moment in (self.starts, self.ends))
        return known | {"matchers": matchers, "startsAt": starts, "endsAt": ends, "createdBy": self.by, "comment": self.comment}


def silence(document: Mapping[str, Any]) -> Silence:
    """Return a silence as Alertmanager tells it."""
    matchers = tuple(
        Matcher(one["name"], one["value"], pattern=one["isRegex"], equal=one.get("isEqual", True)) for one in document["matchers"]
    )
    starts, ends = (datetime.fromisoformat(document[key]) for key in ("startsAt", "endsAt"))
    return Silence(
        matchers, starts, ends, document["createdBy"], document["comment"], document["id"], document["status"]["state"]
    )
