"""Restores, rehearsals and schedules as people type them: the real program on a server, and an engine that answers there."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
from invoke import Context, Exit

import tasks
from backup import schedule, scheduling
from backup import tasks as backups
from backup.hosts import Done
from backup.rehearsing import Trial, _where
from backup.schedule import Schedule
from deploy import rehearsal
from deploy import session as sessions
from ops import menu
from ops.errors import Failed
from ops.secret import Secret
from tests import an_engine
from tests.backup.local_servers import ONE, TWO, Servers, configure, make, serve_engine


class Engine(an_engine.Engine):
    """Keeps volumes as folders; a container's run is what `migrates` does to them, and its exit code."""

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.volumes: dict[str, Path] = {}
        self.migrates: Any = lambda volumes: 0
        self.created: dict[str, Any] = {}
        self._code = 0

    def answer(self, what: str, body: Any) -> tuple[int, bytes]:
        method, path = what.split(" ")
        words = path.strip("/").split("/")
        if words[0] == "volumes":
            return self._volume(method, words[1:], body)
        if (method, path) == ("POST", "/containers/create"):
            self.created = body
        elif words[-1] == "start":
            self._code = self.migrates(self.volumes)
        elif words[-1] == "logs":
            return 200, b"\x01\0\0\0\0\0\0\x09migrated\n"
        elif words[0] == "containers" and method == "GET" and words[1] != "json":
            return 200, json.dumps({"State": {"Status": "exited", "ExitCode": self._code}}).encode()
        return 200, b"[]"

    def _volume(self, method: str, words: list[str], body: Any) -> tuple[int, bytes]:
        if words == ["create"]:
            self.volumes[body["Name"]] = self.socket_path.parent / body["Name"]
            self.volumes[body["Name"]].mkdir()
        elif method == "DELETE":
            self.volumes.pop(words[0], None)
        elif words and words[0] in self.volumes:
            return 200, json.dumps({"Mountpoint": str(self.volumes[words[0]])}).encode()
        elif words:
            return 404, b"{}"
        return 200, b'{"Volumes": null}'


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "engine.sock") as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        found.ends.set()
        found.shutdown()


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> Iterator[Servers]:
    made = make(tmp_path, monkeypatch)
    configure(made, monkeypatch)
    serve_engine(engine, monkeypatch)
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield made
    for one, handler in before.items():
        signal.signal(one, handler)


def typed(task: Any, **asked: Any) -> int:
    """Carry out a task and return its exit code."""
    try:
        task.body(Context(), env="test", **asked)
    except Exit as end:
        print(end.message, file=sys.stderr)
        return int(end.code)
    return 0


def saved(capsys: pytest.CaptureFixture[str]) -> str:
    """Take a backup and return its id."""
    assert typed(backups.backup_run, json=True) == 0
    return str(json.loads(capsys.readouterr().out)["servers"][ONE.address]["id"])


def posts(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "blog.db")) as database:
        return [text for (text,) in database.execute("SELECT text FROM posts")]


def change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "blog.db")) as database:
        database.executescript(statement)


