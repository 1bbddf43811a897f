"""What only the PostgreSQL store can meet: a server that is away, wrong URLs, two hosts."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psycopg
import pytest
from blog import migrations
from blog.store import open_store

from tests.example.databases import PASSWORD, Database, PostgresServer, SqliteFile, postgres, store
from tests.example.process import Blog, run, start, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POST = {"title": "Spring tide", "body": "one two three"}


@pytest.mark.parametrize(
    "url",
    ["postgres//blog:s3cr3t@db/blog", "postgresql://blog:s3cr3t@db:s3cr3t/blog", "mysql://blog:s3cr3t@db/blog",
     "postgresql://blog:s3cr3t@db", "dbname=blog password=s3cr3t", "postgresql://blog:s3cr3t@db/blog?s3cr3t=1"],
)  # fmt: skip
def test_a_wrong_url_is_named_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="expected postgresql://user:password@host:port/database") as caught:
        open_store({"DATABASE_URL": url})
    assert "s3cr3t" not in str(caught.value)


def test_a_wrong_url_ends_every_command_with_what_is_expected(tmp_path: Path) -> None:
    with start(SqliteFile(tmp_path / "blog.db"), "migrate", DATABASE_URL="mysql://blog:s3cr3t@db/blog") as process:
        said = process.communicate(timeout=30)[0]
    assert process.returncode == 2
    assert said.startswith("blog migrate: DATABASE_URL: expected postgresql://")
    assert "s3cr3t" not in said


def test_an_empty_url_means_sqlite() -> None:
    assert open_store({"DATABASE_URL": "", "DATABASE": "/data/blog.db"}).where == "/data/blog.db"


def test_where_it_is_told_without_the_password() -> None:
    assert open_store({"DATABASE_URL": "postgresql://blog:s3cr3t@db:5433/blog"}).where == "db:5433/blog"


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that may be stopped."""
    with postgres() as server:
        yield server


@pytest.mark.integration
@pytest.mark.slow
def test_it_is_unhealthy_while_the_database_is_away_and_goes_on_after_its_restart(own_server: PostgresServer) -> None:
    database = own_server.create()
    assert run(database, "migrate")[0] == 0
    with Blog(database) as blog, start(database, "worker") as worker:
        assert [blog.post(POST)[0] for _ in range(12)] == [201] * 12  # every thread has its connection by now
        wait_for(worker, "counted")
        own_server.container.kill()
        status, answer = blog.get("/health")
        assert (status, answer["error"].partition(":")[0]) == (503, "the database does not answer")
        assert PASSWORD not in answer["error"]
        assert blog.post(POST) == (503, {"error": "the database is not available"})
        wait_for(worker, "trying again")
        own_server.container.start()
        own_server.wait()
        assert [blog.get("/health")[0] for _ in range(12)] == [200] * 12
        assert [blog.post(POST)[0] for _ in range(12)] == [201] * 12
        wait_for(worker, "counted")
        assert len(blog.get("/posts?limit=100")[1]["posts"]) == 24
        worker.terminate()
        assert worker.wait(5) == 0


@pytest.mark.integration
def test_a_connection_that_the_server_ended_costs_no_request(postgres_server: PostgresServer) -> None:
    database = postgres_server.create()
    assert run(database, "migrate")[0] == 0
    with Blog(database) as blog:
        assert [blog.post(POST)[0] for _ in range(12)] == [201] * 12
        ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'blog'"
        assert all(row[0] for row in database.execute(f"{ended} AND datname = current_database()"))
        assert [blog.post(POST)[0] for _ in range(12)] == [201] * 12


@pytest.mark.integration
def test_a_migration_waits_for_the_one_of_another_host(postgres_server: PostgresServer) -> None:
    database = postgres_server.create()
    lock = "classid = 0 AND objid = 1651273575 AND locktype = 'advisory'"
    waiting = f"SELECT count(*) FROM pg_locks WHERE {lock} AND NOT granted"
    with psycopg.connect(postgres_server.conninfo(store(database).where.rpartition("/")[2])) as other:
        other.execute("SELECT pg_advisory_lock(1651273575)")
        with start(database, "migrate") as migrating:
            pause = threading.Event()
            while database.execute(waiting) != [(1,)]:
                assert migrating.poll() is None
                pause.wait(0.05)
            other.execute("SELECT pg_advisory_unlock_all()")
            assert migrating.communicate(timeout=30)[0] == "schema 0 -> 3\n"


@pytest.mark.integration
def test_a_migration_gives_up_rather_than_hold_up_the_old_version(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    database: Database = postgres_server.create()
    with monkeypatch.context() as older:
        older.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:1])
        migrations.migrate(store(database))
    with psycopg.connect(postgres_server.conninfo(store(database).where.rpartition("/")[2])) as reader:
        reader.execute("SELECT * FROM posts")  # a transaction that is left open
        with pytest.raises(psycopg.errors.LockNotAvailable):
            migrations.migrate(store(database))
    assert migrations.migrate(store(database)) == "schema 1 -> 3"
