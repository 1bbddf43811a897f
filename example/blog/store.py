"""Where posts are kept: a SQLite file, or PostgreSQL when DATABASE_URL is set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol


@dataclass(frozen=True)
class Post:
    """A post; `words` is None until the worker has counted them."""

    id: int
    title: str
    body: str
    created: str
    words: int | None


class Store(Protocol):
    """A database of posts. Every write is on the disk before its call returns; any call may raise `Error`."""

    Error: ClassVar[type[Exception]]
    dialect: ClassVar[str]

    @property
    def where(self) -> str:
        """Name the database to a person; no password in it."""

    def migrate(self, migrations: Sequence[str]) -> tuple[int, int]:
        """Apply what is missing, alone, and return the schema before and after."""

    def schema(self) -> int:
        """Return the number of migrations the database has had."""

    def add(self, title: str, body: str) -> Post:
        """Save a new post; returns only after it is committed and synced."""

    def get(self, post_id: int) -> Post | None:
        """Return one post, or None."""

    def newest(self, limit: int, before: int) -> list[Post]:
        """Return up to `limit` posts with an id below `before`, newest first."""

    def count(self) -> int:
        """Return the number of posts."""

    def count_words(self, limit: int = 100) -> int:
        """Count the words of up to `limit` new posts and return how many posts that were."""


def open_store(environment: Mapping[str, str]) -> Store:
    """Return the store that the environment names; raises ValueError when it cannot be one. Does not connect yet."""
    if url := environment.get("DATABASE_URL"):
        from blog.postgres_store import PostgresStore  # only what is used is imported: start-up time is deploy time

        return PostgresStore(url)
    from blog.sqlite_store import SqliteStore

    return SqliteStore(Path(environment.get("DATABASE", "/app/data/blog.db")))
