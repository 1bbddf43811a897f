"""A program on a server, run by a real agent: told of as it works, ended with whoever asked for it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.agent import program
from ops.errors import Unreachable
from ops.link import AgentError, Link
from tests.local_ssh import HOST, environment, install_ssh, install_sudo, until

TETHERED = """
import os, sys
open(sys.argv[1], "w").write(str(os.getpid()))
print("up", flush=True)
while sys.stdin.readline():
    pass
open(sys.argv[1] + ".undone", "w").close()
sys.exit(7)
"""
STUBBORN = """
import os, signal, sys, threading
gone = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: gone.set())
print("up", flush=True)
gone.wait()
sys.exit(8)
"""


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    install_ssh(tmp_path, monkeypatch)
    install_sudo(tmp_path)
    made = Link(environment(tmp_path), HOST)
    yield made
    if made._folder.exists():
        made.close()


def ignore(event: dict[str, Any]) -> None:
    """Hear of nothing."""


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code, *arguments]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_it_runs_as_root_and_its_exit_code_and_last_words_are_returned(link: Link) -> None:
    events: list[dict[str, Any]] = []
    code = 'import os, sys; print(os.geteuid()); sys.stderr.write("x" * 9000 + "the end\\n"); sys.exit(3)'
    ended, said = link.program(python(code), on_event=events.append)
    assert ended == 3
    assert said.endswith("xthe end")
    assert len(said) <= program.LAST_WORDS
    assert events == [{"event": "text", "text": str(os.geteuid())}]


def test_every_line_is_told_in_order_and_before_the_end(link: Link) -> None:
    events: list[dict[str, Any]] = []
    code = "for n in range(2000): print('{\"n\": %d}' % n)"
    assert link.program(python(code), on_event=events.append) == (0, "")
    assert [event["n"] for event in events] == list(range(2000))


@pytest.mark.parametrize("line", ["", "a b", "[]", "7", "null", '"x"', "{", "\N{SNOWMAN} \x1b[31m", "x" * 300_000])
def test_a_line_that_is_no_object_is_text(link: Link, line: str) -> None:
    events: list[dict[str, Any]] = []
    link.program(python("import sys; print(sys.stdin.readline(), end='')"), stdin=line or " ", on_event=events.append)
    assert events == [{"event": "text", "text": line or " "}]


def test_a_secret_reaches_it_by_its_standard_input_alone(link: Link) -> None:
    events: list[dict[str, Any]] = []
    code = "import sys; print(sys.stdin.readline() == 'hunter' '2\\n' and not any('hunter' '2' in one for one in sys.orig_argv))"
    link.program(python(code), stdin="hunter2", on_event=events.append)
    assert events == [{"event": "text", "text": "True"}]


def test_one_that_does_not_read_is_no_trouble(link: Link) -> None:
    assert link.program(python(""), stdin="x" * 1_000_000, on_event=ignore) == (0, "")


def test_one_that_is_not_there_is_an_error_and_ends_nothing(link: Link) -> None:
    with pytest.raises(AgentError, match="no-such-program") as caught:
        link.program(["/no-such-program"], on_event=ignore)
    assert caught.value.kind == "FileNotFoundError"
    assert link.program(python(""), on_event=ignore) == (0, "")


def test_a_ping_is_answered_and_other_requests_wait_while_it_runs(link: Link, tmp_path: Path) -> None:
    seen: list[str] = []

    def told(event: dict[str, Any]) -> None:
        link.send("ping").result(5)
        after = link.send("append", path=str(tmp_path / "journal"), lines=["after"])
        after.add_done_callback(lambda _: seen.append("after"))
        seen.append("told")
        link.cancel()

    assert link.program(python(TETHERED, str(tmp_path / "pid")), on_event=told)[0] == 7
    assert until(lambda: seen == ["told", "after"])


def test_cancelling_ends_its_input_and_it_may_undo(link: Link, tmp_path: Path) -> None:
    code, _ = link.program(python(TETHERED, str(tmp_path / "pid")), on_event=lambda _: link.cancel())
    assert code == 7
    assert (tmp_path / "pid.undone").exists()
    with pytest.raises(AgentError, match="cancelled before"):
        link.program(python(""), on_event=ignore)


def test_one_that_does_not_look_at_its_input_is_asked_to_end(link: Link, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert link.program(python(STUBBORN), on_event=lambda _: link.cancel())[0] == 8


def test_what_interrupts_us_cancels_it_and_waits_for_its_end(link: Link, tmp_path: Path) -> None:
    def interrupted(event: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        link.program(python(TETHERED, str(tmp_path / "pid")), on_event=interrupted)
    assert (tmp_path / "pid.undone").exists()


def start(link: Link, pid_file: Path) -> tuple[threading.Thread, list[Exception]]:
    errors: list[Exception] = []
    up = threading.Event()

    def work() -> None:
        try:
            link.program(python(TETHERED, str(pid_file)), on_event=lambda _: up.set())
        except Unreachable as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert up.wait(10)
    return thread, errors


def agents_of(link: Link, pid_file: Path) -> int:
    """Return the process that runs the program: the agent."""
    return int(Path(f"/proc/{pid_file.read_text()}/stat").read_text().split()[3])


@pytest.mark.parametrize("how", ["the line is cut", "the agent is killed", "we close"])
def test_it_never_outlives_the_connection(link: Link, tmp_path: Path, how: str) -> None:
    thread, errors = start(link, tmp_path / "pid")
    ends: dict[str, Callable[[], object]] = {
        "the line is cut": lambda: link._pipe(link._process).close(),
        "the agent is killed": lambda: os.kill(agents_of(link, tmp_path / "pid"), signal.SIGKILL),
        "we close": link.close,
    }
    ends[how]()
    assert until(lambda: not alive(int((tmp_path / "pid").read_text())))
    assert (tmp_path / "pid.undone").exists()
    thread.join(10)
    assert not thread.is_alive()
    assert len(errors) == (how == "the agent is killed")


def test_sudo_is_in_front_where_we_are_not_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_ssh(tmp_path, monkeypatch)
    log = install_sudo(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    printed: list[str] = []
    done = program.Program(threading.Event()).run(python("print('there')"), "", printed.append)
    assert (done["code"], printed) == (0, ["there"])
    assert sys.executable in log.read_text()
