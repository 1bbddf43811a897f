"""Numbered schema changes, applied at most once each; the same numbers in both dialects.

The old version serves on while these run, and again after a rollback: so only add; never rename, remove or tighten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blog.store import Store

MIGRATIONS = (
    {  # 1: posts; neither dialect gives an id out twice
        "sqlite": """
            CREATE TABLE posts (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                title TEXT NOT NULL,
                body TEXT NOT NULL,
                created TEXT NOT NULL)""",
        "postgres": """
            CREATE TABLE posts (
                id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                title TEXT NOT NULL,
                body TEXT NOT NULL,
                created TIMESTAMPTZ NOT NULL)""",
    },
    {  # 2: the worker fills this in; NULL means not counted yet
        "sqlite": "ALTER TABLE posts ADD COLUMN words INTEGER",
        "postgres": "ALTER TABLE posts ADD COLUMN words INTEGER",
    },
    {  # 3: what the worker looks for, so that it never reads the whole table
        "sqlite": "CREATE INDEX posts_uncounted ON posts (id) WHERE words IS NULL",
        "postgres": "CREATE INDEX posts_uncounted ON posts (id) WHERE words IS NULL",
    },
)


def migrate(store: Store) -> str:
    """Apply what is missing and say what was done."""
    before, after = store.migrate([one[store.dialect] for one in MIGRATIONS])
    return f"schema {before} -> {after}" if after > before else f"schema {before}: nothing to do"
