"""SQLite files: copied as of one moment by SQLite's own online backup, never as the bare file."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from backup.agent.errors import BackupError
from backup.agent.model import Item, Settings, Source
from backup.agent.places import Missing, Place, find
from backup.agent.source import Saved, Stage, State
from backup.agent.sqlite_read import PATIENCE, connect, counts_of, dangling, explained, one, pages, schema_of
from backup.agent.streams import LOOK, create
from backup.agent.swap import Swap
from ops.agent.engine import Engine

LOCKED = (5, 6)  # SQLITE_BUSY and SQLITE_LOCKED; the module has their names from Python 3.11 on
NOT_WAL = "it is not in WAL mode: whoever writes to it waits while it is copied"
ENDINGS = ("-journal", "-wal", "-shm")


class Sqlite:
    """Saves, proves and restores one SQLite file.

    The live file is opened for reading and writing, as the app does: a reader has to be able to recover what a killed
    writer left, and the last one to close removes -wal and -shm. That we are root does no harm: SQLite gives -journal,
    -wal and -shm that root creates to the owner of the database (tested). It is never opened by us in any other way while
    SQLite has it open: closing a second descriptor would drop SQLite's locks, which are POSIX locks of the process.
    """

    def __init__(self, settings: Settings, source: Source, engine: Engine) -> None:
        self._source = source
        self._engine = engine
        self._file = f"{source.name}.sqlite"

    def state(self) -> State:
        """Look at the file's header and schema."""
        try:
            place = self._place()
            known = _live(place)
        except Missing:
            return State(present=False)
        with explained(place.path), closing(connect(place.path, "mode=rw")) as database:
            database.execute("PRAGMA query_only = ON")
            journal = str(one(database, "PRAGMA journal_mode"))
            return State(True, schema_of(database), sqlite3.sqlite_version, journal, known.st_size + _size(place, "-wal"))

    def dump(self, stage: Stage) -> Item:
        """Copy the file by SQLite's online backup, in one step: one in several starts again at every write."""
        began = time.monotonic()
        place = self._place()
        known = _live(place)
        if known.st_size == 0:
            raise BackupError(f"{place.path} has 0 bytes", "an empty file is no database")
        waits = () if self.state().journal == "wal" else (NOT_WAL,)
        raw = stage.folder / f"{self._source.name}.raw"
        os.close(create(raw))
        try:
            with _watched(raw, lambda done: stage.report.bytes(self._source.name, done, known.st_size)):
                _copy(place.path, raw)
            if (now := _live(place)).st_ino != known.st_ino or now.st_dev != known.st_dev:
                raise BackupError(f"{place.path} was replaced by another file while it was copied")
            with explained(place.path), closing(connect(raw, "mode=ro&immutable=1")) as copy:
                counts, schema = counts_of(copy), schema_of(copy)
                warnings = (*dangling(copy), *waits, *(() if counts else ("it has no tables",)))
                versions = {"sqlite": sqlite3.sqlite_version, "user_version": str(one(copy, "PRAGMA user_version")),
                            "page_size": str(one(copy, "PRAGMA page_size")), "bytes": str(raw.stat().st_size)}  # fmt: skip
            with raw.open("rb") as file:
                saved = stage.save(self._source.name, self._file, file.fileno())
        finally:
            raw.unlink()
        return Item(self._source.name, "sqlite", (saved,), counts, schema, versions, round(time.monotonic() - began, 3), warnings)

    def decode(self, saved: Saved, work: Path) -> None:
        """Decode it, let SQLite check every page, index and foreign key, and compare rows and schema."""
        with self._restored(saved, work / self._file) as database:
            wrong = [str(row[0]) for row in database.execute("PRAGMA integrity_check(5)")]
            if wrong != ["ok"]:
                raise BackupError(f"{self._source.name}: the copy fails SQLite's integrity check", "; ".join(wrong))
            if (work / self._file).stat().st_size != pages(database):  # SQLite takes a last page cut short for one with zeros
                raise BackupError(f"{self._source.name}: the copy is cut short")
            if set(dangling(database)) - set(saved.item.warnings):
                raise BackupError(f"{self._source.name}: the copy fails SQLite's foreign key check", dangling(database)[0])
            if counts_of(database) != dict(saved.item.counts):
                raise BackupError(f"{self._source.name}: the copy has other rows than the manifest says")
            if schema_of(database) != saved.item.schema:
                raise BackupError(f"{self._source.name}: the copy has another schema than the manifest says")

    @contextmanager
    def trial(self, saved: Saved, work: Path) -> Iterator[SqliteTrial]:
        """Restore it into the work folder, opened for reading only."""
        with self._restored(saved, work / self._file) as database:
            yield SqliteTrial(self._source.name, database)

    def beside(self, saved: Saved, tag: str) -> SqliteReplacement:
        """Restore it beside the live file, which lends it owner and mode."""
        replacement = self.replaced(tag)
        place, new = replacement.names.place, replacement.names.new
        with place.folder() as folder:
            try:
                target = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
            except FileExistsError as error:
                raise BackupError(f"{place.path.with_name(new)} is there already", "another restore has left it") from error
            try:
                saved.read(self._file, target)
                _lend(place, folder, target)
                os.fsync(target)
                os.fsync(folder)
            except BaseException:
                os.unlink(new, dir_fd=folder)
                raise
            finally:
                os.close(target)
        return replacement

    def replaced(self, tag: str) -> SqliteReplacement:
        """Return the replacement of that tag."""
        return SqliteReplacement(Swap(self._place(), tag, ENDINGS))

    def _place(self) -> Place:
        return find(self._source, self._engine)

    @contextmanager
    def _restored(self, saved: Saved, path: Path) -> Iterator[sqlite3.Connection]:
        target = create(path)
        try:
            saved.read(self._file, target)
        finally:
            os.close(target)
        with explained(path), closing(connect(path, "mode=ro&immutable=1")) as database:
            yield database


