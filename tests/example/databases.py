"""The blog's databases: a SQLite file, or a database of its own in a PostgreSQL server of the test run."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from blog.store import Store, open_store

from ops.bases import ensure_base
from ops.this_machine import local_client

if TYPE_CHECKING:
    from docker.models.containers import Container

IMAGE, PASSWORD = "postgres:17", "p w$%/@:é"
LABEL = "dev.tidegate.test"


class Database(Protocol):
    """A database that a blog can be started with."""

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that lead the blog to it."""

    def execute(self, statement: str) -> Sequence[Any]:
        """Do something to it, or ask it."""


class SqliteFile:
    """A SQLite file, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = {"DATABASE": str(path)}

    def execute(self, statement: str) -> Sequence[Any]:
        """Do something to it, or ask it."""
        with closing(sqlite3.connect(self.path)) as db, db:
            return db.execute(statement).fetchall()


class PostgresDatabase:
    """An empty database in a server."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self._conninfo = server.conninfo(name)
        self.environment = {"DATABASE_URL": server.url(name)}

    def execute(self, statement: str) -> Sequence[Any]:
        """Do something to it, or ask it."""
        with psycopg.connect(self._conninfo) as db:
            cursor = db.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


class PostgresServer:
    """PostgreSQL in a container of this machine's engine."""

    def __init__(self, container: Container, port: int) -> None:
        self.container = container
        self._port = port
        self._made = 0

    def conninfo(self, name: str) -> str:
        """Return what libpq needs to reach a database."""
        return psycopg.conninfo.make_conninfo(host="127.0.0.1", port=self._port, user="blog", password=PASSWORD, dbname=name)

    def url(self, name: str) -> str:
        """Return a database's URL."""
        return f"postgresql://blog:p%20w%24%25%2F%40%3A%C3%A9@127.0.0.1:{self._port}/{name}"

    def create(self) -> PostgresDatabase:
        """Create another empty database."""
        self._made += 1
        name = f"blog{self._made}"
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as db:
            db.execute(f"CREATE DATABASE {name}".encode())
        return PostgresDatabase(self, name)

    def wait(self) -> None:
        """Wait until it answers over TCP, which it does once it has initialised itself."""
        ready = ["bash", "-c", "until pg_isready -q -h 127.0.0.1; do sleep 0.1; done"]
        code, said = self.container.exec_run(["timeout", "60", *ready])
        assert code == 0, (said, self.container.logs(tail=20))


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """Run a server, on a port that it keeps when it restarts."""
    ensure_base(IMAGE, print)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    container = local_client().containers.run(
        IMAGE, detach=True, labels={LABEL: "blog"}, ports={"5432": ("127.0.0.1", port)},
        environment={"POSTGRES_USER": "blog", "POSTGRES_PASSWORD": PASSWORD},
    )  # fmt: skip
    try:
        server = PostgresServer(container, port)
        server.wait()
        yield server
    finally:
        container.remove(force=True, v=True)


def store(database: Database) -> Store:
    """Return the blog's store for a database."""
    return open_store(database.environment)
