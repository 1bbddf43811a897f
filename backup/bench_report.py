"""The figures of backups in words: medians, ratios, targets, and the generated part of docs/benchmarks.md. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

BEGIN, END = "<!-- begin: written by `nox -s bench_backups` -->", "<!-- end -->"
TARGETS = {"save": 1.10, "prove": 0.60, "memory": 40.0, "flat": 1.10, "share": 3.0}
COLUMNS = ("what", "unit", "baseline", "Tidegate", "ratio", "target", "")
PHASE_COLUMNS = ("source", "MB", "stored MB", "until it saves", "save", "prove and publish", "all", "CPU: own", "compressors", "toolbox",
                 "server", "MiB")  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One run of the program: seconds until it saved, until it had saved, until it was gone; CPU seconds; MiB at its peak.

    `cpu` is the program's own, `children` that of compressors and the like, `toolbox` that of programs in containers,
    `server` that of the database's server.
    """

    seconds: float
    began: float = 0.0
    saved: float = 0.0
    cpu: float = 0.0
    children: float = 0.0
    toolbox: float = 0.0
    server: float = 0.0
    memory: float = 0.0
    bytes: int = 0

    @property
    def saving(self) -> float:
        """Return the seconds from the first byte asked for to the last one saved."""
        return self.saved - self.began

    @property
    def proof(self) -> float:
        """Return the seconds from the saved bytes to the end: decoding, publishing, expiry."""
        return self.seconds - self.saved

    @property
    def share(self) -> float:
        """Return the program's own part of the CPU that the whole pipeline took, in per cent."""
        return 100 * self.cpu / (self.cpu + self.children + self.toolbox + self.server)


@dataclass
class Saves:
    """The runs over one source, and what the same takes by hand, in seconds: interleaved with them."""

    source: str
    megabytes: float
    runs: list[Run] = field(default_factory=list)
    by_hand: dict[str, list[float]] = field(default_factory=dict)

    def middle(self, name: str) -> float:
        """Return the median of a figure."""
        return median(float(getattr(run, name)) for run in self.runs)

    def ratio(self, name: str, way: str) -> float:
        """Return the median of the ratios of neighbours, which a slow moment of the machine meets alike."""
        return median(float(getattr(run, name)) / one for run, one in zip(self.runs, self.by_hand[way], strict=True))


@dataclass(frozen=True)
class Figure:
    """One thing measured; a target is for the ratio where there is a baseline, else for the value."""

    what: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool | None:
        """Tell whether the target is met, None without one."""
        return None if self.most is None else (self.value if self.ratio is None else self.ratio) <= self.most


def figures(found: Sequence[Saves]) -> list[Figure]:
    """Return what follows from runs."""
    return [figure for one in found for figure in _figures(one)] + [
        _flat(one, found) for one in found if one is not _first(one, found)
    ]


def _figures(one: Saves) -> Iterator[Figure]:
    targets = TARGETS if one.source == "PostgreSQL" else {}
    what = f"{one.source}, {one.megabytes:.0f} MB"
    saved = one.middle("saved")
    for way, seconds in one.by_hand.items():
        yield Figure(f"{what}: save, against {way}", saved, "s", median(seconds), one.ratio("saved", way), targets.get("save"))
    more = median(run.proof / run.saved for run in one.runs)
    yield Figure(f"{what}: prove and publish, against save", one.middle("proof"), "s", saved, more, targets.get("prove"))
    yield Figure(f"{what}: the program's peak memory", one.middle("memory"), "MiB", most=TARGETS["memory"])
    if one.middle("toolbox"):  # SQLite is copied and checked by the program itself
        yield Figure(f"{what}: the program's own CPU, of the pipeline's", one.middle("share"), "%", most=TARGETS["share"])


def _flat(one: Saves, found: Sequence[Saves]) -> Figure:
    small, value = _first(one, found), one.middle("memory")
    what = f"{one.source}: peak memory at {one.megabytes:.0f} MB, against {small.megabytes:.0f} MB"
    return Figure(what, value, "MiB", small.middle("memory"), value / small.middle("memory"), TARGETS["flat"])


def _first(one: Saves, found: Sequence[Saves]) -> Saves:
    return next(other for other in found if other.source == one.source)


def row(one: Figure) -> tuple[str, ...]:
    """Return a figure as cells."""
    numbers = ("" if known is None else f"{known:.2f}" for known in (one.baseline, one.value, one.ratio))
    target = "" if one.most is None else f"≤ {one.most:.2f}"
    return (one.what, one.unit, *numbers, target, {None: "", True: "✓", False: "✗"}[one.met])


def phase_row(one: Saves) -> tuple[str, ...]:
    """Return where the seconds of a run go, medians."""
    names = ("began", "saving", "proof", "seconds", "cpu", "children", "toolbox", "server")
    seconds = (f"{one.middle(name):.2f}" for name in names)
    return (one.source, f"{one.megabytes:.0f}", f"{one.middle('bytes') / 1e6:.0f}", *seconds, f"{one.middle('memory'):.0f}")


def page(about: Mapping[str, Any], found: Sequence[Saves], all_figures: Sequence[Figure]) -> str:
    """Return the generated part of docs/benchmarks.md."""
    facts = "\n".join(f"- {key}: {value}" for key, value in about.items())
    parts = (facts, _table(COLUMNS, map(row, all_figures)), "Where the seconds go, medians:",
             _table(PHASE_COLUMNS, map(phase_row, found)))  # fmt: skip
    return "\n\n".join(parts)


def replaced(document: str, generated: str) -> str:
    """Put the generated part between its marks. Raises ValueError where there are none."""
    marked = re.compile(f"({re.escape(BEGIN)}).*?({re.escape(END)})", re.DOTALL)
    text, times = marked.subn(lambda at: f"{at[1]}\n\n{generated}\n\n{at[2]}", document)
    if times != 1:
        raise ValueError(f"{BEGIN} … {END} should be there once, not {times} times")
    return text


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (columns, ["---"] * len(columns), *rows)
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