@dataclass(frozen=True)
class SqliteTrial:
    """A restored copy, opened for reading only."""

    source: str
    database: sqlite3.Connection

    def counts(self) -> Mapping[str, int]:
        """Return the exact rows per table."""
        return counts_of(self.database)

    def query(self, text: str) -> str:
        """Run the smoke query; columns are joined by `|`, as SQLite's shell does."""
        try:
            rows = self.database.execute(text).fetchmany(1000)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise BackupError(f"{self.source}: the smoke query fails", f"{error}: {text}") from error
        return "\n".join("|".join("" if one is None else str(one) for one in row) for row in rows)


@dataclass(frozen=True)
class SqliteReplacement:
    """A restored file beside the live one."""

    names: Swap

    def counts(self) -> Mapping[str, int]:
        """Return the exact rows per table."""
        place = replace(self.names.place, names=(*self.names.place.names[:-1], self.names.new))
        _live(place)
        with explained(place.path), closing(connect(place.path, "mode=ro&immutable=1")) as database:
            return counts_of(database)

    def swap(self) -> str:
        """Put it in the live file's place."""
        return self.names.forth(self._settle)

    def swap_back(self) -> None:
        """Put the old file back, with all that belongs to it."""
        self.names.back()

    def discard(self) -> None:
        """Remove the restored file."""
        self.names.discard()

    def _settle(self) -> None:
        """Bring what is in the live file's WAL into it. Raises BackupError when somebody still has the file open."""
        path = self.names.place.path
        _live(self.names.place)
        try:
            with closing(connect(path, "mode=rw")) as database:
                database.execute("PRAGMA locking_mode = EXCLUSIVE")  # in WAL mode others need not write to be noticed
                database.execute("BEGIN EXCLUSIVE")
                database.execute("COMMIT")
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.OperationalError as error:
            raise BackupError(f"{path} cannot be replaced", str(error), "stop whatever has it open") from error
        except sqlite3.DatabaseError:
            pass  # a broken file is what a restore is for: it is kept as it is, with what belongs to it


def _live(place: Place) -> os.stat_result:
    """Look at a file without following links. Raises Missing, and BackupError when it is none."""
    with place.folder() as folder:
        try:
            known = os.stat(place.name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError as error:
            raise Missing(f"there is no {place.path}") from error
    if not stat.S_ISREG(known.st_mode):
        raise BackupError(f"{place.path} is not a regular file", "links are not followed")
    return known


def _size(place: Place, ending: str) -> int:
    try:
        return _live(replace(place, names=(*place.names[:-1], f"{place.name}{ending}"))).st_size
    except Missing:
        return 0


def _lend(place: Place, folder: int, target: int) -> None:
    """Give a new file the live one's owner and mode; without a live one the folder's owner, for nobody else to read."""
    try:
        known = _live(place)
        mode = stat.S_IMODE(known.st_mode) & 0o777
    except Missing:
        known, mode = os.fstat(folder), 0o600
    os.fchown(target, known.st_uid, known.st_gid)
    os.fchmod(target, mode)


def _copy(live: Path, raw: Path) -> None:
    def only_once(status: int, _remaining: int, _pages: int) -> None:
        if status in LOCKED:  # the busy timeout has passed; Python's own loop would go on for ever
            raise BackupError(f"{live} was locked for {PATIENCE:.0f} s", "a transaction that writes did not end")

    with explained(live), closing(connect(live, "mode=rw")) as source, closing(connect(raw, "mode=rw")) as target:
        target.execute("PRAGMA journal_mode = OFF")
        target.execute("PRAGMA synchronous = OFF")
        source.backup(target, pages=-1, progress=only_once)


@contextmanager
def _watched(path: Path, tell: Callable[[int], None]) -> Iterator[None]:
    """Tell the size of a file as it grows: while SQLite copies, this thread is the only one of ours that runs."""
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK):
            tell(path.stat().st_size)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
