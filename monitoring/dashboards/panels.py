"""What dashboards are made of: panels in rows, thresholds, variables. Pure data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Self

from monitoring.dashboards.queries import Datasource, Query

Steps = tuple[tuple[float | None, str], ...]

TAG = "tidegate"
COLUMNS = 24  # of Grafana's grid


def rising(warning: float, critical: float) -> Steps:
    """Return thresholds for a figure that is better the lower it is."""
    return ((None, "green"), (warning, "orange"), (critical, "red"))


def falling(critical: float, warning: float) -> Steps:
    """Return thresholds for a figure that is better the higher it is."""
    return ((None, "red"), (critical, "orange"), (warning, "green"))


def at_least(bound: float, color: str = "red") -> Steps:
    """Return thresholds for a figure that is fine below a bound."""
    return ((None, "green"), (bound, color))


YES = ((None, "red"), (1, "green"))  # 1 is as it should be
NO = at_least(1)


@dataclass(frozen=True)
class Panel:
    """One picture; `alerts` are those whose runbooks belong to it, `board` is the dashboard that tells more."""

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = "short"
    thresholds: Steps = ()
    alerts: tuple[str, ...] = ()
    board: str = ""
    width: int = 1  # beside the others of its row

    def without(self, parts: frozenset[str]) -> Self | None:
        """Return it with the queries that can be answered, if there are any."""
        kept = tuple(query for query in self.queries if not query.needs & parts)
        return replace(self, queries=kept) if kept else None


class Graph(Panel):
    """Lines over time."""


class Area(Panel):
    """Lines over time, stacked."""


class Stat(Panel):
    """The newest value of each series, big."""


class Bars(Panel):
    """The newest value of each series as a bar."""


class Switches(Panel):
    """Something that is up or down, over time."""


@dataclass(frozen=True)
class Table(Panel):
    """The newest values side by side, a column for each label and each query that has a legend."""

    labels: tuple[str, ...] = ()
    empty: str = "nothing"


class Lines(Panel):
    """Log lines."""


@dataclass(frozen=True)
class Row:
    """Panels beside each other; a title begins a section."""

    height: int
    panels: tuple[Panel, ...]
    title: str = ""


@dataclass(frozen=True)
class Choice:
    """A variable whose values are those that a label has; without a label, free text."""

    name: str
    label: str = ""
    series: str = ""
    source: Datasource = "prometheus"


HOSTS = Choice("host", "host", "up")
APPS = Choice("app", "app", "tidegate:expected_container")


@dataclass(frozen=True)
class Board:
    """A dashboard."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]
    choices: tuple[Choice, ...] = field(default=())
    since: str = "now-6h"
    refresh: str = "30s"

    @property
    def uid(self) -> str:
        """Its address in Grafana."""
        return f"{TAG}-{self.name}"

    def without(self, parts: frozenset[str]) -> Board:
        """Return it without what needs one of these parts."""
        kept = ((row, tuple(panel for one in row.panels if (panel := one.without(parts)))) for row in self.rows)
        return replace(self, rows=tuple(replace(row, panels=panels) for row, panels in kept if panels))


@dataclass(frozen=True)
class Place:
    """Where something is on the grid: a panel, or the title of a section."""

    what: Panel | str
    x: int
    y: int
    width: int
    height: int


def place(rows: tuple[Row, ...]) -> Iterator[Place]:
    """Lay rows out from top to bottom; the panels of each fill its whole width."""
    y = 0
    for row in rows:
        if row.title:
            yield Place(row.title, 0, y, COLUMNS, 1)
            y += 1
        total, before = sum(panel.width for panel in row.panels), 0
        for panel in row.panels:
            x, end = (COLUMNS * part // total for part in (before, before + panel.width))
            yield Place(panel, x, y, end - x, row.height)
            before += panel.width
        y += row.height
