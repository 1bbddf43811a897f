"""Runs on a real SQLite file and a real folder: what gets a name, what is told, and what is left when things go wrong."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backup.agent import commands
from backup.agent.errors import BackupError, Busy, Partial, Refused, Stopped, Untried
from backup.agent.model import Item, Settings, Source
from backup.agent.source import Kinds, Stage
from backup.agent.sqlite import Sqlite
from backup.agent.store import Store
from ops.agent.engine import Engine
from tests.backup.agent_run import KINDS, App, manifests

NEEDS_AGE = pytest.mark.skipif(not shutil.which("age"), reason="age is not installed (Debian package age)")


@pytest.fixture
def app(tmp_path: Path) -> App:
    found = App(tmp_path)
    found.fill()
    return found


def leftovers(app: App) -> list[str]:
    return [
        one.name
        for one in app.folder.iterdir()
        if one.name not in (".lock", "history.jsonl") and one.name not in manifests(app.folder)
    ]


def history(app: App) -> list[dict[str, Any]]:
    return Store(app.folder).history()


def test_a_backup_says_what_it_holds_and_is_good_at_once(app: App) -> None:
    done = app.call(commands.run, types="daily,weekly", before="v2")
    assert (done["result"], done["types"], done["before"]) == ("complete", ("daily", "weekly"), "v2")
    (posts, uploads) = done["items"]
    assert posts["counts"] == {"posts": 20}
    assert posts["schema"]
    assert uploads["counts"]["entries"] >= 1
    (shown,) = app.call(commands.listing)["backups"]
    assert shown["good"]
    assert [proof["level"] for proof in shown["proofs"]] == ["full"]


def test_only_root_can_read_it(app: App) -> None:
    id = app.call(commands.run)["id"]
    assert app.folder.stat().st_mode & 0o777 == 0o700
    assert (app.folder / id).stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (app.folder / id).iterdir()} == {0o600}


def test_stock_tools_agree_with_the_checksums(app: App) -> None:
    id = app.call(commands.run)["id"]
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=app.folder / id, check=True)


class Broken(Sqlite):
    """A source whose dump ends in an error, after it has written something."""

    def __init__(self, settings: Settings, source: Source, engine: Engine) -> None:
        super().__init__(settings, source, engine)

    def dump(self, stage: Stage) -> Item:
        super().dump(stage)
        raise BackupError("the disk is on fire")


def test_a_source_that_fails_is_told_and_does_not_hide_the_others(app: App) -> None:
    with pytest.raises(Partial, match="lacks posts") as caught:
        app.call(commands.run, Kinds({**KINDS.make, "sqlite": Broken}))
    assert caught.value.exit_code == 6
    (shown,) = app.call(commands.listing)["backups"]
    assert shown["failed"] == {"posts": "the disk is on fire"}
    assert [item["source"] for item in shown["items"]] == ["uploads"]
    assert not shown["good"]
    assert not list((app.folder / shown["id"]).glob("posts*"))
    assert not history(app)[-1]["ok"]


def test_a_partial_backup_that_is_tried_again_takes_the_place_of_the_last_one(app: App) -> None:
    broken = Kinds({**KINDS.make, "sqlite": Broken})
    for n in range(3):
        with pytest.raises(Partial):
            app.call(commands.run, broken, id=f"20260101T00000{n}Z-00000{n}")
    assert list(manifests(app.folder)) == ["20260101T000002Z-000002"]
    app.call(commands.run, id="20260101T000003Z-000003")
    assert list(manifests(app.folder)) == ["20260101T000003Z-000003"]


def test_a_partial_backup_with_something_the_newer_one_lacks_stays(app: App) -> None:
    with pytest.raises(Partial):
        app.call(commands.run, Kinds({**KINDS.make, "sqlite": Broken}), id="20260101T000000Z-000000")
    shutil.rmtree(app.uploads)
    with pytest.raises(Partial):
        app.call(commands.run, id="20260101T000001Z-000001")
    assert len(manifests(app.folder)) == 2


def test_a_partial_backup_deletes_nothing(app: App) -> None:
    app.with_settings(minimum=1, keep={"manual": {"count": 1}})
    first = app.call(commands.run)["id"]
    with pytest.raises(Partial):
        app.call(commands.run, Kinds({**KINDS.make, "sqlite": Broken}))
    assert first in manifests(app.folder)


def test_when_nothing_could_be_saved_nothing_gets_a_name(app: App) -> None:
    app.database.unlink()
    shutil.rmtree(app.uploads)
    with pytest.raises(BackupError, match="it is not there"):
        app.call(commands.run)
    assert manifests(app.folder) == {}
    assert leftovers(app) == []
    assert "it is not there" in history(app)[-1]["error"]


def test_before_the_first_deploy_there_may_be_nothing_to_save(app: App) -> None:
    app.database.unlink()
    shutil.rmtree(app.uploads)
    assert app.call(commands.run, first=True)["id"] is None
    assert manifests(app.folder) == {}


def test_a_source_of_no_bytes_is_not_a_backup(app: App) -> None:
    app.database.write_bytes(b"")
    Path(f"{app.database}-wal").unlink(missing_ok=True)
    with pytest.raises(Partial, match="posts"):
        app.call(commands.run)


class Truncated(Sqlite):
    """A dump of which half is lost between the compressor and the disk, with every exit status zero."""

    def dump(self, stage: Stage) -> Item:
        item = super().dump(stage)
        for file in item.files:
            os.truncate(stage.folder / file.name, file.bytes // 2)
        return item


def test_what_cannot_be_decoded_to_its_end_is_no_backup_whatever_the_exit_codes_said(app: App) -> None:
    with pytest.raises(Partial, match="posts"):
        app.call(commands.run, Kinds({**KINDS.make, "sqlite": Truncated}))


class Told(Sqlite):
    """A dump in the middle of which we are told to stop."""

    def dump(self, stage: Stage) -> Item:
        super().dump(stage)
        raise Stopped


def test_a_run_that_is_told_to_stop_leaves_nothing(app: App) -> None:
    with pytest.raises(Stopped):
        app.call(commands.run, Kinds({**KINDS.make, "sqlite": Told}))
    assert manifests(app.folder) == {}
    assert leftovers(app) == []


def test_without_room_nothing_is_begun(app: App) -> None:
    app.with_settings(reserve=2**60)
    with pytest.raises(Refused, match="MB are needed"):
        app.call(commands.run)
    assert leftovers(app) == []


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Hold a lock as another process would."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_two_runs_never_overlap_and_the_second_says_so(app: App) -> None:
    with held(app.folder / ".lock"), pytest.raises(Busy, match="another run") as caught:
        app.call(commands.run)
    assert caught.value.exit_code == 4
    assert app.call(commands.run)["result"] == "complete"


def test_a_missing_compressor_costs_size_and_not_the_backup(app: App, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("gzip", "tar", "cat", "wc", "sh"):
        (programs / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(programs))
    done = app.call(commands.run)
    assert done["compression"] == "gzip"
    assert any("zstd is not installed" in line for line in app.said.text)


@pytest.mark.parametrize("codec", ["zstd", "gzip", "xz", "none"])
def test_every_compression_is_decoded_again(app: App, codec: str) -> None:
    app.with_settings(compression=codec)
    id = app.call(commands.run)["id"]
    assert app.call(commands.prove, id=id, level="restore")["ok"]


def damage(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["posts", "uploads"])
def test_one_flipped_bit_is_found_and_the_backup_counts_no_more(app: App, name: str) -> None:
    id = app.call(commands.run)["id"]
    (file,) = (app.folder / id).glob(f"{name}.*")
    damage(file)
    with pytest.raises(BackupError, match="damaged"):
        app.call(commands.prove, id=id, level="checksums")
    (shown,) = app.call(commands.listing)["backups"]
    assert not shown["good"]
    assert not shown["proofs"][-1]["ok"]


def test_a_file_that_is_gone_is_found(app: App) -> None:
    id = app.call(commands.run)["id"]
    next((app.folder / id).glob("posts.*")).unlink()
    with pytest.raises(BackupError, match="is gone"):
        app.call(commands.prove, id=id)


def test_rows_that_differ_from_the_manifest_fail_the_restore_test(app: App) -> None:
    id = app.call(commands.run)["id"]
    path = app.folder / id / "manifest.json"
    path.write_text(path.read_text().replace('"posts": 20', '"posts": 21'))
    with pytest.raises(BackupError, match="posts"):
        app.call(commands.prove, id=id, level="restore")


@pytest.mark.parametrize(("query", "passes"), [("SELECT count(*) > 0 FROM posts", True), ("SELECT count(*) > 99 FROM posts", False), ("nonsense", False)])  # fmt: skip
def test_the_users_smoke_query_decides_too(app: App, query: str, passes: bool) -> None:
    sources = tuple(replace(one, smoke=query) if one.kind == "sqlite" else one for one in app.settings.sources)
    app.with_settings(sources=sources)
    id = app.call(commands.run)["id"]
    if passes:
        assert app.call(commands.prove, id=id, level="restore")["ok"]
    else:
        with pytest.raises(BackupError):
            app.call(commands.prove, id=id, level="restore")


@NEEDS_AGE
def test_an_encrypted_backup_is_proved_before_and_cannot_be_read_here_afterwards(app: App, tmp_path: Path) -> None:
    key = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    public = next(line.rpartition(" ")[2] for line in key.splitlines() if "public key" in line)
    app.with_settings(recipients=(public,))
    id = app.call(commands.run)["id"]
    files = [one.name for one in (app.folder / id).iterdir()]
    assert [one for one in files if one.startswith(("posts", "uploads"))] == [one for one in files if one.endswith(".age")]
    assert b"SQLite" not in b"".join(one.read_bytes() for one in (app.folder / id).glob("*.age"))
    with pytest.raises(Untried, match="encrypted"):
        app.call(commands.prove, id=id)
    assert app.call(commands.listing)["backups"][0]["good"]  # that it could not be tried says nothing against it
    work = replace(app.work(), request={"identity": key})
    from argparse import Namespace

    assert commands.prove(work, Namespace(id=id, level="restore"))["ok"]


def test_status_is_stale_without_a_good_backup_and_fresh_after_one(app: App) -> None:
    app.folder.mkdir(parents=True)
    assert app.call(commands.status)["stale"]
    app.call(commands.run)
    found = app.call(commands.status)
    assert (found["stale"], found["good"]) == (False, 1)
    assert found["last_attempt"]["ok"]


def test_what_a_release_names_is_kept_as_its_restore_point(app: App) -> None:
    app.with_settings(minimum=1, keep={"manual": {"count": 1}})
    ids = [f"20260101T00000{n}Z-00000{n}" for n in range(3)]
    releases = app.settings.folder / "releases"
    releases.mkdir(parents=True)
    (releases / "v1.json").write_text(json.dumps({"id": "v1", "backup": ids[0]}))
    for id in ids:
        app.call(commands.run, id=id)
    assert app.call(commands.explain)["kept"][ids[0]] == ("restore point of release v1",)
    assert set(manifests(app.folder)) == {ids[0], ids[2]}


def test_a_table_dropped_between_two_backups_stops_the_expiry(app: App) -> None:
    app.with_settings(minimum=1, keep={"manual": {"count": 1}})
    with sqlite3.connect(app.database) as connection:
        for n in range(4):
            connection.execute(f"CREATE TABLE t{n} (x)")
    connection.close()
    first = app.call(commands.run, id="20260101T000000Z-000001")["id"]
    with sqlite3.connect(app.database) as connection:
        for n in range(4):
            connection.execute(f"DROP TABLE t{n}")
    connection.close()
    app.call(commands.run, id="20260101T000000Z-000002")
    assert first in manifests(app.folder)
    assert any("tables" in line for line in app.said.text)


def test_a_frozen_expiry_is_thawed_only_when_asked_and_spares_what_has_another_reason(app: App) -> None:
    app.with_settings(minimum=1, keep={"manual": {"count": 1}})
    ids = [f"20260101T00000{n}Z-00000{n}" for n in range(3)]
    app.call(commands.run, id=ids[0])
    app.call(commands.run, id=ids[1])
    with sqlite3.connect(app.database) as connection:
        connection.execute("DROP TABLE posts")
    connection.close()
    app.call(commands.run, id=ids[2])
    assert app.call(commands.explain)["frozen"]
    assert app.call(commands.prune)["deleted"] == []
    assert set(app.call(commands.prune, thaw=True, dry_run=True)["due"]) == {ids[1]}
    assert app.call(commands.prune, thaw=True)["deleted"] == [ids[1]]
    assert set(manifests(app.folder)) == {ids[2]}


def test_folders_that_are_not_backups_of_this_app_are_never_touched(app: App) -> None:
    app.with_settings(minimum=1, keep={"manual": {"count": 1}})
    app.folder.mkdir(parents=True)
    (app.folder / "notes of mine").mkdir()
    other = app.folder / "20200101T000000Z-aaaaaa"
    other.mkdir()
    (other / "manifest.json").write_text("{}")
    app.call(commands.run)
    app.call(commands.run)
    assert (app.folder / "notes of mine").is_dir()
    assert other.is_dir()
    assert any("damaged and not touched" in one for one in app.call(commands.listing)["problems"])


def test_a_backup_of_some_sources_does_not_stand_for_the_apps_data(app: App) -> None:
    app.call(commands.run, only="uploads", types="safety")
    (shown,) = app.call(commands.listing)["backups"]
    assert (shown["good"], shown["only"]) == (True, ("uploads",))
    assert app.call(commands.status)["stale"]
    app.call(commands.run, only="posts,uploads")
    assert not app.call(commands.status)["stale"]


def test_counts_that_are_not_of_the_dumps_moment_are_compared_with_nothing() -> None:
    sure = Item("main", "mariadb", (), {"posts": 3})
    assert sure.differences({"posts": 4}) == "posts: 4 instead of 3"
    assert replace(sure, exact=False).differences({"posts": 4}) == ""
