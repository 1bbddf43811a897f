"""Posts in PostgreSQL, which may restart at any time: a connection that it closed is replaced before it is used."""

from __future__ import annotations

import select
import threading
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, ClassVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from blog.store import Post

# A host that is gone neither answers nor refuses: without the times, a request would wait for minutes.
_DEFAULTS = {"connect_timeout": "3", "tcp_user_timeout": "5000", "keepalives_idle": "5", "keepalives_interval": "2",
             "options": "-c timezone=UTC", "application_name": "blog"}  # fmt: skip
_LOCK = 0x626C6F67  # of the migrations, among the advisory locks of this database: "blog" in hexadecimal


class PostgresStore:
    """The database, with one connection per thread."""

    Error: ClassVar[type[Exception]] = psycopg.Error
    dialect: ClassVar[str] = "postgres"

    def __init__(self, url: str) -> None:
        known = _parsed(url)
        self._conninfo = make_conninfo(**_DEFAULTS | known)
        self._where = f"{known.get('host', 'localhost')}:{known.get('port', 5432)}/{known['dbname']}"
        self._local = threading.local()

    @property
    def where(self) -> str:
        """Return host, port and database."""
        return self._where

    def migrate(self, migrations: Sequence[str]) -> tuple[int, int]:
        """Apply what is missing, each in a transaction, and return the schema before and after.

        The lock is the connection's: another host waits for it, and it is free when we die. Later waits are short: behind
        an ALTER TABLE that waits for a long query, every request of the old version would wait too.
        """
        with closing(self._connect()) as db:
            db.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
            db.execute("SET lock_timeout = '5s'")
            db.execute("CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, applied TIMESTAMPTZ DEFAULT now())")
            before = _schema(db)
            for number, migration in enumerate(migrations[before:], before + 1):
                with db.transaction():
                    db.execute(migration.encode())
                    db.execute("INSERT INTO migrations (number) VALUES (%s)", (number,))
            return before, max(before, len(migrations))

    def schema(self) -> int:
        """Return the number of migrations the database has had."""
        try:
            return _schema(self._db)
        except psycopg.errors.UndefinedTable:
            return 0

    def add(self, title: str, body: str) -> Post:
        """Save a new post; returns only after it is committed and synced."""
        query = "INSERT INTO posts (title, body, created) VALUES (%s, %s, %s) RETURNING id, title, body, created, words"
        return _post(_first(self._db, query, title, body, datetime.now(UTC)))

    def get(self, post_id: int) -> Post | None:
        """Return one post, or None."""
        query = "SELECT id, title, body, created, words FROM posts WHERE id = %s"
        row = self._db.execute(query, (post_id,)).fetchone()
        return _post(row) if row else None

    def newest(self, limit: int, before: int) -> list[Post]:
        """Return up to `limit` posts with an id below `before`, newest first."""
        query = "SELECT id, title, body, created, words FROM posts WHERE id < %s ORDER BY id DESC LIMIT %s"
        return [_post(row) for row in self._db.execute(query, (before, limit))]

    def count(self) -> int:
        """Return the number of posts."""
        return int(_first(self._db, "SELECT count(*) FROM posts")[0])

    def count_words(self, limit: int = 100) -> int:
        """Count the words of up to `limit` new posts and return how many posts that were; another worker takes others."""
        query = "SELECT id, body FROM posts WHERE words IS NULL ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED"
        db = self._db
        with db.transaction(), db.cursor() as cursor:
            counted = [(len(body.split()), post_id) for post_id, body in cursor.execute(query, (limit,))]
            cursor.executemany("UPDATE posts SET words = %s WHERE id = %s", counted)
        return len(counted)

    @property
    def _db(self) -> psycopg.Connection[Any]:
        """Return this thread's connection: a new one where the server closed the old one.

        Asked before a statement, never after one failed: then nobody knows whether it was carried out.
        """
        db: psycopg.Connection[Any] | None = getattr(self._local, "db", None)
        if db is None or _is_over(db):
            if db is not None:
                db.close()
            db = self._local.db = self._connect()
        return db

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._conninfo, autocommit=True)


def _is_over(db: psycopg.Connection[Any]) -> bool:
    """Tell, without a round trip, whether a connection can no longer be used: an idle one has nothing to say but goodbye."""
    if db.closed:
        return True
    poll = select.poll()
    poll.register(db.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _parsed(url: str) -> dict[str, Any]:
    """Return what the URL says; what libpq says of a wrong one may quote the password, so it is not passed on."""
    try:
        known = conninfo_to_dict(url) if url.startswith(("postgresql://", "postgres://")) else {}
    except psycopg.Error:
        known = {}
    if not known.get("dbname") or not str(known.get("port", "5432")).isdigit():
        raise ValueError("DATABASE_URL: expected postgresql://user:password@host:port/database, special characters as %XX")
    return known


def _schema(db: psycopg.Connection[Any]) -> int:
    return int(_first(db, "SELECT coalesce(max(number), 0) FROM migrations")[0])


def _first(db: psycopg.Connection[Any], query: str, *values: object) -> Sequence[Any]:
    row: Sequence[Any] | None = db.execute(query.encode(), values).fetchone()
    assert row, "an aggregate or RETURNING always gives a row"
    return row


def _post(row: Sequence[Any]) -> Post:
    post_id, title, body, created, words = row
    return Post(post_id, title, body, created.astimezone(UTC).isoformat(timespec="milliseconds"), words)
