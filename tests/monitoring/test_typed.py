"""What people type about monitoring: exit codes and words, from the task to whatever does the work."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from invoke import Context, Exit

from monitoring import checked, checking, drilling, images, opening, reading, status, tasks, up, upgrading
from ops import local_engine
from ops.errors import Failed
from ops.secret import Secret
from tests.monitoring.watched import environment


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have an environment, and signals as they were before."""
    monkeypatch.setattr(tasks, "environment_of", lambda name: environment().model_copy(update={"name": name}))
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


def typed(task: str, *words: Any, **asked: Any) -> int:
    """Carry out a task and return its exit code."""
    try:
        getattr(tasks, f"monitoring_{task}").body(Context(), *words, **asked)
    except Exit as end:
        print(end.message, file=sys.stderr)
        return int(end.code)
    return 0


def test_coming_up_tells_each_step_and_what_came_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def come_up(env: Any, environ: Any, say: Any) -> up.Done:
        say("one", "pulling grafana")
        return up.Done(env.name, {"one": ["gate"]}, 12, 3.5, Secret("hunter2"), [])

    monkeypatch.setattr(up, "up", come_up)
    assert typed("up", env="live", json=True) == 0
    shown = capsys.readouterr()
    assert "  one: pulling grafana" in shown.err
    assert json.loads(shown.out)["targets"] == 12
    assert json.loads(shown.out)["environment"] == "live"


def test_who_interrupts_it_is_told_that_it_may_be_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(10)

    monkeypatch.setattr(up, "up", interrupted)
    assert typed("up", env="live") == 1
    assert "inv monitoring.up -e live brings it to its end" in capsys.readouterr().err


def test_nobody_stops_watching_unasked_where_changes_are_approved(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []

    def down(env: Any, say: Any, *, volumes: bool) -> list[str]:
        say("one", "stopping")
        taken.append(volumes)
        return [] if volumes else ["loki"]

    monkeypatch.setattr(up, "down", down)
    monkeypatch.setattr(tasks, "environment_of", lambda name: environment().model_copy(update={"approve": True}))
    assert typed("down") == 3
    assert taken == []
    assert typed("down", yes=True) == 0
    monkeypatch.setattr(tasks, "environment_of", lambda name: environment().model_copy(update={"approve": False}))
    assert typed("down", volumes=True) == 3
    assert taken == [False]
    assert typed("down", volumes=True, yes=True) == 0
    assert taken == [False, True]


FINE = status.Status((status.Container("one", "gate", "nginx:1", "running", "", ok=True),), (), 1, (), (), ())


@pytest.mark.parametrize(("found", "code"), [(FINE, 0), (replace(FINE, unknown=("loki does not answer",)), 3)])
def test_a_stack_that_is_not_as_it_should_be_has_an_exit_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, found: status.Status, code: int
) -> None:
    monkeypatch.setattr(status, "look", lambda env: found)
    assert typed("status") == code


@pytest.mark.parametrize(("browser", "seen"), [(True, ["http://localhost:7810/"]), (False, [])])
def test_a_page_is_open_until_somebody_ends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], browser: bool, seen: list[str]
) -> None:
    ends: list[str] = []
    opened_in: list[str] = []

    @contextmanager
    def opened(env: Any, what: str, port: int | None) -> Iterator[str]:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        yield "http://localhost:7810/"
        ends.append(what)

    monkeypatch.setattr(opening, "opened", opened)
    monkeypatch.setattr(webbrowser, "open", opened_in.append)
    assert typed("open", what="loki", no_browser=not browser) == 0
    assert (ends, opened_in) == (["loki"], seen)
    assert "loki of sandbox: http://localhost:7810/" in capsys.readouterr().out


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 3)])
def test_a_check_that_finds_something_has_an_exit_code_of_its_own(monkeypatch: pytest.MonkeyPatch, ok: bool, code: int) -> None:
    found = type("Found", (), {"ok": ok, "document": lambda self: {"ok": ok}})()
    monkeypatch.setattr(checking, "check_of", lambda env, environ: found)
    monkeypatch.setattr(checked, "show", lambda console, found: None)
    assert typed("check") == code


@pytest.mark.parametrize(
    ("ok", "code", "word"), [(True, 0, "arrived everywhere within 2.0 s"), (False, 1, "did not arrive everywhere")]
)
def test_a_drill_says_whether_everybody_has_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ok: bool, code: int, word: str
) -> None:
    said: dict[str, Any] = {"ok": ok, "seconds": 2.0, "lines": lambda self: ["slack: has it"], "document": lambda self: {}}
    report = type("Told", (), said)()
    monkeypatch.setattr(drilling, "drill_of", lambda env, timeout: report)
    assert typed("drill") == code
    shown = capsys.readouterr()
    assert "slack: has it" in shown.out
    assert word in shown.out + shown.err


@pytest.mark.parametrize(("done", "code"), [("upgraded", 0), ("put back", 0), ("declined", 3)])
def test_an_upgrade_says_what_was_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], done: str, code: int
) -> None:
    def upgrade(env: Any, environ: Any, wish: upgrading.Wish, agree: Any, say: Any) -> str:
        assert wish == upgrading.Wish(refresh=True)
        say("one: stopping")
        assert agree({}) == (done != "declined")
        return done

    monkeypatch.setattr(upgrading, "upgrade_of", upgrade)
    assert typed("upgrade", refresh=True, yes=done != "declined") == code
    assert upgrading.RESULTS.get(done, "declined, nothing was changed") in "".join(capsys.readouterr())


@pytest.mark.parametrize(("changed", "word"), [(True, "loki changed"), (False, "no image changed")])
def test_digests_are_written_with_this_machines_engine_and_no_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: bool, word: str
) -> None:
    monkeypatch.setattr(local_engine, "ensure", lambda say: say("the engine is ready"))
    monkeypatch.setattr(images, "refresh", lambda ask: ["loki"] if changed else [])
    assert typed("refresh") == 0
    assert word in capsys.readouterr().out


def test_logs_are_asked_for_with_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(reading, "read", lambda console, env, *words, follow: asked.append((env.name, *words, follow)))
    assert typed("logs", "oom", env="live", since="2h", limit=5, follow=True) == 0
    assert asked == [("live", "oom", "2h", 5, True)]


def test_an_error_is_told_once_with_its_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(env: Any) -> None:
        raise Failed("nothing answers", fix="inv server.check")

    monkeypatch.setattr(status, "look", broken)
    assert typed("status", json=True) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"] == "nothing answers"
    assert shown.err.count("nothing answers") == 1
