"""The page of a CI job: what was planned, what came of it and what users saw, as Markdown in the file that CI names."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.plan import Plan
from deploy.release import Summary
from deploy.show import TITLES
from ops.errors import TidegateError
from ops.program import called

FILE = "GITHUB_STEP_SUMMARY"
_ACTIVE = re.compile(r"([\\`*_{}\[\]<>|#~])")


@dataclass
class Page:
    """What a command has come to know so far."""

    plan: Plan | None = None
    summary: Summary | None = None

    def render(self, error: BaseException | None = None) -> str:
        """Return all of it as Markdown; of an error without its cause, which may quote the app's logs."""
        plan, summary = self.plan, self.summary
        parts = [_outcome(plan, summary, error)]
        if plan:
            parts += [_list([f"refused: {one}" for one in plan.refusals] + list(plan.notes)), _steps(plan)]
        if summary:
            parts += [_phases(summary), _users(summary), _list(summary.notes)]
        return called("\n\n".join(filter(None, parts))) + "\n"


@contextmanager
def job_page(environ: Mapping[str, str]) -> Iterator[Page]:
    """Hand out a page, and append it to the file that CI shows, however the command ends; nothing where there is none."""
    page, error = Page(), None
    try:
        yield page
    except BaseException as caught:
        error = caught
        raise
    finally:
        if file := environ.get(FILE):
            _append(Path(file), page.render(error) + "\n")


def _append(file: Path, text: str) -> None:
    """Write the page; that it cannot be written is a remark, for the servers are what the command has made of them."""
    try:
        with file.open("a", encoding="utf-8") as written:
            written.write(text)
    except OSError as error:
        sys.stderr.write(f"the page of this job is not written: {error}\n")


def _outcome(plan: Plan | None, summary: Summary | None, error: BaseException | None) -> str:
    if plan is None:
        return f"## {_literal(_told(error))}"
    result = summary.result if summary and summary.result else _told(error)
    rows = [
        ("release", plan.release),
        ("before", ", ".join(f"{host}: {was or 'nothing'}" for host, was in plan.previous.items())),
    ]
    if summary:
        rows += [("address", summary.url), ("backup of the data", summary.backup), ("took", f"{summary.seconds:.1f} s")]
    shown = [(name, value) for name, value in rows if value and value != "0.0 s"]
    return f"## {_literal(f'{plan.kind} {plan.version} → {plan.environment}: {result}')}\n\n{_table(('', ''), shown)}"


def _told(error: BaseException | None) -> str:
    if isinstance(error, TidegateError):
        return f"{error.where}: {error.what}".removeprefix(": ") + (f" (next: {error.fix})" if error.fix else "")
    return f"ended early: {type(error).__name__}" if error else "nothing was done"


def _steps(plan: Plan) -> str:
    rows = [
        (TITLES.get(phase.name, phase.name), host, step.title, step.why)
        for phase in plan.phases for host, found in phase.steps.items() for step in found
    ]  # fmt: skip
    if not rows:
        return ""
    table = _table(("phase", "server", "step", "why"), rows)
    return f"<details><summary>the plan: {len(rows)} steps</summary>\n\n{table}\n\n</details>"


def _phases(summary: Summary) -> str:
    rows = [(TITLES.get(name, name), f"{seconds:.2f} s") for name, seconds in summary.phases.items()]
    return _table(("phase", "took"), rows)


def _users(summary: Summary) -> str:
    rows = [
        (server, seen.requests, seen.failures, f"{seen.p50 * 1000:.1f} ms", f"{seen.p99 * 1000:.1f} ms",
         ", ".join(f"{count} × {reason}" for reason, count in seen.reasons.items()))
        for server, seen in summary.probes.items()
    ]  # fmt: skip
    return _table(("users at", "requests", "failed", "p50", "p99", "why"), rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *([_literal(str(cell)) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_literal(line)}" for line in lines)


def _literal(text: str) -> str:
    """Return text that Markdown shows as it stands, on one line."""
    return _ACTIVE.sub(r"\\\1", " ".join(text.split()))
