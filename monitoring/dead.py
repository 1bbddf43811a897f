"""Rules that do not run, and series that are named and that nobody tells: asked of a live Prometheus and Loki.

Prometheus itself says how it reads an expression (`/api/v1/parse_query`, which its own pages use), so there is no second parser.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from monitoring.files import File
from monitoring.series import LOG_RULES, RULES, Reading, Selector, askable, readings, rules_of, selectors
from ops.errors import ConfigError, Failed, TidegateError

_AT_ONCE = 40  # expressions or selectors in one question
_FAR_BACK = "last_over_time({}[1h])"
# Who tells a series, by how its name begins.
PARTS = {
    "tidegate_backup_": "backups on each server, read by node",
    "tidegate_deploy_": "deploys, read by node",
    "tidegate_drill": "inv monitoring.drill, read by node",
    "tidegate:": "rules/environment.yml",
    "app:": "rules/app.yml",
    "app_code:": "rules/app.yml",
    "http_request": "the app: [app.metrics] in ops.toml",
    "node_": "node",
    "container_": "cadvisor",
    "machine_": "cadvisor",
    "probe_": "blackbox, asking the domains",
    "nginx_": "edge-exporter",
    "pg_": "postgres-exporter",
    "loki_write_": "collector (alloy)",
    "loki_source_": "collector (alloy)",
    "alloy_": "collector (alloy)",
    "promtail_": "collector (promtail)",
    "loki_": "loki",
    "alertmanager_": "alertmanager",
    "grafana_": "grafana",
    "blackbox_": "blackbox",
}


@dataclass(frozen=True)
class Rare:
    """Series that may be missing on a healthy server, and why; once one of those names is there, all have to be.

    With a condition only that may be what nothing meets; with a source, they may be missing as long as that one is.
    """

    names: str
    why: str
    condition: str = ""
    source: Selector | None = None


_APP = Selector("up", (("job", "=", "app"),))
RARE = (
    Rare("tidegate_drill_.*", "no drill was made yet"),
    Rare("tidegate_deploy_.*", "no deploy was made since monitoring came up"),
    Rare("tidegate_deploy_(success|finished|duration).*", "no deploy has ended since monitoring came up"),
    Rare("tidegate_backup_.*", "no backup was taken or scheduled yet"),
    Rare("tidegate_backup_(last_attempt|source)_.*", "no backup was taken yet"),
    Rare("tidegate_backup_(last_success|last_verified|duration|bytes).*", "no backup was good yet"),
    Rare("tidegate_backup_last_verified_.*", "no backup was proven like that yet", 'level="(full|restore)"'),
    Rare("up", "no container of the app was there in the last hour", 'job="app"'),
    Rare("http_request.*", "no container of the app was asked for its figures in the last hour", source=_APP),
    Rare("app(_code)?:http_requests.*", "nobody has asked the app anything in the last hour"),
    Rare("http_requests_total|app_code:http_requests:.*", "no request was answered like that in the last hour", "code.*"),
    Rare("probe_ssl_.*", "no domain is served over https"),
    Rare("alertmanager_notifications_(failed_)?total", "nobody is told of alerts: ops.toml names no receiver"),
    Rare("loki_(write|source)_.*", "the collector is promtail, or was just started"),
    Rare("promtail_.*", "the collector is alloy, or was just started"),
    Rare("node_textfile_mtime_seconds", "no backup or deploy has told its figures yet"),
    Rare("ALERTS|ALERTS_FOR_STATE", "no such alert in the last hour", "(alertname|severity|alertstate).*"),
)


class Asked(Protocol):
    """A service with a JSON API."""

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the answer's data. Raises ConfigError or Failed where the service refuses the question."""


