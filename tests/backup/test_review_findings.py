"""Ways to lose data, or to believe in data that is lost, each of which was open once."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import posix
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backup import restoring, scheduling, show
from backup.agent import attempts, cli, commands, install, notices, offsite, store, verify
from backup.agent.errors import BackupError, Refused, Stopped
from backup.agent.model import Manifest, Offsite
from backup.agent.report import Report
from backup.agent.restore import _swap_back
from backup.agent.retention import Known, Policy, decide
from backup.agent.run import Run
from backup.agent.writers import Paused, Writer, Writers
from backup.client import Client
from backup.hosts import Done
from backup.progress import Printer
from backup.restoring import Replaced
from ops import errors
from ops.agent import files
from ops.console import Console
from tests.backup.agent_run import App, die_at, manifests
from tests.backup.local_servers import ONE, TWO, Servers, make


@pytest.fixture
def app(tmp_path: Path) -> App:
    found = App(tmp_path)
    found.fill()
    return found


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Servers:
    return make(tmp_path, monkeypatch)


def redate(app: App, id: str, taken: datetime) -> None:
    manifest = app.folder / id / "manifest.json"
    known = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**known, "started": f"{taken:%Y-%m-%dT%H:%M:%SZ}"}))


def history(app: App, event: str) -> list[dict[str, Any]]:
    return [one for one in app.work().store.history() if one["event"] == event]


@contextmanager
def deaf(app: App, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Send notices nowhere and keep their texts."""
    told: list[str] = []

    def send(_url: str, title: str, text: str, *, failed: bool) -> str:
        told.append(f"{title}\n{text}")
        return "" if failed or "again" in title else "what is that?"

    monkeypatch.setattr(notices, "send", send)
    app.with_settings(notify=("json://nowhere.invalid",))
    yield told


