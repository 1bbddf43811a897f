"""Posts in a SQLite file that several processes, and two releases during a deploy, use at once."""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from blog.store import Post


class SqliteStore:
    """The file, with one connection per thread."""

    Error: ClassVar[type[Exception]] = sqlite3.Error
    dialect: ClassVar[str] = "sqlite"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()

    @property
    def where(self) -> str:
        """Return the file's path."""
        return str(self._path)

    def migrate(self, migrations: Sequence[str]) -> tuple[int, int]:
        """Apply what is missing, all of it or nothing, and return the schema before and after."""
        with self._alone(), closing(self._connect(create=True)) as db:
            db.execute("PRAGMA journal_mode=WAL")  # kept in the file; outside a transaction, hence the lock around
            with db:
                db.execute("BEGIN IMMEDIATE")
                before = _schema(db)
                for migration in migrations[before:]:
                    db.execute(migration)
                after = max(before, len(migrations))
                db.execute(f"PRAGMA user_version={after}")
        return before, after

    def schema(self) -> int:
        """Return the number of migrations the file has had."""
        return _schema(self._db)

    def add(self, title: str, body: str) -> Post:
        """Save a new post; returns only after it is committed and synced."""
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        cursor = self._db.execute("INSERT INTO posts (title, body, created) VALUES (?, ?, ?)", (title, body, created))
        assert cursor.lastrowid is not None
        return Post(cursor.lastrowid, title, body, created, None)

    def get(self, post_id: int) -> Post | None:
        """Return one post, or None."""
        query = "SELECT id, title, body, created, words FROM posts WHERE id = ?"
        row = self._db.execute(query, (post_id,)).fetchone()
        return Post(*row) if row else None

    def newest(self, limit: int, before: int) -> list[Post]:
        """Return up to `limit` posts with an id below `before`, newest first."""
        query = "SELECT id, title, body, created, words FROM posts WHERE id < ? ORDER BY id DESC LIMIT ?"
        return [Post(*row) for row in self._db.execute(query, (before, limit))]

    def count(self) -> int:
        """Return the number of posts."""
        count: int = self._db.execute("SELECT count(*) FROM posts").fetchone()[0]
        return count

    def count_words(self, limit: int = 100) -> int:
        """Count the words of up to `limit` new posts and return how many posts that were."""
        query = "SELECT id, body FROM posts WHERE words IS NULL ORDER BY id LIMIT ?"
        counted = [(len(body.split()), post_id) for post_id, body in self._db.execute(query, (limit,))]
        if counted:
            with self._db as db:
                db.execute("BEGIN IMMEDIATE")
                db.executemany("UPDATE posts SET words = ? WHERE id = ?", counted)
        return len(counted)

    @property
    def _db(self) -> sqlite3.Connection:
        if not hasattr(self._local, "db"):
            self._local.db = self._connect()
        db: sqlite3.Connection = self._local.db
        return db

    def _connect(self, *, create: bool = False) -> sqlite3.Connection:
        """Open the file; only migrations may create it, so that a wrong path is an error and not an empty blog."""
        uri = f"{self._path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)
        db.execute("PRAGMA synchronous=FULL")  # WAL alone may lose the last commits in a power cut
        return db

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold a lock beside the file; the kernel frees it when we die."""
        try:
            lock = self._path.with_name(self._path.name + ".migrate.lock").open("a")
        except OSError as error:
            raise RuntimeError(f"cannot lock the database for migration: {error}") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _schema(db: sqlite3.Connection) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version
