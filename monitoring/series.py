"""Which series rules and dashboards name, by what Prometheus itself makes of their expressions. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from monitoring.files import File
from ops.errors import ConfigError

RULES, LOG_RULES, DASHBOARDS = "prometheus/rules/", "loki/rules/", "grafana/dashboards/"

Matcher = tuple[str, str, str]  # label, operator, value


@dataclass(frozen=True)
class Selector:
    """A choice of series: a name and what else is asked of labels."""

    name: str
    matchers: tuple[Matcher, ...]

    @property
    def text(self) -> str:
        """Return it as it is written."""
        inside = ",".join(written(one) for one in self.matchers)
        return f"{self.name}{{{inside}}}" if inside else self.name

    @property
    def called(self) -> str:
        """Return its name, or what is asked of it."""
        return self.name or next((value for label, _, value in self.matchers if label == "__name__"), "")

    def without(self, conditions: str) -> Selector:
        """Return it without what it asks of labels where that is written like one of the conditions."""
        kept = tuple(
            one for one in self.matchers if one[0] == "__name__" or not re.fullmatch(conditions, written(one), re.DOTALL)
        )
        return replace(self, matchers=kept)


@dataclass(frozen=True)
class Reading:
    """An expression, where it stands, and what series it records, if it does."""

    where: str
    expression: str
    record: str = ""


def written(matcher: Matcher) -> str:
    """Return a condition on a label as PromQL has it."""
    label, operator, value = matcher
    return f"{label}{operator}{json.dumps(value, ensure_ascii=False)}"


def readings(files: Sequence[File]) -> Iterator[Reading]:
    """Return every PromQL expression of the rules and dashboards."""
    for file in files:
        name = file.path.rpartition("/")[2]
        if file.path.startswith(RULES):
            for rule in rules_of(file):
                record = rule.get("record", "")
                yield Reading(f"{name} {record or rule['alert']}", str(rule["expr"]), record)
        elif file.path.startswith(DASHBOARDS):
            document = json.loads(file.content)
            for title, target in _targets(document):
                yield Reading(f"{document['title']}: {title}", target["expr"])


def rules_of(file: File) -> Iterator[Mapping[str, Any]]:
    """Return the rules of a file. Raises ConfigError."""
    try:
        groups = (yaml.safe_load(file.content) or {}).get("groups")
    except yaml.YAMLError as error:
        raise ConfigError("a file of rules is no YAML", where=file.path, why=str(error)) from None
    for group in groups or ():
        yield from group.get("rules") or ()


def panels_of(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return a dashboard's panels, those within closed rows too."""
    for panel in document.get("panels") or ():
        yield panel
        yield from panels_of(panel)


def selectors(tree: Mapping[str, Any], *, optional: bool = False) -> Iterator[tuple[Selector, bool]]:
    """Return the selectors of a parsed expression; optional are those within absent() and right of `unless`."""
    if tree["type"] in ("vectorSelector", "matrixSelector"):
        yield _selector(tree), optional
    optional |= str((tree.get("func") or {}).get("name")).startswith("absent")
    right = optional or tree.get("op") == "unless"
    parts = [(tree.get(key), right if key == "rhs" else optional) for key in ("lhs", "rhs", "expr", "param")]
    for part, may_be_empty in (*parts, *((one, optional) for one in tree.get("args") or ())):
        if part:
            yield from selectors(part, optional=may_be_empty)


def askable(expression: str) -> str:
    """Return an expression of a dashboard with durations where Grafana would put some."""
    return _DURATION.sub("5m", expression)


_DURATION = re.compile(r"\$(?:__(?:rate_)?interval|__range|\{__(?:rate_)?interval\}|\{__range\})(?!\w)")
_VARIABLE = re.compile(r"\$[a-zA-Z_{]")


def _targets(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for panel in panels_of(document):
        for target in panel.get("targets") or ():
            source = target.get("datasource") or panel.get("datasource") or {}
            if target.get("expr") and source.get("type") == "prometheus":
                yield panel.get("title", ""), target
    for one in (document.get("annotations") or {}).get("list") or ():
        if one.get("expr"):
            yield one["name"], one


def _selector(tree: Mapping[str, Any]) -> Selector:
    """Return a selector; what a dashboard's variable decides is not asked."""
    asked = [(one["name"], one["type"], one["value"]) for one in tree["matchers"]]
    told = [one for one in asked if not _VARIABLE.search(one[2]) and one != ("__name__", "=", tree["name"])]
    return Selector(tree["name"], tuple(told))
