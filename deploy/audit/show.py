"""An audit in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import shorten
from typing import TYPE_CHECKING

from deploy.audit.model import Finding, Report

if TYPE_CHECKING:
    from ops.console import Console

COLUMNS = ("package", "version", "id", "fixed in", "what", "lock")


def show(console: Console, report: Report) -> None:
    """Print what was found, what was not looked at, and what comes next."""
    for one in report.asked:
        console.say(f"asked: {one}")
    for lock, packages in report.audited:
        console.say(f"{lock}: {packages} packages")
    for text in report.warnings:
        console.say(f"! {text}", "yellow")
    if report.findings:
        console.table("", COLUMNS, _rows(report.findings))
    for gap in report.gaps:
        console.say(f"✗ not audited: {gap.what}", "red")
        console.say("\n".join(f"  {name} {text}" for name, text in (("cause:", gap.why), ("next: ", gap.fix)) if text))
    for line in dict.fromkeys(one.fix for one in report.open):
        console.say(f"  next:  {line}")
    console.say(verdict(report), "green" if report.exit_code == 0 else "bold red")
    console.document(report.document())


def verdict(report: Report) -> str:
    """Say in a line how an audit ended."""
    ignored = len(report.findings) - len(report.open)
    besides = [f"{ignored} ignored"] * bool(ignored) + [f"{len(report.gaps)} not audited"] * bool(report.gaps)
    found = f"known vulnerabilities: {len(report.open)}" if report.open else "no known vulnerabilities"
    if report.gaps and not report.open:
        found = "not clean"
    return ", ".join([found, *besides])


def _rows(findings: Iterable[Finding]) -> Iterator[list[str]]:
    """One row for each vulnerability, with all the locks that hold it; what is ignored stands last."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for one in sorted(findings, key=lambda one: (one.accepted is not None, one.advisory.package, one.advisory.id)):
        rows.setdefault(_row(one), []).append(str(one.lock))
    for cells, locks in rows.items():
        yield [*cells, "\n".join(dict.fromkeys(locks))]


def _row(finding: Finding) -> tuple[str, ...]:
    one, accepted = finding.advisory, finding.accepted
    what = shorten(one.summary, 80, placeholder=" …")
    ignored = f"ignored until {accepted.expires}, {accepted.reason}: " if accepted else ""
    return one.package, one.version, one.id, ", ".join(one.fixed) or "no release yet", ignored + what