def test_each_server_is_asked_to_restore_only_what_its_own_backup_has(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    env = servers.env.model_copy(update={"hosts": (ONE, TWO)})
    planned = [Replaced(server, source, "", "", 1, "") for server, source in
               ((ONE.name, "posts"), (ONE.name, "main"), (TWO.name, "posts"))]  # fmt: skip
    asked: dict[str, str] = {}

    def call(self: Client, command: str, *words: str, **_: Any) -> dict[str, Any]:
        asked[self.name] = words[words.index("--only") + 1]
        return {}

    monkeypatch.setattr(Client, "call", call)
    restoring.restore(env, {}, Printer(Console(), 2), "20261123T000000Z-abcdef", planned, force=False, skip_safety=False)
    assert asked == {ONE.name: "posts,main", TWO.name: "posts"}


def test_a_schedule_is_taken_away_on_servers_too_that_have_nothing_to_save_any_more(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = servers.env.model_copy(update={"hosts": (ONE, TWO), "app": servers.env.app.model_copy(update={"backup": None})})
    asked: list[str] = []

    def on_each(env: Any, work: Any, secrets: Any, hosts: Any = ()) -> Done:
        asked.extend(host.name for host in hosts)
        return Done({}, {})

    monkeypatch.setattr(scheduling, "on_each", on_each)
    scheduling.schedule(env, {}, Printer(Console(), 2), lambda *_: True, remove=True)
    assert asked == [ONE.name, TWO.name]


def test_the_settings_of_another_environments_backups_are_never_overwritten(servers: Servers) -> None:
    with servers.client() as client:
        client.ensure()
    before = (servers.app / "backup.json").read_bytes()
    servers.env = servers.env.model_copy(update={"name": "staging"})
    with servers.client() as client, pytest.raises(errors.Refused, match="those of environment test"):
        client.call("run")
    assert (servers.app / "backup.json").read_bytes() == before


def test_a_rollback_does_not_fail_for_want_of_root(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any) -> None:
        raise errors.Refused("backups run as root, and we cannot become root there")

    monkeypatch.setattr(Client, "_run", run)
    with servers.client(told=False) as client:
        assert client.peek("state") is None


def test_the_newest_backup_is_the_one_taken_last_whatever_the_clock_that_named_it(app: App) -> None:
    named_ahead = app.call(commands.run, id="20291123T000000Z-aaaaaa")["id"]
    redate(app, named_ahead, datetime.now(UTC) - timedelta(days=3))
    last = app.call(commands.run)["id"]
    assert commands.newest(app.work().store).id == last
    assert app.call(commands.status)["newest"] == last


def test_a_backup_from_the_future_makes_nothing_look_fresh_and_stops_no_drill_and_no_second_store(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, future = app.call(commands.run)["id"], app.call(commands.run)["id"]
    redate(app, old, datetime.now(UTC) - timedelta(days=2))
    redate(app, future, datetime.now(UTC) + timedelta(days=3650))
    found = app.call(commands.status)
    assert (found["stale"], found["newest"]) == (True, old)
    settings = replace(app.settings, offsite=Offsite("x", "y"))
    pending = offsite.pending(settings, app.work().store)
    assert pending
    assert pending.id == old
    app.with_settings(drill_every=1.0)
    app.work().store.note({"event": "verify", "level": "restore", "id": future, "ok": True, "finished": "2036-01-01T00:00:00Z"})
    drilled: list[str] = []

    def prove(_work: Any, backup: store.Backup, *_: Any) -> Any:
        drilled.append(backup.id)
        return backup.proofs[0]

    monkeypatch.setattr(attempts, "put_to_the_proof", prove)
    attempts.drill(app.work())
    assert drilled == [old]


class Full:
    """A log on a disk without room."""

    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        raise AssertionError("nothing was written")


def test_a_full_disk_below_the_log_fails_no_backup(app: App) -> None:
    app.said = Full()  # type: ignore[assignment]
    assert app.call(commands.run)["result"] == "complete"


def test_a_run_gives_up_before_it_takes_the_room_that_must_stay(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    room = iter([10**12])  # at the first look, before it begins

    def disk_usage(_: Path) -> SimpleNamespace:
        return SimpleNamespace(free=next(room, 10**6))

    app.with_settings(reserve=10**9)
    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    with pytest.raises(BackupError, match="must stay free"):
        app.call(commands.run)
    assert not manifests(app.folder)


def test_on_a_full_disk_people_are_told_though_no_history_can_be_written(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "_append", full)
    monkeypatch.setattr(files, "write", full)
    monkeypatch.setattr(Run, "take", full)
    with deaf(app, monkeypatch) as told, pytest.raises(OSError, match="No space"):
        app.call(commands.run)
    (text,) = told
    assert "No space left on device" in text


def test_a_failure_nobody_foresaw_is_written_down_and_told(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(Run, "take", broken)
    with deaf(app, monkeypatch) as told, pytest.raises(KeyError):
        app.call(commands.run)
    assert [one["ok"] for one in history(app, "run")] == [False]
    assert "surprise" in told[0]


def test_a_run_that_is_killed_every_time_is_told_by_the_next(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        posix._exit(9)

    with deaf(app, monkeypatch) as told:
        with monkeypatch.context() as patch:
            patch.setattr(Run, "take", killed)
            for _ in range(2):
                assert die_at(10**9, lambda: app.call(commands.scheduled_run))[0] == 9
        assert [one["error"] for one in history(app, "run")] == [attempts.CUT_OFF]
        app.call(commands.scheduled_run)
    assert [one["ok"] for one in history(app, "run")] == [False, False, True]
    assert "works again" in told[-1]


def test_a_run_that_somebody_stopped_is_no_failure(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Run, "take", stopped)
        with pytest.raises(Stopped):
            app.call(commands.run)
    app.call(commands.scheduled_run)
    assert [one["ok"] for one in history(app, "run")] == [True]


def test_a_run_that_hangs_is_ended_and_told(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [(one, signal.getsignal(one)) for one in (*cli._SIGNALS, signal.SIGALRM)]
    monkeypatch.setattr(attempts, "LONGEST", 1)
    monkeypatch.setattr(Run, "take", lambda *_: threading.Event().wait(30))
    cli._catch_signals()
    try:
        with pytest.raises(BackupError, match="did not end"):
            app.call(commands.scheduled_run)
    finally:
        for one, handler in before:
            signal.signal(one, handler)
    assert [one["ok"] for one in history(app, "run")] == [False]


def test_a_second_store_that_is_down_does_not_put_off_the_drills(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any) -> None:
        raise BackupError("nobody answers")

    app.with_settings(drill_every=86400.0, offsite=Offsite("x", "y"))
    monkeypatch.setattr(offsite, "store", down)
    with pytest.raises(BackupError, match="nobody answers"):
        app.call(commands.scheduled_run)
    assert [one["level"] for one in history(app, "verify")] == ["restore"]


def test_while_a_restore_is_unfinished_no_backup_of_half_restored_data_passes_for_a_good_one(app: App) -> None:
    app.call(commands.run)
    (app.settings.folder / "restore.json").touch()
    with pytest.raises(Refused, match="never finished"):
        app.call(commands.scheduled_run)
    assert len(manifests(app.folder)) == 1
    assert [one["ok"] for one in history(app, "run")] == [True, False]


def test_a_releases_file_that_a_deploy_renames_meanwhile_or_that_is_damaged_costs_no_backup(app: App) -> None:
    releases = app.settings.folder / "releases"
    releases.mkdir(parents=True)
    (releases / "gone.staged").symlink_to(releases / "nothing")
    (releases / "torn.json").write_bytes(b"\xff\xfe{")
    assert app.call(commands.run)["result"] == "complete"


def test_a_file_that_the_disk_cannot_give_back_makes_a_backup_no_longer_good(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    id = app.call(commands.run)["id"]

    def dying(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(verify, "measure", dying)
    with pytest.raises(BackupError, match="cannot be read"):
        app.call(commands.prove, id=id)
    assert not app.work().store.get(id).good


def test_a_pin_waits_for_an_expiry_that_may_have_decided_already(app: App) -> None:
    id = app.call(commands.run)["id"]
    with app.work().store.locked("an expiry"), pytest.raises(BackupError, match="another run"):
        app.call(commands.pin, id=id, note="keep")
    assert app.call(commands.pin, id=id, note="keep")["pinned"] == "keep"


def test_what_was_swapped_inside_a_folder_is_swapped_back_after_the_folder() -> None:
    order: list[str] = []

    class Made:
        def __init__(self, name: str) -> None:
            self.swap_back = lambda: order.append(name)

    _swap_back({name: Made(name) for name in ("file", "folder around it")})  # type: ignore[misc]
    assert order == ["folder around it", "file"]


class Calls:
    """An engine that knows one container of two, and keeps what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def call(self, method: str, path: str, timeout: float = 0) -> list[str]:
        return [] if "gone" in path else ["one"]

    def sequence(self, calls: list[list[Any]]) -> None:
        self.asked += [path for _, path, *_ in calls]


def test_a_container_that_somebody_removed_does_not_bar_the_way_back_from_a_restore(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Calls()
    writers = Writers(app.settings, Report(app.said))  # type: ignore[arg-type]
    monkeypatch.setattr(writers, "_engine", engine)
    monkeypatch.setattr("backup.agent.writers.waits.healthy", lambda *_: {"ok": True})
    writers.start(Paused((Writer("there", "", "", {}), Writer("gone", "", "", {}))), must=False)
    assert engine.asked == ["/containers/there/start", "/containers/there/update"]
    assert "gone is gone" in "".join(app.said.text)


def test_a_backup_without_a_source_that_is_not_there_yet_does_not_stand_for_all_of_the_data(app: App) -> None:
    shutil.rmtree(app.uploads)
    id = app.call(commands.run, first=True)["id"]
    found = app.work().store.get(id)
    assert (found.good, found.whole, found.manifest.only) == (True, False, ("posts",))


def test_who_keeps_a_hundred_backups_waits_for_three_in_a_row_after_an_outage_and_not_for_a_hundred() -> None:
    now = datetime(2026, 11, 23, 4, tzinfo=UTC)
    ages = [*range(4), *range(7, 200)]
    known = [Known(f"{age}", now - timedelta(days=age), frozenset({"daily"}), good=True) for age in ages]
    assert decide(known, Policy(minimum=100), now).frozen == ()
    assert decide(known[2:], Policy(minimum=100), now - timedelta(days=2)).frozen


def test_who_encrypts_is_told_that_nothing_is_restored_by_itself(app: App) -> None:
    app.with_settings(recipients=("age1x",), drill_every=86400.0)
    app.settings.folder.mkdir(parents=True)
    found = app.call(commands.status)
    assert any("inv backup.verify" in words for _, words in show._standing(found))


def test_before_a_restore_the_servers_that_are_left_alone_are_named(servers: Servers) -> None:
    env = servers.env.model_copy(update={"hosts": (ONE, TWO)})
    assert restoring.left_alone(env, [Replaced(ONE.name, "posts", "", "", 1, "")]) == [TWO.name]


def test_an_installation_that_was_killed_does_not_bar_the_next_one(tmp_path: Path) -> None:
    (tmp_path / f"file.{os.getpid()}.new").write_text("half")
    install._put(str(tmp_path / "file"), 0o600, hashlib.sha256(b"whole").hexdigest(), base64.b64encode(b"whole").decode())
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "whole")]


def test_what_is_brought_back_is_this_servers_own_and_never_another_ones_of_the_same_run() -> None:
    stored = [offsite.Stored("20260101T000000Z-abcdef", server, frozenset({"daily"}), server) for server in ("one", "two")]
    assert offsite._saved_as("20260101T000000Z-abcdef", stored, "two").server == "two"
    assert offsite._saved_as("20260101T000000Z-abcdef", stored[:1], "new").server == "one"
    with pytest.raises(BackupError, match="several servers"):
        offsite._saved_as("20260101T000000Z-abcdef", stored, "new")
    with pytest.raises(BackupError, match="no backup"):
        offsite._saved_as("20250101T000000Z-abcdef", stored, "one")


def test_an_old_backup_that_is_brought_back_does_not_expire_before_it_is_restored(
    app: App, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    id = app.call(commands.run, types="daily")["id"]
    redate(app, id, datetime.now(UTC) - timedelta(days=300))
    kept = app.folder / id
    away = kept.rename(tmp_path / "away")
    for _ in range(3):
        app.call(commands.run)

    def fetch(_settings: Any, _id: str, target: Path, _report: Any) -> Any:
        for one in away.iterdir():
            if one.name.startswith(("posts", "uploads")):
                shutil.copy(one, target)
        return Manifest.from_json((away / "manifest.json").read_text())

    monkeypatch.setattr(offsite, "fetch", fetch)
    app.with_settings(offsite=Offsite("x", "y"))
    app.call(commands.retrieve, id=id)
    app.call(commands.prune)
    assert kept.exists()
