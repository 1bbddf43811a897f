"""Folders and whole volumes: uploads and the like, as GNU tar saves them while the app goes on writing."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from backup.agent.errors import BackupError
from backup.agent.model import Item, Settings, Source
from backup.agent.places import Missing, Place, find
from backup.agent.source import Saved, Stage, State
from backup.agent.streams import Argv, pipe
from backup.agent.swap import Swap, remove
from ops.agent.engine import Engine

# Descriptors 0 and 1 of tar stand for the folder: it is the one we opened, whatever the app puts under its name meanwhile.
SAVE = ["tar", "--create", "--file=-", "--numeric-owner", "--xattrs", "--acls", "--sparse", "--one-file-system",
        "--warning=no-file-ignored", "--verbose", "--quoting-style=escape"]  # fmt: skip
LIST = ["tar", "--list", "--file=-", "--quoting-style=escape"]  # one line an entry: a newline in a name is written \n
EXTRACT = ["tar", "--extract", "--file=-", "--numeric-owner", "--same-owner", "--same-permissions", "--xattrs",
           "--xattrs-include=*", "--acls", "-C", "/proc/self/fd/1"]  # fmt: skip
CHANGED = 1  # tar's exit code when files changed or vanished while it read them
TOLD = 5  # so many warnings of one archive are kept


class Directory:
    """Saves, proves and restores a folder."""

    def __init__(self, settings: Settings, source: Source, engine: Engine) -> None:
        self._source = source
        self._engine = engine
        self._file = f"{source.name}.tar"

    def state(self) -> State:
        """Tell whether the folder is there."""
        try:
            with self._place().opened():
                return State(present=True)
        except Missing:
            return State(present=False)

    def dump(self, stage: Stage) -> Item:
        """Save the folder as a tar archive; what changes or vanishes meanwhile is a warning."""
        began = time.monotonic()
        place = self._place()
        names = stage.folder / f"{self._source.name}.names"
        tar = [*SAVE, f"--index-file={names}", *_excludes(self._source.exclude), "-C", "/proc/self/fd/0", "."]
        with place.opened() as folder:
            try:
                saved = stage.save(self._source.name, self._file, folder, [tar], fine=(0, CHANGED))
                entries = _lines(names)
            finally:
                names.unlink(missing_ok=True)
        return Item(self._source.name, "directory", (saved,), {"entries": entries}, seconds=round(time.monotonic() - began, 3),
                    versions={"tar": _version()}, warnings=tuple(_told(stage.said)))  # fmt: skip

    def decode(self, saved: Saved, work: Path) -> None:
        """Read the archive to its end; it must have as many entries as tar wrote."""
        with tempfile.TemporaryFile(dir=work) as number:
            saved.read(self._file, number.fileno(), [LIST, ["wc", "-l"]])
            number.seek(0)
            found = int(number.read())
        if found != saved.item.counts["entries"]:
            raise BackupError(f"{self._source.name}: the archive has {found} entries",
                              f"the manifest says {saved.item.counts['entries']}")  # fmt: skip

    @contextmanager
    def trial(self, saved: Saved, work: Path) -> Iterator[DirectoryTrial]:
        """Unpack it into the work folder."""
        inside = work / self._source.name
        inside.mkdir(mode=0o700)
        place = Place(work, (inside.name,))
        with place.opened() as folder:
            self._unpack(saved, folder)
        yield DirectoryTrial(self._source.name, place)

    def beside(self, saved: Saved, tag: str) -> DirectoryReplacement:
        """Unpack it beside the live folder; for a whole volume beside its `_data`, where no container sees it."""
        replacement = self.replaced(tag)
        swap = replacement.names
        if swap.place.mounted():
            raise BackupError(f"{swap.place.path} is a mount of its own", "it cannot be replaced by renaming",
                              "name a folder below it in ops.toml")  # fmt: skip
        with swap.place.folder() as above:
            try:
                os.mkdir(swap.new, 0o700, dir_fd=above)
            except FileExistsError as error:
                raise BackupError(f"{replacement.new.path} is there already", "another restore has left it") from error
            try:
                with replacement.new.opened() as folder:
                    self._unpack(saved, folder)
                    pipe([["sync", "--file-system", "/proc/self/fd/0"]], folder, folder)
                os.fsync(above)
            except BaseException:
                remove(above, swap.new)
                raise
        return replacement

    def replaced(self, tag: str) -> DirectoryReplacement:
        """Return the replacement of that tag."""
        return DirectoryReplacement(Swap(self._place(), tag))

    def _place(self) -> Place:
        return find(self._source, self._engine)

    def _unpack(self, saved: Saved, folder: int) -> None:
        saved.read(self._file, folder, [EXTRACT])


@dataclass(frozen=True)
class DirectoryTrial:
    """An archive unpacked where it harms nobody."""

    source: str
    place: Place

    def counts(self) -> Mapping[str, int]:
        """Return the number of entries, the folder itself included."""
        return {"entries": _entries(self.place)}

    def query(self, text: str) -> NoReturn:
        """Refuse: there is nothing to ask a folder in SQL."""
        raise BackupError(f"{self.source}: a directory cannot be asked {text!r}", fix="remove `smoke` from this source")


@dataclass(frozen=True)
class DirectoryReplacement:
    """A folder unpacked beside the live one."""

    names: Swap

    @property
    def new(self) -> Place:
        """Return where the unpacked folder is."""
        return replace(self.names.place, names=(*self.names.place.names[:-1], self.names.new))

    def counts(self) -> Mapping[str, int]:
        """Return the number of entries, the folder itself included."""
        return {"entries": _entries(self.new)}

    def swap(self) -> str:
        """Put it in the live folder's place."""
        return self.names.forth(lambda: None)

    def swap_back(self) -> None:
        """Put the old folder back."""
        self.names.back()

    def discard(self) -> None:
        """Remove the unpacked folder."""
        self.names.discard()


def _excludes(patterns: Sequence[str]) -> list[str]:
    """Return tar's options: a pattern with a slash is one of paths from the folder on, one without of names anywhere.

    tar alone would let `cache/*` also leave out `users/cache/photo.jpg`.
    """
    paths = [one.strip("/") for one in patterns if "/" in one.rstrip("/")]
    names = [one.rstrip("/") for one in patterns if "/" not in one.rstrip("/")]
    return ["--wildcards", "--anchored", *(f"--exclude=./{one}" for one in paths),
            "--no-anchored", *(f"--exclude={one}" for one in names)]  # fmt: skip


def _entries(place: Place) -> int:
    """Count what is in a folder, itself included: find writes one byte for each, whatever its name."""
    with place.opened() as folder, tempfile.TemporaryFile() as number:
        count: list[Argv] = [["find", "/proc/self/fd/0/.", "-printf", "."], ["wc", "-c"]]
        pipe(count, folder, number.fileno())
        number.seek(0)
        return int(number.read())


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 16), b""))


def _told(said: Sequence[str]) -> list[str]:
    lines = [line.removeprefix("tar: ") for line in (said[0].splitlines() if said else ()) if "previous errors" not in line]
    return [*lines[:TOLD], f"and {len(lines) - TOLD} more like these"] if len(lines) > TOLD else lines


def _version() -> str:
    with tempfile.TemporaryFile() as out, Path(os.devnull).open("rb") as nothing:
        pipe([["tar", "--version"]], nothing.fileno(), out.fileno())
        out.seek(0)
        return out.readline().decode().strip()
