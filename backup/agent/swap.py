"""One file or folder takes another's place by renames, in steps that can be repeated and taken back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from backup.agent.errors import BackupError, NeedsPerson
from backup.agent.places import Place


@dataclass(frozen=True)
class Swap:
    """The live name, what is to take its place, and where the old one is kept, all in one folder.

    `beside` are endings of files that belong to a file (SQLite's -wal): they always move before it, and back before it,
    so that under the live name there never is a file without what belongs to it, nor with what belongs to another.
    """

    place: Place
    tag: str
    beside: tuple[str, ...] = ()

    @property
    def new(self) -> str:
        """Return the name of what is to take the place."""
        return f"{self.place.name}.tidegate-{self.tag}"

    @property
    def old(self) -> str:
        """Return the name under which the one replaced is kept."""
        return f"{self.place.name}.before-{self.tag}"

    @property
    def nothing(self) -> str:
        """Return the name of the mark that there was none to replace."""
        return f"{self.place.name}.absent-{self.tag}"

    def forth(self, settle: Callable[[], None]) -> str:
        """Put the new one in the live one's place; `settle` is called while the old one is still there, whole."""
        live = self.place.name
        with self.place.folder() as folder:
            if not there(folder, self.new):
                if there(folder, self.old) or there(folder, self.nothing):
                    return self._kept(folder)
                raise BackupError(f"{self.place.path.with_name(self.new)} is not there", "nothing was changed")
            if there(folder, live) and there(folder, self.old):
                raise self._both()
            if there(folder, live):
                self._endings(folder, self.old, live)  # a death after the first of these moves left them there
                settle()
                self._move(folder, live, self.old)
            elif not there(folder, self.old):
                os.close(os.open(self.nothing, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder))
            self._endings(folder, live, self.old)
            os.fsync(folder)
            _rename(folder, self.new, live)
            os.fsync(folder)
            return self._kept(folder)

    def back(self) -> None:
        """Put the old one back, from wherever `forth` or `back` itself ended."""
        live = self.place.name
        with self.place.folder() as folder:
            kept, none = there(folder, self.old), there(folder, self.nothing)
            if (kept or none) and there(folder, live):
                if there(folder, self.new):
                    raise self._both()
                self._move(folder, live, self.new)
                os.fsync(folder)
            self._endings(folder, self.old, live)
            if kept:
                _rename(folder, self.old, live)
            os.fsync(folder)
            if none:
                os.unlink(self.nothing, dir_fd=folder)
                os.fsync(folder)

    def discard(self) -> None:
        """Remove what did not take the place."""
        with self.place.folder() as folder:
            for name in (*(f"{self.new}{ending}" for ending in self.beside), self.new):
                remove(folder, name)
            os.fsync(folder)

    def _move(self, folder: int, name: str, to: str) -> None:
        self._endings(folder, name, to)
        _rename(folder, name, to)

    def _endings(self, folder: int, name: str, to: str) -> None:
        for ending in self.beside:
            if there(folder, f"{name}{ending}"):
                _rename(folder, f"{name}{ending}", f"{to}{ending}")

    def _kept(self, folder: int) -> str:
        return str(self.place.path.with_name(self.old)) if there(folder, self.old) else ""

    def _both(self) -> NeedsPerson:
        path = self.place.path
        return NeedsPerson(f"{path} was made anew while it was being replaced",
                           f"the one before is {self.old} and the restored one {self.new}, both beside it",
                           "decide which one to keep, and give it the live name")  # fmt: skip


def there(folder: int, name: str) -> bool:
    """Tell whether a folder has a name in it, whatever it stands for."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def remove(folder: int, name: str) -> None:
    """Remove a file or a whole folder by its name in a folder, if it is there."""
    if there(folder, name):
        inside = f"/proc/self/fd/{folder}/{name}"
        if os.path.isdir(inside) and not os.path.islink(inside):
            shutil.rmtree(inside)
        else:
            os.unlink(name, dir_fd=folder)


def _rename(folder: int, name: str, to: str) -> None:
    os.rename(name, to, src_dir_fd=folder, dst_dir_fd=folder)
