"""What is read of an SQLite database: rows, schema, references that lead nowhere."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from backup.agent.errors import BackupError

PATIENCE = 30.0  # seconds for a writer to finish: SQLite's busy timeout
_OURS = "name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"


def connect(path: Path, options: str) -> sqlite3.Connection:
    """Open a database by a URI, with which it is never created; every byte of the path is taken as it is."""
    uri = f"file:{quote(os.fsencode(path))}?{options}"
    database = sqlite3.connect(uri, uri=True, timeout=PATIENCE, isolation_level=None)
    database.execute("PRAGMA trusted_schema = OFF")  # the schema is the app's, and we are root
    return database


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite says into an error that names the file."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise BackupError(f"{path}: {error}", f"said by SQLite {sqlite3.sqlite_version}") from error


def one(database: sqlite3.Connection, query: str) -> Any:
    """Return the first value that a query gives."""
    return database.execute(query).fetchone()[0]


def pages(database: sqlite3.Connection) -> int:
    """Return how many bytes all its pages take."""
    return int(one(database, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"))


def counts_of(database: sqlite3.Connection) -> dict[str, int]:
    """Count every table's rows. A virtual table has no pages of its own and maybe no module here: its shadow tables have."""
    tables = database.execute(f"SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 AND {_OURS} ORDER BY name")
    names = [str(row[0]) for row in tables]
    return {name: database.execute("SELECT count(*) FROM " + _quoted(name)).fetchone()[0] for name in names}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def schema_of(database: sqlite3.Connection) -> str:
    """Return the fingerprint of the tables, indexes, views and triggers."""
    rows = database.execute(f"SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND {_OURS} ORDER BY type, name")
    return hashlib.sha256("\0".join(str(row[0]) for row in rows).encode()).hexdigest()


def dangling(database: sqlite3.Connection) -> tuple[str, ...]:
    """Say how many references lead nowhere. An app may live with some; a backup of it is right when it has the same."""
    try:
        number = one(database, "SELECT count(*) FROM pragma_foreign_key_check")
    except sqlite3.OperationalError as error:  # a reference to columns that are not unique
        return (f"foreign keys cannot be checked: {error}",)
    return (f"{number} rows refer to rows that are not there (foreign_key_check)",) if number else ()
