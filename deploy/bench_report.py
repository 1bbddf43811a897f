"""The benchmark's figures in words: medians, ratios, tables, and the part of docs/benchmarks.md that is generated. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from deploy.bench_lab import LINES, VARIANTS, Run, Setting
from deploy.bench_ship import WAYS

BEGIN, END = "<!-- begin: written by `nox -s bench` -->", "<!-- end -->"
FRONT = ("build", "ship", "migrate", "start", "healthy", "switch", "verify", "drain", "prune")
KAMAL = (
    ("deploy of a changed layer, loopback", "6.3 s"), ("rollback, loopback", "4.2 s"), ("deploy to 4 servers, loopback", "9.5 s"),
    ("deploy of a changed layer, 50 ms and 20 Mbit/s", "10.0 s"), ("rollback, 50 ms and 20 Mbit/s", "5.2 s"),
    ("deploy to 4 servers, 50 ms and 20 Mbit/s", "13.1 s"), ("received by the server for a 700 kB change", "744 kB"),
    ("an unhealthy version is refused after", "35.9 s"), ("commands over its one SSH connection", "31"), ("memory", "211 MiB"),
)  # fmt: skip
COLUMNS = ("what", "app", "line", "servers", "seconds", "from, to", "× by hand", "CPU", "kB received", "SSH", "trips", "MiB")


@dataclass
class Measured:
    """The runs of one thing in one setting."""

    what: str
    setting: Setting
    runs: list[Run] = field(default_factory=list)

    def middle(self, name: str) -> float:
        """Return the median of a figure."""
        return median(float(getattr(run, name)) for run in self.runs)

    def phases(self) -> dict[str, float]:
        """Return the median seconds of every phase, and of what is outside them."""
        names = [name for name in FRONT if any(name in run.phases for run in self.runs)]
        names += sorted({name for run in self.runs for name in run.phases} - set(FRONT))
        return {name: median(run.phases.get(name, 0.0) for run in self.runs) for name in names}


@dataclass(frozen=True)
class Baseline:
    """What the same takes by hand over the same line in the same run, medians in seconds."""

    ssh: float
    start: float


def row(one: Measured, baselines: Mapping[str, Baseline]) -> tuple[str, ...]:
    """Return a measurement as cells."""
    seconds = [run.seconds for run in one.runs]
    by_hand = baselines[one.setting.line].start
    return (
        one.what, one.setting.variant, one.setting.line, str(one.setting.hosts), f"{one.middle('seconds'):.2f}",
        f"{min(seconds):.2f}, {max(seconds):.2f}", f"{one.middle('seconds') / by_hand:.1f}", f"{one.middle('cpu'):.2f}", f"{one.middle('received') / 1000:.0f}",
        f"{one.middle('connections'):.0f}", f"{one.middle('round_trips'):.0f}" if one.middle("round_trips") else "",
        f"{one.middle('memory'):.0f}",
    )  # fmt: skip


def phase_row(one: Measured) -> tuple[str, ...]:
    """Return how the seconds of a measurement are spent; the rest is start-up, connecting, looking, leaving."""
    phases = one.phases()
    rest = one.middle("seconds") - sum(phases.values())
    return (one.what, one.setting.variant, one.setting.line, str(one.setting.hosts),
            *(f"{phases[name]:.2f}" if name in phases else "" for name in FRONT), f"{rest:.2f}")  # fmt: skip


PHASE_COLUMNS = ("what", "app", "line", "servers", *FRONT, "rest")
SHIP_COLUMNS = ("way", "line", "seconds", "kB received")
TARGET_COLUMNS = ("what", "target", "measured", "")


def ship_rows(shipping: Mapping[str, Mapping[str, Sequence[Run]]]) -> list[tuple[str, ...]]:
    """Return the ways of shipping, as cells."""
    return [
        (WAYS[way], line, f"{median(run.seconds for run in runs):.2f}", f"{median(run.received for run in runs) / 1000:.0f}")
        for line, ways in shipping.items() for way, runs in ways.items()
    ]  # fmt: skip


def targets(found: Iterable[Measured]) -> list[tuple[str, str, str, str]]:
    """Return the targets that were measured, and whether they are met."""
    known = {(one.what, one.setting): one for one in found}
    rows: list[tuple[str, str, str, str]] = []
    for variant in VARIANTS:
        for what, line, figure, most, text in _TARGETS:
            one = known.get((what, Setting(variant, line, 1)))
            if one and (value := _figure(one, figure)) is not None:
                rows.append((f"{text}, {line}, {variant}", f"≤ {most:g}", f"{value:.2f}", "✓" if value <= most else "✗"))
        one, several = known.get(("changed", Setting(variant, "loopback", 1))), _widest(known, variant)
        if one and several:
            ratio = several.middle("seconds") / one.middle("seconds")
            what = f"{several.setting.hosts} servers against 1, {variant}"
            rows.append((what, "≤ 1.5 ×", f"{ratio:.2f} ×", "✓" if ratio <= 1.5 else "✗"))
    return rows


_TARGETS = (
    ("changed", "loopback", "seconds", 3.0, "deploy of a changed layer, s"),
    ("changed", "slow", "seconds", 5.0, "deploy of a changed layer, s"),
    ("changed", "loopback", "switch", 0.3, "green healthy → every new request on green, s"),
    ("rollback", "loopback", "seconds", 1.5, "rollback, s"),
    ("rollback", "slow", "seconds", 3.0, "rollback, s"),
    ("changed", "loopback", "kilobytes", 740.0, "received for a 700 kB change, kB"),
    ("unchanged", "loopback", "kilobytes", 20.0, "received for an unchanged version, kB"),
    ("crash", "loopback", "after_crash", 2.0, "refused after the crash, s"),
    ("changed", "loopback", "connections", 2.0, "SSH connections"),
)


def _figure(one: Measured, name: str) -> float | None:
    if name == "kilobytes":
        return one.middle("received") / 1000
    if name == "switch":
        return one.phases().get("switch")
    return one.middle(name)


def _widest(known: Mapping[tuple[str, Setting], Measured], variant: str) -> Measured | None:
    alike = (one for (what, at), one in known.items() if what == "changed" and (at.variant, at.line) == (variant, "loopback"))
    return max((one for one in alike if one.setting.hosts > 1), key=lambda one: one.setting.hosts, default=None)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def page(about: Mapping[str, Any], found: Sequence[Measured], baselines: Mapping[str, Baseline],
         shipping: Mapping[str, Mapping[str, Sequence[Run]]]) -> str:  # fmt: skip
    """Return the generated part of docs/benchmarks.md."""
    hand = [(line, f"{LINES[line][0] * 1000:.0f} ms", f"{one.ssh:.2f}", f"{one.start:.2f}") for line, one in baselines.items()]
    facts = "\n".join(f"- {key}: {value}" for key, value in about.items())
    parts = [
        f"## The run\n\n{facts}",
        "## Targets\n\n" + markdown(TARGET_COLUMNS, targets(found)),
        "## By hand, in the same run\n\nThe unit of the column “× by hand” below: one SSH command that starts the same image and waits until"
        " it is healthy. No build, no transfer, no switch, no proof.\n\n"
        + markdown(("line", "round trip", "`ssh host true`, s", "`docker run` until healthy, s"), hand),
        "## Commands\n\nFrom the command typed to the prompt back, medians; CPU is what this machine spent on it, in seconds; bytes, connections and round trips are those of the busiest server;"
        " MiB is the largest process.\n\n" + markdown(COLUMNS, [row(one, baselines) for one in found]),
        "## Phases\n\nSeconds, medians. The rest is start-up, connecting, looking at the servers, the journal and leaving.\n\n"
        + markdown(PHASE_COLUMNS, [phase_row(one) for one in found if one.phases()]),
        "## Ways of shipping\n\nThe same changed image to one server, over a connection that is open already.\n\n"
        + markdown(SHIP_COLUMNS, ship_rows(shipping)),
        "## Kamal 2.11\n\nNot from this run: measured by us earlier on the same kind of machine, with a registry beside it.\n\n"
        + markdown(("what", "Kamal 2.11"), KAMAL),
    ]  # fmt: skip
    return "\n\n".join(parts)


def replaced(document: str, generated: str) -> str:
    """Put the generated part between its marks, at the end where there are none."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        return f"{document.rstrip()}\n\n{BEGIN}\n\n{generated}\n\n{END}\n"
    return f"{head}{BEGIN}\n\n{generated}\n\n{END}{tail}"
