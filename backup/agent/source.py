"""The seam between a run and what it saves: each kind of source is a driver with these methods."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from backup.agent.errors import BackupError
from backup.agent.model import DataFile, Item, Settings, Source
from backup.agent.report import Report
from backup.agent.streams import Argv, Codec, decoders, fill, pipe
from ops.agent.engine import Engine


@dataclass(frozen=True)
class State:
    """What a source is like now, learned without reading its data.

    `present` is False for a file or folder that is not there yet; `journal` is an SQLite file's journal mode.
    """

    present: bool
    schema: str = ""
    version: str = ""
    journal: str = ""
    bytes: int = 0


@dataclass
class Stage:
    """Where a driver puts what it saves, and how."""

    settings: Settings
    folder: Path
    codec: Codec
    report: Report
    total: int = 0  # bytes it took the last time, for the time left
    said: list[str] = field(default_factory=list)  # by the programs of the last save, each on its standard error

    def save(self, source: str, name: str, stdin: int, stages: Sequence[Argv] = (), fine: Sequence[int] = (0,)) -> DataFile:
        """Write what comes from a descriptor, through the programs and the compressor, into a new file; durable."""
        found, self.said = fill(self.folder / f"{name}{self.codec.suffix}", [*stages, *self.codec.encode()], stdin, fine=fine,
                                told=lambda done: self._grew(source, done))  # fmt: skip
        return found

    def _grew(self, source: str, done: int) -> None:
        """Tell how far it is, and give up before the room that must stay is taken: a full disk would stop the live app."""
        self.report.bytes(source, done, self.total)
        if (free := shutil.disk_usage(self.folder).free) < self.settings.reserve:
            raise BackupError(f"{source}: {free // 1024**2} MB are left on the disk of the backups",
                              f"the reserve of {self.settings.reserve // 1024**2} MB must stay free", "make room for backups")  # fmt: skip


@dataclass(frozen=True)
class Saved:
    """A source's files in a backup, to be read; `identity` is the descriptor of an age identity where they are encrypted."""

    item: Item
    folder: Path
    report: Report
    identity: int | None = None

    def read(self, name: str, stdout: int, stages: Sequence[Argv] = ()) -> list[str]:
        """Decode the file whose name begins so, through the programs, into a descriptor; returns what they said."""
        known = next((one for one in self.item.files if one.name == name or one.name.startswith(f"{name}.")), None)
        if known is None:
            raise BackupError(f"the backup has no file {name} of {self.item.source}")
        with (self.folder / known.name).open("rb") as file:
            keep = [] if self.identity is None else [self.identity]
            if self.identity is not None:
                os.lseek(self.identity, 0, os.SEEK_SET)
            return pipe([*decoders(known.name, self.identity), *stages], file.fileno(), stdout, keep=keep)


class Trial(Protocol):
    """A source restored where it harms nobody; a context manager around it removes it."""

    def counts(self) -> Mapping[str, int]:
        """Return the exact rows per table."""

    def query(self, text: str) -> str:
        """Run the user's smoke query and return its output. Raises BackupError."""


class Replacement(Protocol):
    """A source restored beside the live one, ready to take its place. Every method may be repeated."""

    def counts(self) -> Mapping[str, int]:
        """Return the exact rows per table of what will take the place."""

    def swap(self) -> str:
        """Put it in the live one's place by renaming, once nobody writes; returns where the old one is kept."""

    def swap_back(self) -> None:
        """Put the old one back, whether or not it was swapped wholly."""

    def discard(self) -> None:
        """Remove the restored copy that did not take the place."""


class Driver(Protocol):
    """How one kind of source is saved, proved and restored; every method raises BackupError."""

    def state(self) -> State:
        """Look at the source, cheaply."""

    def dump(self, stage: Stage) -> Item:
        """Save it as of one moment, while others write; counts and schema are those of that very moment."""

    def decode(self, saved: Saved, work: Path) -> None:
        """Level 2: decode everything to the end and check it; `work` is a folder for what that needs, emptied by the caller."""

    def trial(self, saved: Saved, work: Path) -> AbstractContextManager[Trial]:
        """Level 3: restore it where it harms nobody."""

    def beside(self, saved: Saved, tag: str) -> Replacement:
        """Restore it beside the live one under a name with this tag (letters, digits, `_`)."""

    def replaced(self, tag: str) -> Replacement:
        """Return the replacement of that tag as a process that died has left it, for `swap_back` and `discard`."""


Make = Callable[[Settings, Source, Engine], Driver]


@dataclass(frozen=True)
class Kinds:
    """Which driver each kind of source has."""

    make: Mapping[str, Make] = field(default_factory=dict)

    def driver(self, settings: Settings, source: Source) -> Driver:
        """Return a source's driver. Raises BackupError for a kind that this agent does not know."""
        if source.kind not in self.make:
            raise BackupError(f"{source.name}: {source.kind} is not a kind of source that this agent knows")
        return self.make[source.kind](settings, source, Engine(settings.engine))