class Prometheus(Asked, Protocol):
    """A Prometheus that is asked."""

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that an expression gives now."""


@dataclass(frozen=True)
class Dead:
    """Something that is named and that Prometheus does not have; `not_yet` where that is no mistake."""

    selector: str
    where: tuple[str, ...]
    part: str
    why: str
    not_yet: bool = False


@dataclass(frozen=True)
class Fault:
    """A rule that does not run as it should."""

    rule: str
    why: str


def dead_series(prometheus: Prometheus, files: Sequence[File]) -> list[Dead]:
    """Return what rules and dashboards read and Prometheus has had no series of for an hour."""
    uses: dict[Selector, list[tuple[Reading, bool]]] = {}
    broken = []
    for reading, tree in _parsed(prometheus, list(readings(files))):
        if isinstance(tree, TidegateError):
            broken.append(Dead(reading.expression, (reading.where,), "", tree.why))
            continue
        for selector, optional in selectors(tree):
            uses.setdefault(selector, []).append((reading, optional))
    missing = set(uses) - _existing(prometheus, uses, "{}")
    missing -= _existing(prometheus, missing, _FAR_BACK)
    return broken + sorted(_judged(prometheus, uses, missing), key=lambda one: (one.not_yet, one.selector))


def faults_of_rules(prometheus: Asked, files: Sequence[File]) -> list[Fault]:
    """Return the rules that Prometheus does not have, or cannot evaluate."""
    return _faults(prometheus.get("/api/v1/rules"), [file for file in files if file.path.startswith(RULES)])


def faults_of_logs(loki: Asked, files: Sequence[File]) -> list[Fault]:
    """Return the rules that Loki does not have, or cannot evaluate."""
    return _faults(loki.get("/prometheus/api/v1/rules"), [file for file in files if file.path.startswith(LOG_RULES)])


def _faults(running: Mapping[str, Any], files: Sequence[File]) -> list[Fault]:
    known = [rule for group in running["groups"] for rule in group["rules"]]
    lacking = Counter(str(rule.get("record") or rule["alert"]) for file in files for rule in rules_of(file))
    lacking.subtract(rule["name"] for rule in known)
    absent = [Fault(name, "it is not loaded: inv monitoring.up") for name, count in lacking.items() if count > 0]
    return absent + [Fault(rule["name"], rule.get("lastError", "")) for rule in known if rule.get("health") == "err"]


Parsed = Iterator[tuple[Reading, Mapping[str, Any] | TidegateError]]


def _parsed(prometheus: Prometheus, asked: Sequence[Reading]) -> Parsed:
    """Return what each expression means, or why it has no meaning."""
    for start in range(0, len(asked), _AT_ONCE):
        yield from _parsed_at_once(prometheus, asked[start : start + _AT_ONCE])


def _parsed_at_once(prometheus: Prometheus, some: Sequence[Reading]) -> Parsed:
    """Have several parsed as one, `(a) or (b)`: each question costs a round trip. Where that is none, the halves of it."""
    together = " or ".join(f"({askable(reading.expression)}\n)" for reading in some)
    try:
        tree = prometheus.get("/api/v1/parse_query", query=together)
    except (ConfigError, Failed) as error:
        if len(some) == 1:
            yield some[0], error
        else:
            middle = len(some) // 2
            yield from (one for half in (some[:middle], some[middle:]) for one in _parsed_at_once(prometheus, half))
        return
    found = []
    for _ in some[1:]:
        found.append(tree["rhs"])
        tree = tree["lhs"]
    yield from zip(some, (tree, *reversed(found)), strict=True)


def _existing(prometheus: Prometheus, asked: Collection[Selector], form: str) -> set[Selector]:
    """Return those of which there is a series, asking for many at once."""
    found: set[Selector] = set()
    listed = list(asked)
    for start in range(0, len(listed), _AT_ONCE):
        some = listed[start : start + _AT_ONCE]
        counts = [f'label_replace(count({form.format(one.text)}), "n", "{n}", "", "")' for n, one in enumerate(some)]
        found |= {some[int(one["metric"]["n"])] for one in prometheus.query(" or ".join(counts))}
    return found


Uses = Mapping[Selector, Sequence[tuple[Reading, bool]]]


def _judged(prometheus: Prometheus, uses: Uses, missing: Collection[Selector]) -> Iterator[Dead]:
    looser = {rare: {one: _looser(one, rare) for one in missing if re.fullmatch(rare.names, one.called)} for rare in RARE}
    plain = {one: one.without(".*") for one in missing}
    there = _existing(prometheus, {*plain.values(), *(one for found in looser.values() for one in found.values())}, _FAR_BACK)
    sources = dict(_sources(uses, missing))
    for one in missing:
        excuses = [rare.why for rare, found in looser.items() if one in found and (found[one] in there) == bool(rare.condition)]
        if all(optional for _, optional in uses[one]):
            excuses.append("only read within absent() or right of unless")
        if one.name in sources:
            excuses.append(f"recorded from {sources[one.name]}, which is missing itself")
        mistake = "there is such a metric, but not with these labels" if plain[one] in there else "there is no such metric"
        where = tuple(dict.fromkeys(reading.where for reading, _ in uses[one]))
        yield Dead(one.text, where, _part(one.called), excuses[0] if excuses else mistake, bool(excuses))


def _sources(uses: Uses, missing: Collection[Selector]) -> Iterator[tuple[str, str]]:
    """Return what recorded series lack to be there."""
    for one in missing:
        for reading, optional in uses[one]:
            if reading.record not in ("", one.name) and not optional:
                yield reading.record, one.text


def _looser(one: Selector, rare: Rare) -> Selector:
    if rare.condition:
        return one.without(rare.condition)
    return rare.source or Selector("", (("__name__", "=~", rare.names),))


def _part(name: str) -> str:
    return next((part for prefix, part in PARTS.items() if name.startswith(prefix)), "prometheus")
