"""Who hears what and when; the real apprise command: `apt-get install apprise`, or Tidegate's own dependency."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from backup.agent import notices
from backup.agent.model import FULL, RESTORE, DataFile, Item, Manifest, Offsite, Proof, Settings, Source, written
from backup.agent.notices import (
    BACKUP,
    DRILL,
    EXPIRY,
    FAILED,
    OFFSITE,
    RECOVERED,
    STILL,
    Notice,
    ping_due,
    tell,
    troubles,
    what_to_tell,
    words,
)
from backup.agent.report import Report
from backup.agent.store import Store

NOW = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
Record = dict[str, Any]


def record(event: str, when: datetime, ok: bool, **more: object) -> Record:
    return {"event": event, "ok": ok, "error": "" if ok else "the database is down", "finished": written(when), **more}


def run(when: datetime, ok: bool) -> Record:
    return record("run", when, ok, id=f"id-{when:%d%H}")


def told(about: str, kind: str, when: datetime, ok: bool = True) -> Record:
    return record("notice", when, ok, about=about, kind=kind)


def due(history: list[Record], now: datetime = NOW, frozen: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    return [(one.about, one.kind) for one in what_to_tell(history, troubles(history, frozen), now)]


def simulate(outcomes: Mapping[datetime, bool], until: datetime) -> list[tuple[str, datetime]]:
    """Run a schedule by the hour, with every notice taken, and return what was told when."""
    history: list[Record] = []
    sent = []
    moment = min(outcomes)
    while moment <= until:
        if moment in outcomes:
            history.append(run(moment, outcomes[moment]))
        for one in what_to_tell(history, troubles(history, ()), moment):
            history.append(told(one.about, one.kind, moment))
            sent.append((one.kind, moment))
        moment += HOUR
    return sent


def test_nothing_is_told_of_a_first_success_and_of_no_history() -> None:
    assert due([]) == []
    assert due([run(NOW, True)]) == []


def test_the_first_failure_is_told_at_once_and_then_once_a_day_until_recovery() -> None:
    outcomes = {NOW: True} | {NOW + HOUR * n: False for n in range(24, 24 + 72)} | {NOW + HOUR * 100: True}
    sent = simulate(outcomes, NOW + HOUR * 200)
    first = NOW + HOUR * 24
    assert sent == [(FAILED, first), (STILL, first + HOUR * 24), (STILL, first + HOUR * 48), (STILL, first + HOUR * 72),
                    (RECOVERED, NOW + HOUR * 100)]  # fmt: skip


def test_each_new_failure_after_a_recovery_is_told() -> None:
    outcomes = {NOW + HOUR * n: n % 2 == 1 for n in range(6)}
    assert [kind for kind, _ in simulate(outcomes, NOW + HOUR * 6)] == [FAILED, RECOVERED] * 3


def test_a_notice_that_nobody_took_is_sent_again() -> None:
    history = [run(NOW, False), told(BACKUP, FAILED, NOW, ok=False)]
    assert due(history, NOW + HOUR) == [(BACKUP, FAILED)]
    history += [told(BACKUP, FAILED, NOW), run(NOW, True), told(BACKUP, RECOVERED, NOW, ok=False)]
    assert due(history, NOW + HOUR) == [(BACKUP, RECOVERED)]


def test_a_clock_that_went_backwards_does_not_silence_reminders() -> None:
    history = [run(NOW, False), told(BACKUP, FAILED, NOW + timedelta(days=365))]
    assert due(history) == [(BACKUP, STILL)]


def test_a_failed_drill_is_told_once_and_its_recovery_too() -> None:
    history = [run(NOW, True), record("verify", NOW, False, level=RESTORE)]
    assert due(history) == [(DRILL, FAILED)]
    history.append(told(DRILL, FAILED, NOW))
    assert due(history, NOW + timedelta(days=3)) == []
    history.append(record("verify", NOW, True, level=RESTORE))
    assert due(history) == [(DRILL, RECOVERED)]


def test_a_verification_by_hand_of_a_lower_level_is_no_drill() -> None:
    assert due([record("verify", NOW, False, level=FULL)]) == []


def test_frozen_expiry_is_told_once_and_when_it_goes_on_though_its_words_change() -> None:
    history = [run(NOW, True)]
    assert due(history, frozen=("27 h old",)) == [(EXPIRY, FAILED)]
    history.append(told(EXPIRY, FAILED, NOW))
    assert due(history, NOW + timedelta(days=3), ("99 h old",)) == []
    assert due(history) == [(EXPIRY, RECOVERED)]


def test_failing_backups_are_not_told_a_second_time_because_they_freeze_expiry() -> None:
    history = [run(NOW, False)]
    assert due(history, frozen=("27 h old",)) == [(BACKUP, FAILED)]


def test_the_off_site_copy_is_told_of_beside_the_backup() -> None:
    history = [run(NOW, True), record("offsite", NOW, False)]
    assert due(history) == [(OFFSITE, FAILED)]
    history.append(told(OFFSITE, FAILED, NOW))
    assert due(history, NOW + timedelta(days=1)) == [(OFFSITE, STILL)]


def test_records_that_say_nothing_of_the_outcome_are_passed_over() -> None:
    assert due([run(NOW, False), told(BACKUP, FAILED, NOW), {"event": "run"}, {"event": "delete", "id": "x"}, {}]) == []


def test_a_notice_says_what_failed_where_since_when_and_what_to_do_next_without_secrets() -> None:
    settings = settings_of(Path("/nowhere"), "json://u:s3cr3tpass@h", sources=(Source("main", "postgres", password="pa55w0rd"),))
    history = [run(NOW - HOUR * 3, True), run(NOW - HOUR * 2, False), run(NOW, False)]
    wrong = {BACKUP: "main: login with pa55w0rd failed"}
    (notice,) = what_to_tell(history, wrong, NOW)
    assert notice.since == written(NOW - HOUR * 2)
    title, text = words(settings, notice, "20261123T030000Z-abcdef")
    assert title == "blog (production) on web-1: the backup failed"
    for expected in ("app: blog", "environment: production", "server: web-1", "login with", notice.since, "20261123T030000Z-abcdef",
                     "inv backup.status -e production"):  # fmt: skip
        assert expected in text
    assert "pa55w0rd" not in text
    assert "works again" in words(settings, Notice(BACKUP, RECOVERED), "")[0]
    assert "not deleted" in words(settings, Notice(EXPIRY, FAILED, "27 h old"), "")[0]


def test_a_sign_of_life_is_due_once_after_a_success_and_again_when_it_was_not_taken() -> None:
    assert ping_due([]) == ""
    assert ping_due([run(NOW, False)]) == ""
    good = run(NOW, True)
    assert ping_due([good]) == good["id"]
    assert ping_due([good, record("ping", NOW, False, id=good["id"])]) == good["id"]
    assert ping_due([good, record("ping", NOW, True, id=good["id"])]) == ""
    assert ping_due([good, run(NOW, False)]) == ""


class Receiver(ThreadingHTTPServer):
    """A service that notices and signs of life are sent to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.statuses: list[int] = []

    def url(self, rest: str = "") -> str:
        return f"json://user:s3cr3tpass@127.0.0.1:{self.server_port}/{rest}"

    def answer(self) -> int:
        return self.statuses.pop(0) if self.statuses else 200


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.answer())
        self.end_headers()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.answer())
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(params=["/usr/bin", str(Path(sys.executable).parent)])
def apprise(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let apprise be the server's package, then the one of Python's packages."""
    program = Path(request.param) / "apprise"
    if not program.exists():
        pytest.skip(f"no {program}: apt-get install apprise, or the project's own environment")
    monkeypatch.setenv("PATH", f"{request.param}:{os.environ['PATH']}")
    assert shutil.which("apprise") == str(program)
    return str(program)


def settings_of(home: Path, *urls: str, **changes: Any) -> Settings:
    return replace(Settings("blog", "production", "web-1", (), notify=urls, home=str(home)), **changes)


def store_of(settings: Settings, *, good: bool = True) -> Store:
    local = Store(settings.folder / "backups")
    local.folder.mkdir(parents=True)
    if good:
        item = Item("posts", "sqlite", (DataFile("posts.zst", 1, "0" * 64),), {"posts": 1})
        manifest = Manifest(ID, "blog", "production", "web-1", ("daily",), written(NOW), written(NOW), 1.0, (item,))
        local.publish(local.stage(ID), manifest, Proof(written(NOW), FULL, True, 1.0))
    return local


ID = "20261123T103000Z-abcdef"


@pytest.mark.usefixtures("apprise")
def test_failure_and_recovery_arrive_and_are_noted(receiver: Receiver, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, receiver.url("a,b?x=1"))
    local, said = store_of(settings), io.StringIO()
    for ok in (False, False, True, True):
        local.note(run(NOW, ok))
        tell(settings, local, Report(said), NOW)
    failure, recovery = receiver.received
    assert (failure["title"], failure["type"]) == ("blog (production) on web-1: the backup failed", "failure")
    assert "why: the database is down\n" in failure["message"]
    assert (recovery["title"], recovery["type"]) == ("blog (production) on web-1: the backup works again", "success")
    assert [one["kind"] for one in local.history() if one["event"] == "notice"] == [FAILED, RECOVERED]
    assert said.getvalue().count("notice sent") == 2


@pytest.mark.parametrize("text", ["<b>&amp;</b>", "$(id) `id`", "a\nb", "--flag", "ünï 🌊", '"\\n"', "*bold* {x} %s", "-b x"])
@pytest.mark.usefixtures("apprise")
def test_hostile_text_arrives_literally(receiver: Receiver, text: str) -> None:
    assert notices.send(receiver.url(), text.replace("\n", " "), text, failed=True) == ""
    assert receiver.received[0]["message"] == text


@pytest.mark.usefixtures("apprise")
def test_one_service_that_refuses_makes_the_others_hear_it_only_once(receiver: Receiver, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        settings = settings_of(tmp_path, f"json://127.0.0.1:{free.getsockname()[1]}/T0K3NT0K3N", receiver.url())
        local, said = store_of(settings), io.StringIO()
        local.note(run(NOW, False))
        for _ in range(2):
            tell(settings, local, Report(said), NOW)
    assert len(receiver.received) == 1
    assert "warning: a notice was not sent" in said.getvalue()
    assert "T0K3NT0K3N" not in said.getvalue() + (local.folder / "history.jsonl").read_text()


@pytest.mark.parametrize("url", ["T0K3NT0K3N", "nonsense://T0K3NT0K3N", "slack://T0K3NT0K3N", "json://[T0K3NT0K3N", "# T0K3NT0K3N", "a b://T0K3NT0K3N"])  # fmt: skip
@pytest.mark.usefixtures("apprise")
def test_a_wrong_url_is_a_problem_that_does_not_repeat_it(url: str) -> None:
    problem = notices.send(url, "t", "b", failed=True)
    assert problem
    assert "T0K3N" not in problem


def test_no_url_is_in_an_argument_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = tmp_path / "apprise"
    spy.write_text(f'#!/bin/sh\nexec > {tmp_path}/seen\nprintf "%s\\n" "$@"; env; cat\nfor one; do :; done\n')
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert notices.send("json://user:s3cr3tpass@host", "title", "text", failed=True) == ""
    seen = (tmp_path / "seen").read_text()
    assert "/dev/fd/" in seen
    assert "text" in seen
    assert "s3cr3tpass" not in seen


def test_a_missing_apprise_is_a_warning_and_a_note_and_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    settings = settings_of(tmp_path, "json://user:s3cr3tpass@host")
    local, said = store_of(settings), io.StringIO()
    local.note(run(NOW, False))
    tell(settings, local, Report(said), NOW)
    assert "apprise is not installed here" in said.getvalue()
    (note,) = [one for one in local.history() if one["event"] == "notice"]
    assert (note["ok"], "not installed" in note["error"]) == (False, True)


def test_a_service_that_hangs_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apprise").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "apprise").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(notices, "PATIENCE", 0.2)
    assert "no answer within 0.2 s" in notices.send("json://host", "t", "b", failed=True)


def test_no_trouble_and_no_urls_send_nothing(receiver: Receiver, tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    local = store_of(settings)
    local.note(run(NOW, False))
    tell(settings, local, Report(io.StringIO()), NOW)
    assert [one["event"] for one in local.history()] == ["run"]
    assert not receiver.received


@pytest.mark.usefixtures("apprise")
def test_an_off_site_copy_that_is_configured_no_more_is_not_told_of(receiver: Receiver, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, receiver.url())
    local = store_of(settings)
    local.note(run(NOW, True))
    local.note(record("offsite", NOW, False))
    tell(settings, local, Report(io.StringIO()), NOW)
    assert not receiver.received
    tell(replace(settings, offsite=Offsite("/r", "password")), local, Report(io.StringIO()), NOW)
    assert len(receiver.received) == 1


@pytest.mark.parametrize(("statuses", "asked", "ok"), [([200], 1, True), ([500, 200], 2, True), ([404, 500], 2, False)])
def test_the_dead_man_switch_is_asked_once_more_when_it_fails(
    receiver: Receiver, tmp_path: Path, statuses: list[int], asked: int, ok: bool
) -> None:
    receiver.statuses = statuses
    settings = settings_of(tmp_path, ping=f"http://127.0.0.1:{receiver.server_port}/ping/T0K3NT0K3N")
    local, said = store_of(settings), io.StringIO()
    local.note(record("run", NOW, True, id=ID))
    tell(settings, local, Report(said), NOW)
    assert len(receiver.asked) == asked
    assert [one["ok"] for one in local.history() if one["event"] == "ping"] == [ok]
    assert ("warning" in said.getvalue()) != ok
    assert "T0K3N" not in said.getvalue() + (local.folder / "history.jsonl").read_text()
    tell(settings, local, Report(said), NOW)
    assert len(receiver.asked) == asked + (not ok)


@pytest.mark.parametrize("good", [True, False])
def test_the_dead_man_switch_hears_only_of_backups_that_are_whole_and_proven(
    receiver: Receiver, tmp_path: Path, good: bool
) -> None:
    settings = settings_of(tmp_path, ping=f"http://127.0.0.1:{receiver.server_port}/ping")
    local = store_of(settings, good=good)
    local.note(record("run", NOW, good, id=ID))
    tell(settings, local, Report(io.StringIO()), NOW)
    assert bool(receiver.asked) == good
    if good:
        local.note(record("run", NOW, True, id=ID + "x"))
        tell(settings, local, Report(io.StringIO()), NOW)
        assert len(receiver.asked) == 1


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/x", "T0K3NT0K3N", "http://[T0K3NT0K3N", "http://T0K3NT0K3N:99999/"]
)
def test_a_wrong_ping_url_is_a_problem_that_does_not_repeat_it(url: str) -> None:
    problem = notices.ping(url)
    assert problem
    assert "T0K3N" not in problem
