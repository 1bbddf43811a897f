"""What people see of a deploy while it runs: bars where there is a terminal, warnings always, steps when they ask."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console as RichConsole

from deploy.model import ProbeReport
from deploy.release import Summary
from deploy.show import Printer, summary
from ops.console import Console


@pytest.fixture
def terminal() -> Console:
    console = Console()
    console.__dict__["rich"] = RichConsole(file=io.StringIO(), force_terminal=True, width=120)
    return console


def test_each_server_has_a_bar_until_the_phase_is_over(terminal: Console, capsys: pytest.CaptureFixture[str]) -> None:
    printer = Printer(terminal)
    for server, done in (("one", 10), ("two", 5), ("one", 20)):
        printer.bytes(server, done, 100)
    known = {task.description: (task.completed, task.total) for task in printer._progress.tasks}
    assert known == {"one": (20, 100), "two": (5, 100)}
    printer.phase_done("ship", 1.5)
    assert (printer._progress, printer._bars) == (None, {})
    assert "✓ ship the image" in capsys.readouterr().out


def test_a_backup_within_a_deploy_warns_always_and_tells_the_rest_when_asked(
    terminal: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    events: list[dict[str, Any]] = [
        {"event": "say", "text": "saving posts"},
        {"event": "warn", "text": "slow disk"},
        {"event": "bytes", "done": 1, "total": 0},
        {"event": "end"},
    ]
    for verbose in (False, True):
        for event in events:
            Printer(Console(), verbose=verbose).backup("one", event)
    said = capsys.readouterr().out.splitlines()
    assert said == ["  ! one: slow disk", "      one: saving posts", "  ! one: slow disk"]
    printer = Printer(terminal)
    printer.backup("one", {"event": "bytes", "done": 30, "total": 20})
    (task,) = printer._progress.tasks
    assert (task.completed, task.total) == (30, 30)
    printer.phase_done("backup", 1.0)


def test_a_builds_output_is_shown_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        Printer(Console(), verbose=verbose).build("#7 DONE 0.1s")
    assert capsys.readouterr().out == "      #7 DONE 0.1s\n"


def test_what_users_saw_is_told_with_the_reasons_of_failures_and_the_backup(capsys: pytest.CaptureFixture[str]) -> None:
    seen = ProbeReport(requests=100, failures=2, p50=0.0012, p99=0.05, reasons={"connection refused": 2})
    done = Summary(
        "deploy", "test", "done", "v2", probes={"one": seen}, url="http://a.b", seconds=3.14, backup="20260101", notes=["so"]
    )
    summary(Console(), done)
    assert capsys.readouterr().out.splitlines() == [
        "  · so",
        "  users at one: 100 requests, 2 failed, p50 1.2 ms, p99 50.0 ms",
        "      2 × connection refused",
        "  the data from before is backup 20260101",
        "v2 serves at http://a.b after 3.1 s",
    ]
