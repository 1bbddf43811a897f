"""Following logs of several servers: it can be ended, and one server's failure hides no other's lines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.inspect import pass_on
from ops.errors import Refused, TidegateError

ROOT = Path(__file__).parents[2]


class Stub:
    """A stream that shows its lines and then fails, ends, or waits until it is closed."""

    def __init__(self, name: str, *lines: str, error: Exception | None = None, waits: bool = False) -> None:
        self.name = name
        self.said = lines
        self.error = error
        self.closed = threading.Event()
        if not waits:
            self.closed.set()
        self.closes = 0

    def lines(self) -> Iterator[str]:
        yield from self.said
        if self.error:
            raise self.error
        assert self.closed.wait(30)

    def close(self) -> None:
        self.closes += 1
        self.closed.set()


def test_ctrl_c_closes_the_streams_and_comes_through() -> None:
    streams = [Stub("one", waits=True), Stub("two", "ready", waits=True)]

    def interrupt(name: str, line: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        pass_on(streams, interrupt)
    assert [stream.closes for stream in streams] == [1, 1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("log ")]


def test_a_program_that_follows_ends_at_ctrl_c() -> None:
    program = (
        "from tests.deploy.test_inspect import *\npass_on([Stub('one', 'ready', waits=True)], lambda *a: print(*a, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "one ready\n"
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=10)
    assert words.strip().endswith("KeyboardInterrupt")


def test_one_servers_failure_is_shown_at_once_and_hides_no_others_lines() -> None:
    shown: list[tuple[str, str]] = []
    bad = Stub("bad", "last words", error=Refused("no web process serves", where="bad"))
    good = Stub("good", "a", "b", waits=True)

    def show(name: str, line: str) -> None:
        shown.append((name, line))
        if "no web process" in line:
            good.close()

    with pytest.raises(Refused, match="no web process serves"):
        pass_on([bad, good], show)
    assert [line for name, line in shown if name == "good"] == ["a", "b"]
    assert [line for name, line in shown if name == "bad"] == ["last words", "✗ bad: no web process serves"]


def test_the_only_servers_failure_is_raised_and_not_shown_as_well() -> None:
    shown: list[str] = []
    only = Stub("only", error=TidegateError("broken"))
    with pytest.raises(TidegateError, match="broken"):
        pass_on([only], lambda name, line: shown.append(line))
    assert shown == []
    assert only.closes == 1


def test_streams_that_end_are_closed() -> None:
    streams = [Stub("one", "a"), Stub("two", "b")]
    shown: list[str] = []
    pass_on(streams, lambda name, line: shown.append(line))
    assert sorted(shown) == ["a", "b"]
    assert [stream.closes for stream in streams] == [1, 1]