def test_a_restore_says_what_it_replaces_asks_and_keeps_what_was_live(
    servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    id = saved(capsys)
    change(servers.folder, "DELETE FROM posts; INSERT INTO posts VALUES ('broken');")
    assert typed(backups.backup_restore, id=id) == 3
    shown = capsys.readouterr()
    assert f"replace the live data of blog in test with backup {id}?" in shown.out
    assert f"{servers.folder}/blog.db" in shown.out
    assert posts(servers.folder) == ["broken"]
    assert typed(backups.backup_restore, id=id, yes=True) == 0
    said = capsys.readouterr().out
    assert f"{id} is restored" in said
    assert "what was live is kept as" in said
    assert "the data from before is also backup" in said
    assert posts(servers.folder) == ["one", "two"]


def test_a_backup_or_a_source_that_is_not_there_is_told_before_anything_is_asked(
    servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    id = saved(capsys)
    assert typed(backups.backup_restore, id="20260101T000000Z-abcdef", yes=True) == 3
    assert "no server has 20260101T000000Z-abcdef" in capsys.readouterr().err
    assert typed(backups.backup_restore, id=id, source="postings", yes=True) == 2
    assert "no source is called postings" in capsys.readouterr().err


def test_where_no_restore_died_there_is_nothing_to_undo(servers: Servers, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(backups.backup_restore_undo) == 0
    assert "nothing to undo" in capsys.readouterr().out


def test_nothing_is_deleted_against_a_frozen_policy_without_a_yes(servers: Servers, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(backups.backup_prune, thaw=True) == 3
    assert "although the policy is frozen" in capsys.readouterr().out
    assert not servers.program.exists()
    assert typed(backups.backup_prune, thaw=True, yes=True) == 0


@pytest.mark.parametrize("asked", [{"task": "elsewhere"}, {"task": "retrieve", "id": "20260101T000000Z-abcdef"}])
def test_without_a_second_store_there_is_nothing_to_ask_of_it(
    servers: Servers, capsys: pytest.CaptureFixture[str], asked: dict[str, str]
) -> None:
    task = getattr(backups, f"backup_{asked.pop('task')}")
    assert typed(task, **asked) == 3
    assert "[app.backup.offsite] in ops.toml" in capsys.readouterr().err


@pytest.fixture
def rehearsed(servers: Servers, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """A backup of a database in a volume of an app that migrates; the next version lies on the server."""
    live = servers.folder / "live"
    live.mkdir()
    (servers.folder / "blog.db").rename(live / "blog.db")
    engine.volumes["blog_data"] = live
    app = 'volumes = { data = "/data" }\nmigrate = { command = ["migrate"] }\n'
    configure(servers, monkeypatch, app, 'kind = "sqlite", volume = "data", path = "blog.db"')
    ahead = rehearsal.Next("tidegate/blog:v2", "v2", ("migrate",), {"KEY": Secret("hunter2hunter2"), "MODE": "live"}, 30.0)
    monkeypatch.setattr(rehearsal, "bring", lambda *_: ahead)
    monkeypatch.setattr(sessions, "Session", lambda *_, **__: nullcontext())
    return saved(capsys)


def test_a_migration_is_rehearsed_on_a_copy_with_the_apps_environment(
    servers: Servers, engine: Engine, rehearsed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def migrate(volumes: dict[str, Path]) -> int:
        (copy,) = (path for name, path in volumes.items() if name != "blog_data")
        change(copy, "ALTER TABLE posts ADD COLUMN title; DELETE FROM posts WHERE text = 'two';")
        return 0

    engine.migrates = migrate
    assert typed(tasks.rehearse) == 0
    said = capsys.readouterr().out
    assert f"the migration of v2 on a copy of {rehearsed} took" in said
    assert "changed the schema" in said
    assert "posts posts: 2 rows before, 1 after" in said
    assert "    migrated" in said
    assert "hunter2" not in said
    assert engine.created["Env"] == ["KEY=hunter2hunter2", "MODE=live"]
    assert posts(servers.folder / "live") == ["one", "two"]
    assert list(engine.volumes) == ["blog_data"]


def test_a_migration_that_fails_on_the_copy_has_an_exit_code_and_harms_nothing(
    servers: Servers, engine: Engine, rehearsed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.migrates = lambda volumes: 4
    assert typed(tasks.rehearse, id=rehearsed, json=True) == 1
    shown = capsys.readouterr()
    assert "FAILED with exit code 4" in shown.err
    assert json.loads(shown.out)["servers"][ONE.address]["exit_code"] == 4


def test_it_is_rehearsed_wherever_a_deploy_migrates(servers: Servers, rehearsed: str) -> None:
    env = menu.environment_of("test").model_copy(update={"hosts": (ONE, TWO)})
    assert _where(env) == (ONE,)
    each = env.app.model_copy(update={"migrate": env.app.migrate.model_copy(update={"on": "each"})}) if env.app.migrate else None
    assert _where(env.model_copy(update={"app": each})) == (ONE, TWO)
    assert Trial("i", ["a"], {}, 1.0).timeout == 1.0


class Reached:
    """A server of a schedule."""

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> Reached:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def schedules(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to servers' schedules."""
    done: list[str] = []

    def install(*_: Any) -> Schedule:
        done.append("install")
        return Schedule("cron", 7, ())

    def remove(*_: Any) -> bool:
        done.append("remove")
        return True

    for name, act in {"survey": lambda env, host: (), "install": install, "remove": remove}.items():
        monkeypatch.setattr(schedule, name, act)
    monkeypatch.setattr(scheduling, "Host", Reached)
    return done


def test_a_schedule_is_installed_with_the_program_that_it_calls(
    servers: Servers, schedules: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(backups.backup_schedule) == 0
    said = capsys.readouterr().out
    assert "everything is in place" in said
    assert "cron calls every hour at minute 7" in said
    assert schedules == ["install"]
    assert servers.program.exists()


def test_it_is_taken_away_where_somebody_agrees(
    servers: Servers, schedules: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(backups.backup_schedule, remove=True) == 0
    assert "the schedule is gone; backups stay" in capsys.readouterr().out
    assert schedules == ["remove"]
    assert not servers.program.exists()
    with (servers.folder / "ops.toml").open("a") as file:
        file.write("approve = true\n")
    assert typed(backups.backup_schedule, remove=True) == 3
    assert schedules == ["remove"]
    assert "declined, nothing was changed" in capsys.readouterr().err


def test_what_went_wrong_on_any_server_is_told_with_the_worst_code() -> None:
    backups.tell_errors(Done({}, {}))
    with pytest.raises(Exit, match="✗ one: broken") as caught:
        backups.tell_errors(Done({}, {"one": Failed("broken", where="one")}))
    assert caught.value.code == 1
