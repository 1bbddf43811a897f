"""Numbered schema changes, applied at most once each.

The old version serves on while these run, and again after a rollback: so only add; never rename, remove or tighten.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from blog.store import connect, schema_version

MIGRATIONS = (
    # 1: posts; AUTOINCREMENT never gives an id out twice
    """CREATE TABLE posts (
           id INTEGER PRIMARY KEY AUTOINCREMENT,
           title TEXT NOT NULL,
           body TEXT NOT NULL,
           created TEXT NOT NULL)""",
    # 2: the worker fills this in; NULL means not counted yet
    "ALTER TABLE posts ADD COLUMN words INTEGER",
    # 3: what the worker looks for, so that it never reads the whole table
    "CREATE INDEX posts_uncounted ON posts (id) WHERE words IS NULL",
)


def migrate(database: Path) -> str:
    """Apply what is missing, all of it or nothing, and say what was done."""
    with _exclusive(database), closing(connect(database, create=True)) as db:
        db.execute("PRAGMA journal_mode=WAL")  # kept in the file; outside a transaction, hence the lock around
        with db:
            db.execute("BEGIN IMMEDIATE")
            before = schema_version(db)
            for migration in MIGRATIONS[before:]:
                db.execute(migration)
            after = max(before, len(MIGRATIONS))
            db.execute(f"PRAGMA user_version={after}")
    return f"schema {before} -> {after}" if after > before else f"schema {before}: nothing to do"


@contextmanager
def _exclusive(database: Path) -> Iterator[None]:
    """Hold a lock beside the database; the kernel frees it when we die."""
    try:
        lock = database.with_name(database.name + ".migrate.lock").open("a")
    except OSError as error:
        raise RuntimeError(f"cannot lock the database for migration: {error}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
