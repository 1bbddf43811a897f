"""SQLite files: saved whole while the app writes, proved, and put back with whatever dies in between."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backup.agent import sqlite, sqlite_read
from backup.agent.errors import BackupError
from backup.agent.model import Item
from backup.agent.source import Saved
from tests.backup.driving import database, dies, rows, saved_in, sqlite_of, stage_in

NAMES = ["blog.db", "our blog.db", 'it\'s "100%"?#.db', "new\nline.db", "mode=memory&x.db", os.fsdecode(b"caf\xe9.db")]


@pytest.fixture
def live(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return database(tmp_path / "data" / "blog.db")


def take(live: Path, folder: Path) -> Saved:
    return saved_in(folder, sqlite_of(live).dump(stage_in(folder)))


def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_file_of_any_name_and_journal_mode_is_saved_and_proved(tmp_path: Path, name: str, journal: str) -> None:
    saved = take(database(tmp_path / name, journal=journal), tmp_path / "stage")
    assert saved.item.counts == {"authors": 1, "posts": 3}
    sqlite_of(tmp_path / name).decode(saved, work(tmp_path))


def test_nothing_but_the_saved_file_is_left_in_the_stage(live: Path, tmp_path: Path) -> None:
    take(live, tmp_path / "stage")
    assert os.listdir(tmp_path / "stage") == ["posts.sqlite.zst"]


def test_what_is_only_in_the_wal_is_saved(live: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(live)) as app:
        app.execute("PRAGMA wal_autocheckpoint = 0")
        app.execute("CREATE TABLE late (a)")
        app.execute("INSERT INTO late VALUES (1)")
        app.commit()
        assert take(live, tmp_path / "stage").item.counts["late"] == 1


def test_what_a_transaction_has_not_committed_is_not_saved(live: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(live, isolation_level=None)) as app:
        app.execute("BEGIN IMMEDIATE")
        app.execute("DELETE FROM posts")
        assert take(live, tmp_path / "stage").item.counts["posts"] == 3


@pytest.fixture
def busy_writer(live: Path) -> Iterator[None]:
    code = ("import sqlite3, sys\napp = sqlite3.connect(sys.argv[1], timeout=30)\nwhile True:\n"
            " with app:\n  app.execute('INSERT INTO authors (name) VALUES (1)')\n  app.execute('INSERT INTO posts (author) VALUES (1)')\n"
            " print('one', flush=True)\n")  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", code, str(live)], stdout=subprocess.PIPE) as app:
        assert app.stdout
        app.stdout.readline()
        reading = threading.Thread(target=app.stdout.read)
        reading.start()
        yield
        app.kill()
        reading.join()


@pytest.mark.usefixtures("busy_writer")
def test_a_file_under_writes_is_saved_as_of_one_moment(live: Path, tmp_path: Path) -> None:
    for number in range(5):
        saved = take(live, tmp_path / f"stage{number}")
        assert saved.item.counts["posts"] == saved.item.counts["authors"] + 2
        (tmp_path / f"work{number}").mkdir()
        sqlite_of(live).decode(saved, tmp_path / f"work{number}")


def test_tables_of_every_sort_are_counted(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as made:
        made.executescript("""CREATE TABLE "quo""te ' %" (a); INSERT INTO "quo""te ' %" VALUES (1), (2);
            CREATE TABLE keyed (a TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO keyed VALUES ('x');
            CREATE TABLE auto (id INTEGER PRIMARY KEY AUTOINCREMENT); CREATE TABLE sqliteish (a); CREATE VIEW seen AS SELECT 1;
            CREATE VIRTUAL TABLE words USING fts5(body); INSERT INTO words VALUES ('hello');
            PRAGMA writable_schema = ON;
            INSERT INTO sqlite_master VALUES ('table', 'geo', 'geo', 0, 'CREATE VIRTUAL TABLE geo USING not_on_this_server(a)');""")
    saved = take(tmp_path / "x.db", tmp_path / "stage")
    assert saved.item.counts.items() >= {"quo\"te ' %": 2, "keyed": 1, "auto": 0, "sqliteish": 0, "words_content": 1}.items()
    assert not {"geo", "words", "seen", "sqlite_sequence"} & set(saved.item.counts)
    sqlite_of(tmp_path / "x.db").decode(saved, work(tmp_path))


@pytest.mark.parametrize(("content", "why"), [(b"", "0 bytes"), (b"not a database, but text " * 500, "not a database")])
def test_a_file_that_is_no_database_is_refused_by_name(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "blog.db").write_bytes(content)
    with pytest.raises(BackupError, match=why) as failed:
        take(tmp_path / "blog.db", tmp_path / "stage")
    assert str(tmp_path / "blog.db") in str(failed.value)
    assert os.listdir(tmp_path / "stage") == []


def test_a_missing_file_is_refused_by_name_and_not_created(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=r"there is no .*blog\.db"):
        take(tmp_path / "blog.db", tmp_path / "stage")
    assert not (tmp_path / "blog.db").exists()
    assert not sqlite_of(tmp_path / "blog.db").state().present
    assert not sqlite_of(tmp_path / "no" / "folder" / "blog.db").state().present


def test_a_symbolic_link_is_not_followed(live: Path, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(live)
    (tmp_path / "folder").symlink_to(live.parent)
    for path in (tmp_path / "link.db", tmp_path / "folder" / "blog.db"):
        with pytest.raises(BackupError, match="link"):
            take(path, tmp_path / "stage")


def test_a_lock_that_is_never_given_up_ends_the_backup(live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_read, "PATIENCE", 0.2)
    with closing(sqlite3.connect(live, isolation_level=None)) as app:
        app.execute("PRAGMA journal_mode = DELETE")
        app.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BackupError, match="locked"):
            take(live, tmp_path / "stage")


def test_state_tells_journal_mode_schema_and_size_and_changes_nothing(live: Path, tmp_path: Path) -> None:
    before = live.read_bytes()
    state = sqlite_of(live).state()
    assert (state.present, state.journal, state.bytes) == (True, "wal", len(before))
    assert state.schema == take(live, tmp_path / "stage").item.schema
    assert live.read_bytes() == before
    assert os.listdir(live.parent) == ["blog.db"]
    _alter(live)
    assert sqlite_of(live).state().schema != state.schema


def _alter(live: Path) -> None:
    with closing(sqlite3.connect(live)) as app:
        app.execute("ALTER TABLE posts ADD COLUMN seen")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_wal_files_that_root_makes_belong_to_the_database_s_owner(live: Path) -> None:
    os.chown(live, 1234, 1234)
    with closing(sqlite_read.connect(live, "mode=rw")) as opened:
        opened.execute("SELECT * FROM posts").fetchall()
        assert {Path(f"{live}{one}").stat().st_uid for one in ("-wal", "-shm")} == {1234}
        assert {Path(f"{live}{one}").stat().st_mode & 0o777 for one in ("-wal", "-shm")} == {live.stat().st_mode & 0o777}


def test_dangling_references_that_the_app_lives_with_are_a_warning_and_new_ones_fail(live: Path, tmp_path: Path) -> None:
    clean = take(live, tmp_path / "clean")
    with closing(sqlite3.connect(live)) as app, app:
        app.execute("UPDATE posts SET author = 99")
    saved = take(live, tmp_path / "stage")
    assert "3 rows refer" in saved.item.warnings[0]
    sqlite_of(live).decode(saved, work(tmp_path))
    (tmp_path / "other").mkdir()
    with pytest.raises(BackupError, match="foreign key"):
        sqlite_of(live).decode(replace(saved, item=replace(saved.item, warnings=clean.item.warnings)), tmp_path / "other")


def test_a_database_without_tables_is_saved_with_a_warning(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "blog.db")) as made:
        made.execute("PRAGMA user_version = 7")
    saved = take(tmp_path / "blog.db", tmp_path / "stage")
    assert (saved.item.counts, saved.item.warnings, saved.item.versions["user_version"]) == (
        {},
        (sqlite.NOT_WAL, "it has no tables"),
        "7",
    )
    sqlite_of(tmp_path / "blog.db").decode(saved, work(tmp_path))


def test_damage_in_the_live_file_fails_the_proof(tmp_path: Path) -> None:
    live = database(tmp_path / "blog.db", posts=2000, journal="delete")
    with closing(sqlite3.connect(live)) as app, app:
        app.execute("CREATE INDEX bodies ON posts (body)")
    _damage_index(live)
    with pytest.raises(BackupError, match=r"integrity|malformed"):
        sqlite_of(live).decode(take(live, tmp_path / "stage"), work(tmp_path))


def _damage_index(live: Path) -> None:
    content = bytearray(live.read_bytes())
    at = content.rindex(b"post 1999")
    content[at : at + 9] = b"post XXXX"
    live.write_bytes(content)


def _other(item: Item, change: str) -> Item:
    return {"rows": replace(item, counts={**item.counts, "posts": 4}), "table": replace(item, counts={**item.counts, "x": 0}),
            "schema": replace(item, schema="0" * 64)}[change]  # fmt: skip


@pytest.mark.parametrize("change", ["rows", "table", "schema"])
def test_a_copy_that_is_not_what_the_manifest_says_fails_the_proof(live: Path, tmp_path: Path, change: str) -> None:
    saved = take(live, tmp_path / "stage")
    with pytest.raises(BackupError, match="than the manifest says"):
        sqlite_of(live).decode(replace(saved, item=_other(saved.item, change)), work(tmp_path))


@pytest.mark.parametrize("codec", ["zstd", "gzip", "xz", "none"])
@pytest.mark.parametrize("harm", ["cut", "cut in half", "one bit"])
def test_a_harmed_file_fails_the_proof(tmp_path: Path, codec: str, harm: str) -> None:
    live = database(tmp_path / "blog.db", posts=3000)
    item = sqlite_of(live).dump(stage_in(tmp_path / "stage", codec))
    path = tmp_path / "stage" / item.files[0].name
    content = bytearray(path.read_bytes())
    if harm == "one bit":
        content[len(content) // 2] ^= 1
    path.write_bytes({"cut": content[:-5], "cut in half": content[: len(content) // 2], "one bit": content}[harm])
    if (codec, harm) == ("none", "one bit"):  # a letter of a text: only the checksums of level 1 can know
        return
    with pytest.raises(BackupError):
        sqlite_of(live).decode(saved_in(tmp_path / "stage", item), work(tmp_path))


def test_a_trial_answers_queries_and_cannot_be_written_to(live: Path, tmp_path: Path) -> None:
    saved = take(live, tmp_path / "stage")
    with sqlite_of(live).trial(saved, work(tmp_path)) as trial:
        assert trial.counts() == saved.item.counts
        assert trial.query("SELECT count(*) > 0 FROM posts") == "1"
        assert trial.query("SELECT id, NULL, body FROM posts LIMIT 2") == "1||post 0\n2||post 1"
        assert trial.query("SELECT 1 WHERE 0") == ""
        for bad in ("DELETE FROM posts", "SELECT nothing", "SELECT 1; SELECT 2"):
            with pytest.raises(BackupError, match="smoke query fails"):
                trial.query(bad)


def restored(live: Path, tmp_path: Path, *, posts: int = 5) -> tuple[Saved, sqlite.SqliteReplacement]:
    """A backup of what is live, which then changes, restored beside it."""
    saved = take(live, tmp_path / "stage")
    with closing(sqlite3.connect(live)) as app, app:
        app.executemany("INSERT INTO posts (author) VALUES (?)", [(1,)] * posts)
    return saved, sqlite_of(live).beside(saved, "20261123")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_restored_file_takes_the_place_with_the_owner_and_mode_of_the_old_one(live: Path, tmp_path: Path) -> None:
    os.chown(live, 1234, 1235)
    live.chmod(0o640)
    saved, replacement = restored(live, tmp_path)
    assert replacement.counts() == saved.item.counts
    assert (rows(live), replacement.swap()) == (8, f"{live}.before-20261123")
    assert (rows(live), rows(live.with_name("blog.db.before-20261123"))) == (3, 8)
    known = live.stat()
    assert (known.st_uid, known.st_gid, known.st_mode & 0o777) == (1234, 1235, 0o640)
    assert replacement.swap() == f"{live}.before-20261123"
    replacement.discard()
    assert sorted(os.listdir(live.parent)) == ["blog.db", "blog.db.before-20261123"]
    replacement.swap_back()
    assert rows(live) == 8
    replacement.swap_back()
    replacement.discard()
    assert os.listdir(live.parent) == ["blog.db"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_where_there_was_no_file_the_restored_one_belongs_to_the_folder_s_owner(live: Path, tmp_path: Path) -> None:
    saved = take(live, tmp_path / "stage")
    live.unlink()
    os.chown(live.parent, 1234, 1235)
    replacement = sqlite_of(live).beside(saved, "t")
    assert replacement.swap() == ""
    assert (rows(live), live.stat().st_uid, live.stat().st_gid, live.stat().st_mode & 0o777) == (3, 1234, 1235, 0o600)
    replacement.swap_back()
    assert os.listdir(live.parent) == ["blog.db.tidegate-t"]
    replacement.discard()
    replacement.swap_back()
    assert os.listdir(live.parent) == []


def test_a_file_that_somebody_has_open_is_not_replaced(live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_read, "PATIENCE", 0.2)
    _, replacement = restored(live, tmp_path)
    with closing(sqlite3.connect(live)) as app:
        app.execute("SELECT * FROM posts").fetchall()
        with pytest.raises(BackupError, match="cannot be replaced"):
            replacement.swap()
    assert rows(live) == 8


def test_a_broken_live_file_is_replaced_and_kept_as_it_is(live: Path, tmp_path: Path) -> None:
    _, replacement = restored(live, tmp_path)
    live.write_bytes(b"rubbish " * 1000)
    replacement.swap()
    assert rows(live) == 3
    replacement.swap_back()
    assert live.read_bytes() == b"rubbish " * 1000


def test_a_restore_that_fails_leaves_nothing_beside_the_live_file(live: Path, tmp_path: Path) -> None:
    saved = take(live, tmp_path / "stage")
    (tmp_path / "stage" / "posts.sqlite.zst").write_bytes(b"rubbish")
    with pytest.raises(BackupError, match="zstd"):
        sqlite_of(live).beside(saved, "t")
    assert os.listdir(live.parent) == ["blog.db"]


def test_an_earlier_restore_of_the_same_tag_is_not_overwritten(live: Path, tmp_path: Path) -> None:
    saved, replacement = restored(live, tmp_path)
    with pytest.raises(BackupError, match="there already"):
        sqlite_of(live).beside(saved, "20261123")
    assert replacement.counts() == saved.item.counts


def leave_a_wal(live: Path) -> None:
    """Write as an app does that is killed: what it committed is in the WAL alone."""
    code = ("import os, sqlite3, sys\napp = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "app.execute('PRAGMA wal_autocheckpoint = 0')\napp.execute('INSERT INTO posts (author) VALUES (1)')\nos._exit(0)")  # fmt: skip
    subprocess.run([sys.executable, "-c", code, str(live)], check=True)
    assert Path(f"{live}-wal").stat().st_size


@pytest.mark.parametrize("present", [True, False])
def test_wherever_a_swap_dies_the_live_data_can_be_had_back_as_it_was(tmp_path: Path, present: bool) -> None:
    at, died = 0, True
    while died:
        at += 1
        folder = tmp_path / f"{at}"
        folder.mkdir()
        live = database(folder / "blog.db")
        _, replacement = restored(live, folder)
        if present:
            leave_a_wal(live)
        else:
            live.unlink()
        died = dies(replacement.swap, at)
        assert (rows(live) if live.exists() else None) in (({9, 3} if present else {None, 3}) | {None})
        again = sqlite_of(live).replaced("20261123")
        for repeat in range(2):
            again.swap_back()
            if repeat:
                again.discard()
            assert (rows(live) if live.exists() else None) == (9 if present else None)
        assert {one for one in os.listdir(folder) if one.startswith("blog")} <= {"blog.db", "blog.db-wal", "blog.db-shm"}
    assert at > 8


def test_wherever_going_back_dies_it_can_be_repeated(tmp_path: Path) -> None:
    at, died = 0, True
    while died:
        at += 1
        folder = tmp_path / f"{at}"
        folder.mkdir()
        live = database(folder / "blog.db")
        _, replacement = restored(live, folder)
        replacement.swap()
        leave_a_wal(live)  # the app was started on the restored data
        died = dies(replacement.swap_back, at)
        again = sqlite_of(live).replaced("20261123")
        again.swap_back()
        assert rows(live) == 8
        again.discard()
        assert [one for one in os.listdir(folder) if one.startswith("blog")] == ["blog.db"]
    assert at > 6


def test_wherever_a_swap_dies_it_can_be_repeated_too(tmp_path: Path) -> None:
    at, died = 0, True
    while died:
        at += 1
        folder = tmp_path / f"{at}"
        folder.mkdir()
        live = database(folder / "blog.db")
        _, replacement = restored(live, folder)
        leave_a_wal(live)
        died = dies(replacement.swap, at)
        again = sqlite_of(live).replaced("20261123")
        assert again.swap() == f"{live}.before-20261123"
        assert (rows(live), rows(live.with_name("blog.db.before-20261123"))) == (3, 9)


def test_memory_stays_flat_however_large_the_file(tmp_path: Path) -> None:
    live = tmp_path / "blog.db"
    with closing(sqlite3.connect(live)) as made, made:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("CREATE TABLE big (id INTEGER PRIMARY KEY, body BLOB)")
        made.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
                     "INSERT INTO big SELECT i, zeroblob(60000) FROM n")  # fmt: skip
    assert live.stat().st_size > 280 * 1024**2
    code = ("import sys\nfrom pathlib import Path\nfrom tests.backup.driving import *\n"
            "live, folder = map(Path, sys.argv[1:])\nitem = sqlite_of(live).dump(stage_in(folder / 'stage'))\n"
            "(folder / 'work').mkdir()\nsqlite_of(live).decode(saved_in(folder / 'stage', item), folder / 'work')\n"
            "peak = next(one for one in open('/proc/self/status') if one.startswith('VmHWM'))\n"  # ru_maxrss has our own in it
            "print(peak.split()[1], item.counts['big'])")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, str(live), str(tmp_path)], check=True, capture_output=True, text=True)
    resident, counted = map(int, done.stdout.split())
    assert counted == 5000
    assert resident < 40 * 1024
