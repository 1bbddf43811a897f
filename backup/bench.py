"""`python -m backup.bench`: backups, measured beside the same by hand in the same run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from backup import bench_report as report
from backup.agent.model import Source
from backup.bench_lab import Lab
from backup.bench_report import Figure, Saves
from ops.console import Console
from ops.errors import TidegateError
from ops.interrupts import interrupt_once

REPOSITORY = Path(__file__).resolve().parent.parent
ROOT = REPOSITORY / ".tidegate" / "bench-backups"
RESULT = REPOSITORY / ".tidegate" / "bench-backups.json"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
BY_HAND = "`docker exec … pg_dump -Fc -Z0 | zstd -3`"
BY_PIPE = "the same through a named pipe, without the engine between"
COPIED = "SQLite's online backup, then `zstd -3`"
Ways = dict[str, Callable[[], float]]


class Bench:
    """One run of the benchmark."""

    def __init__(self, lab: Lab, console: Console) -> None:
        self._lab = lab
        self._console = console
        self.saves: list[Saves] = []
        self.others: list[Figure] = []

    def postgres(self, megabytes: float, repetitions: int) -> None:
        """Save a PostgreSQL database of that size, by hand and by the program in turn."""
        database = f"size_{megabytes:.0f}"
        self._console.say(f"filling a PostgreSQL database with {megabytes:.0f} MB")
        size = self._lab.fill(database, megabytes)
        ways = {BY_HAND: lambda: self._lab.by_hand(database), BY_PIPE: lambda: self._lab.by_pipe(database)}
        self._measure(Saves("PostgreSQL", size), self._lab.postgres(database), ways, repetitions)

    def sqlite(self, megabytes: float, repetitions: int) -> None:
        """Save an SQLite file of that size."""
        name = f"size_{megabytes:.0f}.db"
        self._console.say(f"filling an SQLite file with {megabytes:.0f} MB")
        size = self._lab.fill_sqlite(name, megabytes)
        self._measure(Saves("SQLite", size), self._lab.sqlite(name), {COPIED: lambda: self._lab.copy_by_hand(name)}, repetitions)

    def restore(self) -> None:
        """Restore what was saved last into a throwaway, as a drill does."""
        last = self.saves[-1]
        run = self._lab.watch("verify", "--level", "restore")
        self.others.append(
            Figure(f"{last.source}, {last.megabytes:.0f} MB: restored into a throwaway and compared", run.seconds, "s")
        )

    def start(self, repetitions: int) -> None:
        """Start the program and have it do nothing."""
        pairs = [self._lab.start() for _ in range(repetitions)]
        ours, python = (median(seconds) for seconds in zip(*pairs, strict=True))
        self.others.append(Figure("the program's start, against Python's own", ours, "s", python, ours / python))

    def _measure(self, saves: Saves, source: Source, ways: Ways, repetitions: int) -> None:
        """Measure in turn, over and over, so that a slow moment of the machine meets all alike."""
        self.saves.append(saves)
        for _ in range(repetitions):
            for way, take in ways.items():
                saves.by_hand.setdefault(way, []).append(take())
            run = self._lab.take(source)
            saves.runs.append(run)
            by_hand = ", ".join(f"{seconds[-1]:.2f} s" for seconds in saves.by_hand.values())
            self._console.say(
                f"  by hand {by_hand}; saved after {run.saved:.2f} s, proved after {run.seconds:.2f} s, {run.memory:.0f} MiB"
            )

    @property
    def figures(self) -> list[Figure]:
        """Return all figures."""
        return [*report.figures(self.saves), *self.others]


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure, show, write down."""
    about = facts(options)
    repetitions = about["repetitions"]
    with Lab(ROOT) as lab:
        bench = Bench(lab, console)
        for megabytes, times in ((options.size, repetitions), (options.large, 1)):
            bench.sqlite(megabytes, times)
            bench.postgres(megabytes, times)
            bench.restore()
        bench.start(2 * repetitions)
    about["load at the end"] = f"{os.getloadavg()[0]:.1f}"
    console.table("backups", report.COLUMNS, map(report.row, bench.figures))
    console.table("where the seconds go, medians", report.PHASE_COLUMNS, map(report.phase_row, bench.saves))
    file = options.json or RESULT
    file.write_text(json.dumps(document(about, bench), indent=1) + "\n")
    console.say(f"details: {file}")
    if not options.quick:
        PAGE.write_text(report.replaced(PAGE.read_text(), report.page(about, bench.saves, bench.figures)))
        console.say(f"written: {PAGE}")
    return 0


def document(about: dict[str, Any], bench: Bench) -> dict[str, Any]:
    """Return everything for JSON."""
    return {
        **about,
        "figures": [{**asdict(one), "met": one.met} for one in bench.figures],
        "saves": [asdict(one) for one in bench.saves],
    }


def facts(options: argparse.Namespace) -> dict[str, Any]:
    """Return what is to be known about the machine and the run."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m backup.bench {shlex.join(sys.argv[1:])}".strip(),
        "machine": f"{os.cpu_count()} cores, {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB, {platform.machine()}",
        "load at the beginning": f"{os.getloadavg()[0]:.1f}",
        "kernel": platform.release(),
        "repetitions": 1 if options.quick else options.repetitions,
    }


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m backup.bench", description="Measure backups.")
    parser.add_argument("--quick", action="store_true", help="once, and of little; docs are not touched")
    parser.add_argument("--repetitions", type=int, default=5, help="how often; medians are shown (default: 5)")
    parser.add_argument("--size", type=float, metavar="MB", help="of what is saved over and over (default: 350)")
    parser.add_argument("--large", type=float, metavar="MB", help="of what is saved once (default: 2048)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help=f"where to write all figures (default: {RESULT.relative_to(REPOSITORY)})"
    )
    options = parser.parse_args(arguments)
    options.size = options.size or (60 if options.quick else 350)
    options.large = options.large or (240 if options.quick else 2048)
    console = Console()
    interrupt_once()
    try:
        return run(options, console)
    except TidegateError as error:
        console.say(f"✗ {error}", "red")
        return error.exit_code
    except KeyboardInterrupt:
        console.say("✗ interrupted; everything is removed", "red")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
