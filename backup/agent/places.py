"""Where a source is on the server's disk, reached without following anything that the app may have put in the way."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from backup.agent.errors import BackupError
from backup.agent.model import Source
from ops.agent.engine import Engine, EngineError


class Missing(BackupError):
    """There is nothing at this place yet."""


@dataclass(frozen=True)
class Place:
    """A file or folder: a root that only we can change, and the names below it, which may be the app's to change.

    We are root and the app is not: a symbolic link of its making would have us read or replace a file of the server's.
    So every name below the root is opened from its folder's descriptor and without following links.
    """

    root: Path
    names: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Return the whole path."""
        return self.root.joinpath(*self.names)

    @property
    def name(self) -> str:
        """Return the last name."""
        return self.names[-1]

    @contextmanager
    def folder(self) -> Iterator[int]:
        """Open the folder that it is in. Raises Missing, and BackupError for a link on the way."""
        descriptor = self._walk(self.names[:-1])
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Open the folder that it is. Raises Missing, and BackupError for a link or something else than a folder."""
        descriptor = self._walk(self.names)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _walk(self, names: tuple[str, ...]) -> int:
        try:
            here = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise Missing(f"there is no {self.root}") from error
        except OSError as error:
            raise BackupError(f"{self.root} cannot be opened", str(error)) from error
        so_far = self.root
        for name in names:
            so_far, above = so_far / name, here
            try:
                here = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
            except FileNotFoundError as error:
                raise Missing(f"there is no {so_far}") from error
            except OSError as error:  # a link and a file are both "not a directory" to the kernel
                raise _refused(so_far) if so_far.is_symlink() else BackupError(f"{so_far} is not a folder", str(error)) from error
            finally:
                os.close(above)
        return here

    def mounted(self) -> bool:
        """Tell whether something is mounted just here, so that it cannot be renamed."""
        return str(self.path) in _mounts()


def _refused(link: Path) -> BackupError:
    return BackupError(f"{link} is a symbolic link and not followed", f"it leads to {os.path.realpath(link)}",
                       "name the real path in ops.toml")  # fmt: skip


def find(source: Source, engine: Engine) -> Place:
    """Return where a source is. Raises Missing when its volume is not there, BackupError for a path that we do not take."""
    parts = tuple(part for part in source.path.split("/") if part not in ("", "."))
    if ".." in parts or "\0" in source.path:
        raise BackupError(f"{source.name}: the path {source.path!r} leaves where it should be")
    if source.volume:
        mountpoint = _mountpoint(source.volume, engine)
        return Place(mountpoint, parts) if parts else Place(mountpoint.parent, (mountpoint.name,))
    if not source.path.startswith("/") or not parts:
        raise BackupError(f"{source.name}: {source.path!r} is not an absolute path below /", "without a volume it has to be one")
    return Place(Path("/"), parts)


def _mountpoint(volume: str, engine: Engine) -> Path:
    path = f"/volumes/{quote(volume, safe='')}"
    try:
        known: dict[str, Any] = engine.call("GET", path)
    except EngineError as error:
        if str(error).startswith(f"GET {path}: 404 "):
            raise Missing(f"there is no volume {volume}") from error
        raise BackupError(f"the volume {volume} cannot be looked up", str(error)) from error
    mountpoint = known.get("Mountpoint") or ""
    if not mountpoint:
        raise BackupError(f"the volume {volume} is not on this server's disk", f"its driver is {known.get('Driver')}")
    if "device" in (known.get("Options") or {}) and mountpoint not in _mounts():  # we would save the empty folder below
        raise BackupError(f"the volume {volume} is not mounted now", "the engine mounts it while a container uses it",
                          "start a container that uses it, or name the device's own path in ops.toml")  # fmt: skip
    return Path(mountpoint)


def _mounts() -> list[str]:
    rows = Path("/proc/self/mountinfo").read_bytes().splitlines()
    octal = re.compile(rb"\\([0-7]{3})")
    return [os.fsdecode(octal.sub(lambda found: bytes([int(found[1], 8)]), row.split(b" ")[4])) for row in rows]
