"""The figures of backups in words: medians, ratios, targets, and the generated part of docs/benchmarks.md. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

BEGIN, END = "<!-- begin: written by `nox -s bench_backups` -->", "<!-- end -->"
COLUMNS = ("what", "unit", "baseline", "Tidegate", "ratio", "target", "")
PHASE_COLUMNS = (
    "source",
    "MB",
    "stored MB",
    "until it saves",
    "save",
    "prove and publish",
    "all",
    "own CPU",
    "CPU of the programs",
    "MiB",
)


@dataclass(frozen=True)
class Run:
    """One run of the program: seconds until it saved, until it had saved, until it was gone; CPU seconds; MiB at its peak.

    `cpu` is the program's own, `children` that of compressors and the like, `toolbox` that of programs in containers.
    """

    seconds: float
    began: float = 0.0
    saved: float = 0.0
    cpu: float = 0.0
    children: float = 0.0
    toolbox: float = 0.0
    memory: float = 0.0
    bytes: int = 0

    @property
    def proof(self) -> float:
        """Return the seconds from the saved bytes to the end: decoding, publishing, expiry."""
        return self.seconds - self.saved

    @property
    def share(self) -> float:
        """Return the program's own part of the CPU that the whole pipeline took, in per cent."""
        return 100 * self.cpu / (self.cpu + self.children + self.toolbox)


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
        return median(getattr(run, name) / one for run, one in zip(self.runs, self.by_hand[way], strict=True))


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


def figures(found: Iterable[Saves]) -> list[Figure]:
    """Return what follows from runs."""
    known: list[Figure] = []
    for one in found:
        what = f"{one.source}, {one.megabytes:.0f} MB"
        for way, seconds in one.by_hand.items():
            most = 1.10 if one.source == "PostgreSQL" else None
            known.append(
                Figure(f"{what}: save, against {way}", one.middle("saved"), "s", median(seconds), one.ratio("saved", way), most)
            )
        ratio = median(run.proof / run.saved for run in one.runs)
        known.append(Figure(f"{what}: prove and publish, against save", one.middle("proof"), "s", one.middle("saved"), ratio,
                            0.60 if one.source == "PostgreSQL" else None))  # fmt: skip
        known.append(Figure(f"{what}: the program's peak memory", one.middle("memory"), "MiB", most=40.0))
        if one.middle("toolbox"):
            known.append(Figure(f"{what}: the program's own CPU, of the pipeline's", one.middle("share"), "%", most=3.0))
    return known


def row(one: Figure) -> tuple[str, ...]:
    """Return a figure as cells."""
    target = "" if one.most is None else f"≤ {one.most:g}"
    met = {None: "", True: "✓", False: "✗"}[one.met]
    return (
        one.what,
        one.unit,
        *("" if known is None else f"{known:.2f}" for known in (one.baseline, one.value, one.ratio)),
        target,
        met,
    )


def phase_row(one: Saves) -> tuple[str, ...]:
    """Return where the seconds of a run go, medians."""
    programs = one.middle("children") + one.middle("toolbox")
    saving = median(run.saved - run.began for run in one.runs)
    seconds = (one.middle("began"), saving, one.middle("proof"), one.middle("seconds"), one.middle("cpu"), programs)
    return (one.source, f"{one.megabytes:.0f}", f"{one.middle('bytes') / 1e6:.0f}", *(f"{known:.2f}" for known in seconds),
            f"{one.middle('memory'):.0f}")  # fmt: skip


def page(about: Mapping[str, Any], found: Sequence[Saves], all_figures: Sequence[Figure]) -> str:
    """Return the generated part of docs/benchmarks.md."""
    facts = "\n".join(f"- {key}: {value}" for key, value in about.items())
    return "\n\n".join(
        (facts, _table(COLUMNS, map(row, all_figures)), "Seconds, medians:", _table(PHASE_COLUMNS, map(phase_row, found)))
    )


def replaced(document: str, generated: str) -> str:
    """Put the generated part between its marks. Raises ValueError where there are none."""
    text, times = re.subn(
        f"({re.escape(BEGIN)}).*?({re.escape(END)})", lambda at: f"{at[1]}\n\n{generated}\n\n{at[2]}", document, flags=re.S
    )
    if times != 1:
        raise ValueError(f"{BEGIN} … {END} should be there once, not {times} times")
    return text


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
        for line in (columns, ["---"] * len(columns), *rows)
    )
