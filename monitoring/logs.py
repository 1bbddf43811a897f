"""Reading logs: `inv monitoring.logs`, by questions in Loki's own language or by a word."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Protocol

from ops.errors import ConfigError

PAGE = 2000  # Loki gives 5000 at most
BURST = 50_000  # lines between two looks, when following
LATE = 15 * 10**9  # nanoseconds that a line may come after younger ones: collectors batch, servers differ


class Loki(Protocol):
    """What is asked."""

    def query_range(self, query: str, start: int, end: int, limit: int, direction: str) -> list[dict[str, Any]]:
        """Return streams with their lines; start and end in nanoseconds since 1970, the end itself is left out."""


@dataclass(frozen=True)
class Line:
    """A line, or the lines of one entry; time in nanoseconds since 1970."""

    time: int
    labels: Mapping[str, str]
    text: str

    @property
    def identity(self) -> tuple[int, str, tuple[tuple[str, str], ...]]:
        """What tells it from every other."""
        return self.time, self.text, tuple(sorted(self.labels.items()))


def question(app: str, wanted: str) -> str:
    """Return the query: all of the app's logs, those with a text in them, or what was asked as it is."""
    if wanted.lstrip().startswith("{"):
        return wanted
    everything = f"{{app={json.dumps(app)}}}"
    return f"{everything} |= {json.dumps(wanted, ensure_ascii=False)}" if wanted else everything


def read(loki: Loki, query: str, start: int, end: int, limit: int) -> list[Line]:
    """Return the newest lines of a time, oldest first."""
    return list(islice(_backwards(loki, query, start, end), limit))[::-1]


def follow(loki: Loki, query: str, start: int, now: Callable[[], int], wait: Callable[[], None]) -> Iterator[Line]:
    """Yield lines as they come, for ever; waits between two questions that brought nothing."""
    seen: dict[tuple[Any, ...], int] = {}
    while True:
        fresh = [line for line in read(loki, query, start, now() + LATE, BURST) if line.identity not in seen]
        yield from fresh
        seen |= {line.identity: line.time for line in fresh}
        start = max(start, now() - LATE)
        seen = {identity: time for identity, time in seen.items() if time >= start}
        if not fresh:
            wait()


def text(line: Line) -> str:
    """Return a line for the terminal: when, which container of which server, what."""
    when = datetime.fromtimestamp(line.time / 10**9).astimezone().isoformat(" ", "milliseconds")[:-6]
    return f"{when} {line.labels.get('container', line.labels.get('unit', '-'))}@{line.labels.get('host', '-')} {line.text}"


def document(line: Line) -> dict[str, Any]:
    """Return a line for a program."""
    return {"time": line.time, "labels": dict(line.labels), "line": line.text}


def _backwards(loki: Loki, query: str, start: int, end: int) -> Iterator[Line]:
    """Yield lines from the newest, page by page; those at a page's very edge come in both and are yielded once."""
    edge: set[tuple[Any, ...]] = set()
    while True:
        page = _page(loki, query, start, end)
        fresh = [line for line in page if line.identity not in edge]
        yield from fresh
        if len(page) < PAGE or not fresh:
            return
        oldest = page[-1].time
        edge = {line.identity for line in page if line.time == oldest}
        end = oldest + 1


def _page(loki: Loki, query: str, start: int, end: int) -> list[Line]:
    streams = loki.query_range(query, start, end, PAGE, "backward")
    if any("metric" in stream for stream in streams):
        raise ConfigError(
            "that query gives numbers, not lines",
            where=query,
            fix="leave out rate, count_over_time and the like, or ask in Grafana (Explore)",
        )
    lines = [Line(int(value[0]), stream["stream"], value[1]) for stream in streams for value in stream["values"]]
    return sorted(lines, key=lambda line: line.time, reverse=True)
