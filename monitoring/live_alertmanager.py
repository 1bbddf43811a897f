"""Alertmanager, asked: what it holds, what it mutes, what it delivered."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from monitoring.alerts import Silence, silence
from monitoring.live import PORTS, Http
from ops.errors import Failed

_SERIES = re.compile(r"alertmanager_(notification\w+_total)\{(.*)\} (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Tally:
    """What Alertmanager counted of one receiver since it started: messages tried, those that failed, and why it gave up."""

    tried: int = 0
    failed: int = 0
    given_up: Mapping[str, int] | None = None

    @property
    def delivered(self) -> int:
        """Messages that the receiver took."""
        return self.tried - self.failed


class Alertmanager:
    """Alertmanager's API."""

    def __init__(self, http: Http) -> None:
        self.http = http

    def alerts(self, *matchers: str) -> list[dict[str, Any]]:
        """Return the alerts that it holds, muted ones too."""
        found: list[dict[str, Any]] = json.loads(self._ask("GET", f"/api/v2/alerts?{_filter(matchers)}"))
        return found

    def receivers(self) -> list[str]:
        """Return the names of its receivers."""
        return [one["name"] for one in json.loads(self._ask("GET", "/api/v2/receivers"))]

    def silences(self) -> list[Silence]:
        """Return its silences, those too that are over."""
        return [silence(one) for one in json.loads(self._ask("GET", "/api/v2/silences"))]

    def silence(self, wanted: Silence) -> Silence:
        """Open a silence, or change the end of the one with its id; returns it with the id that it has now."""
        answer = json.loads(self._ask("POST", "/api/v2/silences", json.dumps(wanted.document())))
        return replace(wanted, id=answer["silenceID"])

    def known(self, id: str) -> Silence:
        """Return a silence by its id."""
        return silence(json.loads(self._ask("GET", f"/api/v2/silence/{id}")))

    def expire(self, id: str) -> None:
        """End a silence now."""
        self._ask("DELETE", f"/api/v2/silence/{id}")

    def tallies(self) -> Mapping[str, Tally]:
        """Return what it counted of each receiver."""
        return tallies(self._ask("GET", "/metrics"))

    def _ask(self, method: str, path: str, body: str | None = None) -> str:
        status, answer = self.http.ask(method, PORTS["alertmanager"], path, body)
        if status != 200:
            raise Failed("alertmanager refuses the question", where=self.http.name, why=f"{status}: {answer.strip()[:500]}")
        return answer


def tallies(metrics: str) -> Mapping[str, Tally]:
    """Read what Alertmanager counted per receiver from its own metrics."""
    found: dict[str, Tally] = defaultdict(Tally)
    for name, labels, value in _SERIES.findall(metrics):
        known = dict(_LABEL.findall(labels))
        if receiver := known.get("receiver_name"):
            found[receiver] = _counted(found[receiver], name, known.get("reason", ""), int(float(value)))
    return found


def _counted(so_far: Tally, name: str, reason: str, value: int) -> Tally:
    if name == "notification_requests_total":
        return replace(so_far, tried=value)
    if name == "notification_requests_failed_total":
        return replace(so_far, failed=value)
    if name == "notifications_failed_total":
        return replace(so_far, given_up={**(so_far.given_up or {}), reason: value})
    return so_far


def _filter(matchers: tuple[str, ...]) -> str:
    return urlencode([("filter", one) for one in matchers])
