"""The program as it runs on a server: one file, its exit codes, its tether, its settings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backup import package
from backup.agent.model import Source
from tests.backup.agent_run import App, manifests


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that servers get."""
    path = tmp_path_factory.mktemp("program") / "backup.pyz"
    path.write_bytes(package.program())
    return path


@pytest.fixture
def app(tmp_path: Path) -> App:
    found = App(tmp_path)
    found.fill()
    write_settings(found)
    return found


def write_settings(app: App, mode: int = 0o600) -> Path:
    path = app.settings.folder / "backup.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(app.settings.to_json())
    path.chmod(mode)
    return path


def command(program: Path, app: App, *words: str) -> list[str]:
    return [sys.executable, "-I", str(program), words[0], "--app", "blog", "--home", app.settings.home, *words[1:]]


def call(program: Path, app: App, *words: str) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(
        command(program, app, *words, "--json"), capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_a_run_tells_its_progress_and_last_its_result(program: Path, app: App) -> None:
    code, events = call(program, app, "run")
    assert code == 0
    assert {event["event"] for event in events[:-1]} <= {"say", "bytes", "warn"}
    assert events[-1]["event"] == "result"
    assert events[-1]["value"]["agent"] == package.digest()[:12]
    assert list(manifests(app.folder)) == [events[-1]["value"]["id"]]


def test_for_a_schedule_it_speaks_in_plain_lines(program: Path, app: App) -> None:
    done = subprocess.run(command(program, app, "scheduled"), capture_output=True, text=True, timeout=60, env={}, check=True)
    assert "saving posts" in done.stdout
    (manifest,) = manifests(app.folder).values()
    assert manifest["types"] == ["daily", "monthly", "weekly"]


def test_what_is_not_due_is_not_taken_again(program: Path, app: App) -> None:
    for _ in range(2):
        assert call(program, app, "scheduled")[0] == 0
    assert len(manifests(app.folder)) == 1


@pytest.mark.parametrize(("words", "code"), [
    (("verify", "20260101T000000Z-000000"), 1), (("verify", "../../etc"), 1), (("run", "--id", "20260101T000000Z-0000zz"), 3),
    (("no-such-command",), 2), (("run", "--types", "hourly"), 2), (("send", "20260101T000000Z-000000", "x", "0"), 1),
])  # fmt: skip
def test_mistakes_have_exit_codes_of_their_own(program: Path, app: App, words: tuple[str, ...], code: int) -> None:
    assert subprocess.run(command(program, app, *words), capture_output=True, stdin=subprocess.DEVNULL).returncode == code


def test_a_failure_says_what_why_and_what_next(program: Path, app: App) -> None:
    code, events = call(program, app, "verify")
    assert (code, events[-1]["event"], events[-1]["what"]) == (1, "error", "there is no backup")
    assert events[-1]["fix"] == "inv backup.run"


def test_a_partial_run_ends_with_a_code_of_its_own(program: Path, app: App) -> None:
    app.database.write_bytes(b"not a database")
    code, events = call(program, app, "run")
    assert (code, events[-1]["event"]) == (6, "error")
    assert "posts" in events[-1]["why"]


def test_another_program_than_was_expected_does_nothing(program: Path, app: App) -> None:
    assert call(program, app, "run", "--expect", "0" * 64) == (9, [])
    assert call(program, app, "status", "--expect", package.digest())[0] == 0


def test_settings_that_others_can_read_are_refused(program: Path, app: App) -> None:
    write_settings(app, 0o644)
    code, events = call(program, app, "status")
    assert (code, "chmod 600" in events[-1]["fix"]) == (3, True)


def test_without_settings_it_says_how_they_come(program: Path, app: App) -> None:
    (app.settings.folder / "backup.json").unlink()
    code, events = call(program, app, "status")
    assert (code, events[-1]["event"]) == (3, "error")


@pytest.fixture
def slow(app: App, tmp_path: Path) -> Iterator[App]:
    """An app with a source whose dump goes on until somebody reads from a pipe of ours."""
    bins = tmp_path / "bin"
    bins.mkdir()
    started = tmp_path / "started"
    tar = bins / "tar"
    tar.write_text(
        f'#!/bin/sh\ncase "$*" in *--version*) exec /bin/tar --version;; esac\necho $$ > {started}.new; mv {started}.new {started}\nexec sleep 600\n'
    )
    tar.chmod(0o755)
    os.environ["PATH"] = f"{bins}:{os.environ['PATH']}"
    yield app
    os.environ["PATH"] = os.environ["PATH"].partition(":")[2]


def wait_for(path: Path) -> int:
    """Wait until a program has said its number."""
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(path.read_text())


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_when_the_operator_is_gone_the_run_undoes_itself(program: Path, slow: App, tmp_path: Path) -> None:
    run = subprocess.Popen(command(program, slow, "run", "--json", "--tether"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert run.stdin is not None
    run.stdin.write(b"{}\n")
    run.stdin.flush()
    child = wait_for(tmp_path / "started")
    run.stdin.close()
    assert run.wait(20) == 130
    assert run.stdout is not None
    run.stdout.close()
    assert not alive(child)
    assert manifests(slow.folder) == {}
    assert [one.name for one in slow.folder.iterdir() if one.name.startswith(".partial")] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_undoes_the_run(program: Path, slow: App, tmp_path: Path, number: signal.Signals) -> None:
    run = subprocess.Popen(command(program, slow, "run"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    child = wait_for(tmp_path / "started")
    run.send_signal(number)
    assert run.wait(20) == 130
    assert not alive(child)
    assert manifests(slow.folder) == {}


def test_after_a_kill_the_next_run_sweeps_and_succeeds(program: Path, slow: App, tmp_path: Path) -> None:
    run = subprocess.Popen(command(program, slow, "run"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    child = wait_for(tmp_path / "started")
    run.kill()
    run.wait()
    os.kill(child, signal.SIGKILL)
    assert [one.name for one in slow.folder.iterdir() if one.name.startswith(".partial")]
    os.environ["PATH"] = os.environ["PATH"].partition(":")[2]
    try:
        assert call(program, slow, "run")[0] == 0
    finally:
        os.environ["PATH"] = f"{tmp_path}/bin:{os.environ['PATH']}"
    assert [one.name for one in slow.folder.iterdir() if one.name.startswith(".partial")] == []


def test_secrets_are_in_no_line_it_prints(program: Path, app: App) -> None:
    source = Source("main", "postgres", container="nobody", user="blog", database="blog", password="hunter2-very-secret")
    app.with_settings(sources=(*app.settings.sources, source), ping="http://127.0.0.1:1/hunter2-very-secret")
    write_settings(app)
    for words in (("run",), ("status",), ("state",), ("list",)):
        for extra in ((), ("--json",)):
            done = subprocess.run(command(program, app, *words, *extra), capture_output=True, text=True, stdin=subprocess.DEVNULL)
            assert "hunter2" not in done.stdout + done.stderr
    assert "hunter2" not in "".join(one.read_text() for one in app.folder.rglob("*.json*"))
