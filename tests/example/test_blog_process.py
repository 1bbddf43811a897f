from __future__ import annotations

import http.client
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
from blog import migrations

from tests.example.databases import Database, SqliteFile, store
from tests.example.process import Blog, run, start, wait_for

if TYPE_CHECKING:
    from pathlib import Path

POST = b'{"title": "High water", "body": "one two three"}'


def test_migrating_again_changes_nothing(database: Database) -> None:
    assert run(database, "migrate") == (0, "schema 3: nothing to do\n")


def test_migrating_at_once_applies_each_migration_once(empty: Database) -> None:
    together = [start(empty, "migrate") for _ in range(6)]
    outputs = [process.communicate(timeout=30)[0] for process in together]
    assert [process.returncode for process in together] == [0] * 6
    assert sorted(outputs) == ["schema 0 -> 3\n"] + ["schema 3: nothing to do\n"] * 5


def test_migration_continues_from_where_the_database_is(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:1])
        assert migrations.migrate(store(empty)) == "schema 0 -> 1"
    assert migrations.migrate(store(empty)) == "schema 1 -> 3"


def test_every_migration_is_there_in_every_dialect() -> None:
    assert {tuple(sorted(one)) for one in migrations.MIGRATIONS} == {("postgres", "sqlite")}


def test_a_failed_migration_is_not_counted(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = dict.fromkeys(("sqlite", "postgres"), "ALTER TABLE nowhere ADD COLUMN x TEXT")
    opened = store(empty)
    with monkeypatch.context() as newer:
        newer.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, wrong))
        with pytest.raises(opened.Error, match="nowhere"):
            migrations.migrate(opened)
    kept = {"sqlite": 0, "postgres": 3}[opened.dialect]  # all or nothing; each by itself
    assert migrations.migrate(opened) == (f"schema {kept} -> 3" if kept < 3 else "schema 3: nothing to do")


def test_migrating_where_nothing_can_be_written_says_so(tmp_path: Path) -> None:
    code, output = run(SqliteFile(tmp_path / "missing" / "blog.db"), "migrate")
    assert code == 1
    assert output.startswith("blog migrate: ")
    assert "Traceback" not in output


def test_an_unknown_command_is_a_usage_error(tmp_path: Path) -> None:
    assert run(SqliteFile(tmp_path / "blog.db"), "sevre") == (2, "usage: python -m blog [serve|migrate|worker]\n")


def post_until_it_dies(blog: Blog, acknowledged: list[int]) -> None:
    connection = blog.connect()
    try:
        while True:
            connection.request("POST", "/posts", POST)
            response = connection.getresponse()
            assert response.status == 201
            acknowledged.append(int(response.headers["Location"].rsplit("/", 1)[1]))
            response.read()
    except (OSError, http.client.HTTPException):
        return  # killed: what this thread was told so far is what counts
    finally:
        connection.close()


def test_every_acknowledged_post_survives_a_kill(database: Database) -> None:
    acknowledged: list[int] = []
    with Blog(database) as blog, Blog(database) as overlapping:
        posters = [
            threading.Thread(target=post_until_it_dies, args=(server, acknowledged))
            for server in (blog, blog, overlapping, overlapping)
        ]
        for poster in posters:
            poster.start()
        deadline = time.monotonic() + 20
        while len(acknowledged) < 200 and time.monotonic() < deadline:
            posters[0].join(0.01)
        blog.signal(signal.SIGKILL)
        overlapping.signal(signal.SIGKILL)
        for poster in posters:
            poster.join()
    saved = {row[0] for row in database.execute("SELECT id FROM posts")}
    assert not isinstance(database, SqliteFile) or database.execute("PRAGMA integrity_check") == [("ok",)]
    assert len(acknowledged) >= 200
    assert len(set(acknowledged)) == len(acknowledged)
    assert set(acknowledged) <= saved


def test_sigterm_ends_it_cleanly_and_at_once_beside_idle_connections(blog: Blog) -> None:
    used, unused = blog.connect(), blog.connect()
    used.request("GET", "/posts")
    used.getresponse().read()
    started = time.monotonic()
    blog.signal(signal.SIGTERM)
    assert blog.wait(5) == 0
    assert time.monotonic() - started < 1.5
    used.close()
    unused.close()


def test_sigterm_lets_an_open_request_finish(blog: Blog, database: Database) -> None:
    connection = blog.connect()
    connection.putrequest("POST", "/posts")
    connection.putheader("Content-Length", str(len(POST)))
    connection.endheaders(POST[:10])
    assert blog.get("/health")[0] == 200  # by now the other request has been taken up
    blog.signal(signal.SIGTERM)
    wait_until_refused(blog)
    connection.send(POST[10:])
    response = connection.getresponse()
    assert (response.status, response.read()[:9]) == (201, b'{"id":1,"')
    assert blog.wait(5) == 0
    connection.close()
    assert database.execute("SELECT title FROM posts") == [("High water",)]


def wait_until_refused(blog: Blog) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            blog.connect().close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            continue  # it was in the queue when the listening ended: the next one is refused
    raise AssertionError("it still accepts connections")


def test_the_worker_counts_words_and_ends_at_once_on_sigterm(blog: Blog, database: Database) -> None:
    blog.request("POST", "/posts", POST)
    with start(database, "worker") as worker:
        wait_for(worker, "counted 1 posts")
        assert blog.get("/posts/1")[1]["words"] == 3
        started = time.monotonic()
        worker.terminate()
        assert worker.wait(5) == 0
        assert time.monotonic() - started < 0.8


def test_the_worker_refuses_a_schema_that_is_too_old(empty: Database) -> None:
    empty.execute("SELECT 1")
    code, output = run(empty, "worker")
    assert code == 1
    assert "schema 0, this code needs 3" in output
