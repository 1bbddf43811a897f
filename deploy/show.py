"""Plans, progress and results in words and tables."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from deploy.model import HostState
from deploy.plan import Plan
from deploy.release import Summary
from ops.console import Console

TITLES = {
    "build": "build the image", "prepare": "put things in order", "ship": "ship the image", "backup": "back up the data", "migrate": "migrate",
    "start": "start the new release", "healthy": "wait until it is healthy", "switch": "switch", "verify": "verify",
    "drain": "drain the old release", "prune": "prune",
}  # fmt: skip


class Printer:
    """A reporter that prints a line per phase; the build's output and bytes only as long as they are news."""

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        self._console = console
        self._verbose = verbose
        self._bars: dict[str, Any] = {}
        self._drawing = threading.Lock()  # bytes arrive in a thread per server
        self._progress: Any = None

    def phase(self, name: str) -> None:
        """A phase begins."""

    def phase_done(self, name: str, seconds: float) -> None:
        """Say how long it took."""
        if self._progress:
            self._progress.stop()
            self._progress, self._bars = None, {}
        self._console.say(f"  ✓ {TITLES.get(name, name):<28}{seconds:7.2f} s", "green")

    def step(self, server: str, title: str) -> None:
        """Say what begins where."""
        if self._verbose:
            self._console.say(f"      {server}: {title}", "dim")

    def note(self, text: str) -> None:
        """Say it."""
        self._console.say(f"  ! {text}", "yellow")

    def build(self, line: str) -> None:
        """Pass the build's output on when it was asked for."""
        if self._verbose and line:
            self._console.quote(f"      {line}", "dim")

    def backup(self, server: str, event: Mapping[str, Any]) -> None:
        """Tell what the backup says while it runs."""
        if event["event"] == "bytes" and event["total"]:
            self.bytes(server, event["done"], max(event["total"], event["done"]))
        elif event["event"] == "warn":
            self.note(f"{server}: {event['text']}")
        elif "text" in event:
            self.step(server, event["text"])

    def bytes(self, server: str, done: int, total: int) -> None:
        """Move the server's progress bar."""
        with self._drawing:
            if self._console.rich.is_terminal:
                self._move_bar(server, done, total)

    def _move_bar(self, server: str, done: int, total: int) -> None:
        if self._progress is None:
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = (TextColumn("      {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._progress = Progress(*columns, console=self._console.rich, transient=True)
            self._progress.start()
        if server not in self._bars:
            self._bars[server] = self._progress.add_task(server)
        self._progress.update(self._bars[server], completed=done, total=total)


def plan(console: Console, plan: Plan, states: Sequence[HostState]) -> None:
    """Print what will be done and why."""
    where = ", ".join(f"{state.host} (now: {state.serving or 'nothing'})" for state in states)
    console.say(f"{f'{plan.kind} {plan.release}'.strip()} → {plan.environment}: {where}", "bold")
    for note in plan.notes:
        console.say(f"  · {note}", "yellow")
    for refusal in plan.refusals:
        console.say(f"  ✗ {refusal}", "red")


def plan_steps(console: Console, plan: Plan) -> None:
    """Print every step with its reason, as `--dry-run` shows them."""
    rows = [
        (phase.name, host, step.title, step.why) for phase in plan.phases for host, found in phase.steps.items() for step in found
    ]
    console.table("", ("phase", "server", "step", "why"), rows)


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return the plan for scripts."""
    steps = [
        {"phase": phase.name, "server": host, "step": step.title, "why": step.why}
        for phase in plan.phases for host, found in phase.steps.items() for step in found
    ]  # fmt: skip
    return {"kind": plan.kind, "environment": plan.environment, "release": plan.release, "version": plan.version,
            "previous": dict(plan.previous), "refusals": list(plan.refusals), "notes": list(plan.notes),
            "unchanged": plan.unchanged, "steps": steps}  # fmt: skip


def summary(console: Console, done: Summary) -> None:
    """Print what happened and what users saw."""
    for note in done.notes:
        console.say(f"  · {note}", "yellow")
    if done.result != "done":
        console.say(
            {"unchanged": "nothing to do", "planned": "nothing was changed (--dry-run)"}.get(done.result, done.result), "bold"
        )
        return
    for server, seen in done.probes.items():
        style = "red" if seen.failures else "green"
        console.say(f"  users at {server}: {seen.requests} requests, {seen.failures} failed, "
                    f"p50 {seen.p50 * 1000:.1f} ms, p99 {seen.p99 * 1000:.1f} ms", style)  # fmt: skip
        for reason, count in seen.reasons.items():
            console.say(f"      {count} × {reason}", "red")
    if done.backup:
        console.say(f"  the data from before is backup {done.backup}")
    what = f"{done.release} serves at {done.url}" if done.release else "pruned"
    console.say(f"{what} after {done.seconds:.1f} s", "bold green")


def summary_document(done: Summary) -> dict[str, Any]:
    """Return what happened for scripts."""
    return asdict(done)
