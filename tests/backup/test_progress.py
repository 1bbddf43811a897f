"""What is told of bytes and steps: bars where there is a terminal, a line now and then where there is none."""

from __future__ import annotations

import io

import pytest
from rich.console import Console as RichConsole

from backup.progress import EVERY, Meter, Printer, size, span
from ops.console import Console


class Screen(io.StringIO):
    """A terminal, as far as rich looks."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def terminal(screen: Screen) -> Console:
    console = Console()
    console.__dict__["rich"] = RichConsole(file=screen, force_terminal=True, width=120)
    return console


def test_a_terminal_gets_a_bar_for_each_source_and_server(terminal: Console, screen: Screen) -> None:
    with Printer(terminal, 2) as printer:
        for done in (10, 20):
            printer.event("one", {"event": "bytes", "source": "posts", "done": done, "total": 100})
        printer.bytes("two", "posts", 7, 0)
        (first, second) = printer._bars.values()
        tasks = {task.id: task for task in printer._progress.tasks}
        assert (tasks[first].description, tasks[first].completed, tasks[first].total) == ("one: posts", 20, 100)
        assert (tasks[second].description, tasks[second].total) == ("two: posts", None)
        printer._progress.refresh()
    assert "one: posts" in screen.getvalue()
    assert printer._bars == {}


def test_a_bar_never_shows_more_than_all(terminal: Console) -> None:
    with Printer(terminal, 1) as printer:
        printer.bytes("one", "posts", 120, 100)
        (task,) = printer._progress.tasks
        assert (task.description, task.completed, task.total) == ("posts", 120, 120)


def test_events_are_lines_with_the_server_where_there_are_several(capsys: pytest.CaptureFixture[str]) -> None:
    events = [{"event": "say", "text": "saving"}, {"event": "warn", "text": "slow disk"}, {"event": "end"}]
    for servers in (1, 2):
        with Printer(Console(), servers) as printer:
            for event in events:
                printer.event("one", event)
            printer.note("one", "done")
            printer.event("one", {"event": "bytes", "source": "posts", "done": 1, "total": 2})
    assert capsys.readouterr().out.splitlines() == [
        "  · saving", "  ! slow disk", "  · done",
        "  one: · saving", "  one: ! slow disk", "  one: · done",
    ]  # fmt: skip


def test_a_log_gets_a_line_about_bytes_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 100.0 + EVERY])
    monkeypatch.setattr("backup.progress.time.monotonic", lambda: next(clock))
    with Printer(Console(), 1) as printer:
        printer.bytes("one", "posts", 0, 4000)
        printer.bytes("one", "posts", 1000, 4000)
    assert capsys.readouterr().out == "    posts: 1.0 kB of about 4.0 kB, 100 B/s, 30 s left\n"


def test_a_line_has_no_end_in_it_where_nobody_knows_how_much_there_is() -> None:
    meter = Meter()
    assert meter.line(0, 0, 0.0) == ""
    assert meter.line(500, 0, EVERY / 2) == ""
    assert meter.line(5_000_000_000, 0, EVERY) == "5.0 GB, 500.0 MB/s"
    assert meter.line(5_000_000_000, 4, 2 * EVERY) == "5.0 GB of about 4 B, 250.0 MB/s"


def test_bytes_and_times_are_in_words() -> None:
    assert [size(amount) for amount in (0, 999, 1000, 2.5e6, 7e9, 3e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "2.5 MB",
        "7.0 GB",
        "3.0 TB",
    ]
    assert [span(seconds) for seconds in (5, 60, 3599, 3600, 90000, 200000)] == [
        "5 s",
        "1 min",
        "59 min",
        "1 h 0 min",
        "25 h 0 min",
        "2 d 7 h",
    ]
