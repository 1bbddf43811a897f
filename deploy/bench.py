"""`python -m deploy.bench`: deploys and rollbacks, measured from the command typed to the prompt back, on servers of its own."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from deploy import bench_report as report
from deploy import bench_ship
from deploy.bench_lab import LINES, Lab, Run, Setting
from deploy.bench_report import Baseline, Measured
from deploy.demo_project import REPOSITORY
from ops import local_engine
from ops.console import Console
from ops.errors import TidegateError
from ops.interrupts import interrupt_once
from ops.this_machine import local_client

ROOT = REPOSITORY / ".tidegate" / "bench"
RESULT = REPOSITORY / ".tidegate" / "bench.json"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
ALL = ("changed", "unchanged", "built", "rollback", "crash")
SEVERAL = ("changed", "rollback")
FULL = (
    *((Setting(variant, line, 1), ALL) for variant in ("web", "full") for line in LINES),
    *((Setting(variant, line, 4), SEVERAL) for variant in ("web", "full") for line in LINES),
)
QUICK = (
    (Setting("full", "loopback", 1), ("changed", "unchanged", "rollback", "crash")),
    (Setting("full", "slow", 1), SEVERAL),
    (Setting("full", "loopback", 2), ("changed",)),
)


class Bench:
    """One run of the benchmark."""

    def __init__(self, lab: Lab, console: Console, repetitions: int) -> None:
        self._lab = lab
        self._console = console
        self._repetitions = repetitions
        self.found: list[Measured] = []
        self.baselines: dict[str, Baseline] = {}
        self.shipping: dict[str, dict[str, list[Run]]] = {}

    def measure(self, setting: Setting, whats: Sequence[str]) -> None:
        """Measure those things in turn, over and over, so that a slow moment of the machine meets all alike."""
        if setting.hosts > 1 and "rollback" in whats:  # servers that had less to do keep other releases
            self._once("changed", setting)
        found = [Measured(what, setting) for what in whats]
        for _ in range(self._repetitions):
            for one in found:
                run = self._once(one.what, setting)
                one.runs.append(run)
                self._console.say(
                    f"  {one.what:<10}{setting.environment:<18}{run.seconds:7.2f} s   {run.received / 1000:7.0f} kB"
                )
        self.found += found

    def _once(self, what: str, setting: Setting) -> Run:
        if what == "crash":
            return self._lab.crash(setting)
        if what == "rollback":
            return self._lab.watch(setting, "deploy.rollback", "--json")
        if what != "unchanged":
            self._lab.change()
        if what == "built":
            self._lab.watch(setting, "docker.build", "--no-verbose")
        return self._lab.watch(setting, "deploy", "--json")

    def by_hand(self, setting: Setting) -> None:
        """Measure over a setting's line what the rest is compared with."""
        ssh = [self._lab.ssh(setting, "true") for _ in range(self._repetitions)]
        start = [self._lab.by_hand(setting) for _ in range(self._repetitions)]
        self.baselines[setting.line] = Baseline(median(ssh), median(start))
        self._console.say(f"  by hand   {setting.line:<18}{median(start):7.2f} s   (ssh: {median(ssh):.2f} s)")

    def ship(self, setting: Setting, repetitions: int, ways: Sequence[str]) -> None:
        """Compare ways of shipping."""
        found = self.shipping.setdefault(setting.line, {})
        for _ in range(repetitions):
            for way, run in bench_ship.compare(self._lab, setting, ways).items():
                found.setdefault(way, []).append(run)
                self._console.say(f"  ship      {way:<10}{setting.line:<8}{run.seconds:7.2f} s   {run.received / 1000:7.0f} kB")

    def document(self, about: dict[str, Any]) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            **about,
            "baselines": {line: asdict(one) for line, one in self.baselines.items()},
            "measured": [{"what": one.what, **asdict(one.setting), "seconds": one.middle("seconds"), "phases": one.phases(),
                          "runs": [asdict(run) for run in one.runs]} for one in self.found],
            "shipping": {line: {way: [asdict(run) for run in runs] for way, runs in ways.items()} for line, ways in self.shipping.items()},
            "targets": report.targets(self.found),
        }  # fmt: skip


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure, show, write down."""
    local_engine.ensure(console.say)
    plan = QUICK if options.quick else FULL
    about = facts(options)
    with _lab(options, plan, console) as lab:
        bench = Bench(lab, console, about["repetitions"])
        for variant in dict.fromkeys(setting.variant for setting, _ in plan):
            lab.introduce(variant)
        for line in LINES:
            bench.by_hand(Setting("full", line, 1))
        for setting, whats in plan:
            bench.measure(setting, whats)
        ways = tuple(bench_ship.WAYS)
        bench.ship(Setting("full", "loopback", 1), about["repetitions"], ways)
        bench.ship(Setting("full", "slow", 1), 1, ways[:2] if options.quick else ways)
    about["load at the end"] = f"{os.getloadavg()[0]:.1f}"
    _show(bench, console)
    file = options.json or RESULT
    file.write_text(json.dumps(bench.document(about), indent=1) + "\n")
    console.say(f"details: {file}")
    if options.docs or not options.quick:
        PAGE.write_text(report.replaced(PAGE.read_text(), report.page(about, bench.found, bench.baselines, bench.shipping)))
        console.say(f"written: {PAGE}")
    return 0


@contextmanager
def _lab(options: argparse.Namespace, plan: Sequence[tuple[Setting, Sequence[str]]], console: Console) -> Iterator[Lab]:
    hosts = max(setting.hosts for setting, _ in plan)
    console.say(f"starting {hosts} servers")
    try:
        with Lab(ROOT, hosts, options.seed, console.say) as lab:
            yield lab
    finally:
        shutil.rmtree(ROOT, ignore_errors=True)


def facts(options: argparse.Namespace) -> dict[str, Any]:
    """Return what is to be known about the machine and the run."""
    engine = local_client().version()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m deploy.bench {shlex.join(sys.argv[1:])}".strip(),
        "machine": f"{os.cpu_count()} cores, {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB, {platform.machine()}",
        "load at the beginning": f"{os.getloadavg()[0]:.1f}",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "engine here": engine["Version"],
        "repetitions": 1 if options.quick else options.repetitions,
        "seed": options.seed,
    }


def _show(bench: Bench, console: Console) -> None:
    console.table("commands", report.COLUMNS, [report.row(one, bench.baselines) for one in bench.found])
    console.table("phases, seconds", report.PHASE_COLUMNS, [report.phase_row(one) for one in bench.found if one.phases()])
    console.table("ways of shipping", report.SHIP_COLUMNS, report.ship_rows(bench.shipping))
    console.table("targets", report.TARGET_COLUMNS, report.targets(bench.found))


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.bench", description="Measure deploys and rollbacks.")
    parser.add_argument(
        "--quick", action="store_true", help="once instead of several times, and less of it; docs are not touched"
    )
    parser.add_argument("--repetitions", type=int, default=5, help="how often; medians are shown (default: 5)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help=f"where to write all figures (default: {RESULT.relative_to(REPOSITORY)})"
    )
    parser.add_argument("--docs", action="store_true", help=f"write {PAGE.relative_to(REPOSITORY)} also after --quick")
    parser.add_argument(
        "--seed",
        default=f"{time.time_ns():x}",
        help="what the changed files are made from (default: the time, since builds are cached)",
    )
    options = parser.parse_args(arguments)
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
