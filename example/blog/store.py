"""Posts in SQLite. Every write is on the disk before its call returns."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class Post:
    """A post; `words` is None until the worker has counted them."""

    id: int
    title: str
    body: str
    created: str
    words: int | None


def connect(database: Path, *, create: bool = False) -> sqlite3.Connection:
    """Open the database; only migrations may create it, so that a wrong path is an error and not an empty blog."""
    uri = f"{database.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)
    db.execute("PRAGMA synchronous=FULL")  # WAL alone may lose the last commits in a power cut
    return db


def schema_version(db: sqlite3.Connection) -> int:
    """Return the number of migrations the database has had."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


class Store:
    """The database, with one connection per thread."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._local = threading.local()

    def schema(self) -> int:
        """Return the number of migrations the database has had."""
        return schema_version(self._db)

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
            self._local.db = connect(self._database)
        db: sqlite3.Connection = self._local.db
        return db
