"""What a server's backups tell a deploy about the app's data; how they are taken is no business of a deploy's. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any


@dataclass(frozen=True)
class Source:
    """A database or folder as it is now; `journal` is the journal mode of an SQLite file, `error` why it cannot be saved."""

    name: str
    present: bool = False
    schema: str = ""
    journal: str = ""
    error: str = ""


@dataclass(frozen=True)
class Saved:
    """A backup: the moment it is of, the schema of each source then, and the release that served."""

    id: str
    taken: datetime
    schemas: Mapping[str, str]
    release: str = ""


@dataclass(frozen=True)
class DataState:
    """The app's data on a server: its sources, its good backups, and whether a restore never finished."""

    sources: tuple[Source, ...] = ()
    backups: Mapping[str, Saved] = field(default_factory=dict)
    restoring: bool = False
    time: datetime | None = None

    def moved_since(self, backup: Saved) -> tuple[str, ...]:
        """Return the sources whose schema is another than in a backup."""
        return tuple(one.name for one in self.sources if one.schema and backup.schemas.get(one.name, one.schema) != one.schema)

    def age(self, backup: Saved) -> timedelta:
        """Return how long ago a backup was taken, by the server's clock."""
        return (self.time or backup.taken) - backup.taken


def parse(seen: Mapping[str, Any]) -> DataState:
    """Read what the program that takes backups says of its sources and backups."""
    sources = tuple(
        Source(name, bool(one.get("present")), one.get("schema", ""), one.get("journal", ""), one.get("error", ""))
        for name, one in seen["sources"].items()
    )
    backups = {
        id: Saved(id, datetime.fromisoformat(one["taken"]), one["schemas"], one.get("release", ""))
        for id, one in seen["backups"].items() if one["good"]
    }  # fmt: skip
    return DataState(sources, backups, seen["restoring"], datetime.fromisoformat(seen["time"]))
