"""Files that are either wholly there or not there at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from typing import Any


class Busy(Exception):
    """Somebody else holds the lock; the argument is what they wrote into it."""


def sync_folder(path: str) -> None:
    """Make renames and creations in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: str, text: str, mode: int = 0o600) -> None:
    """Replace a file atomically and durably."""
    folder = os.path.dirname(path)
    os.makedirs(folder, 0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)
    sync_folder(folder)


def move(source: str, target: str) -> None:
    """Rename a file over another, durably."""
    os.replace(source, target)
    sync_folder(os.path.dirname(target))


def keep(path: str, copy: str) -> None:
    """Keep a file under a second name, without needing room on the disk; nothing where there is none."""
    remove(copy)
    if os.path.exists(path):
        os.link(path, copy)


def restage(copy: str, staged: str, text: str) -> None:
    """Stage a text again: from the copy kept of it if that is what it holds, since a full disk takes no new one."""
    if read(copy) == text:
        move(copy, staged)
    else:
        write(staged, text, 0o644)


def settle(source: str, target: str) -> None:
    """Rename a file to its final name; fine when that was done before."""
    if os.path.exists(source) or not os.path.exists(target):
        move(source, target)


def remove(path: str) -> None:
    """Remove a file if it is there."""
    if os.path.lexists(path):
        os.unlink(path)
        sync_folder(os.path.dirname(path))


def read(path: str, tail: int = 0) -> str | None:
    """Return a file's text (its last `tail` bytes when given), or None where there is none."""
    try:
        with open(path, "rb") as file:
            if tail:
                file.seek(max(0, os.fstat(file.fileno()).st_size - tail))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return None


def digest(path: str) -> str | None:
    """Return a file's SHA-256, or None where there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return None


def names(folder: str, suffix: str) -> list[str]:
    """Return the names in a folder that end so."""
    found = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name for name in found if name.endswith(suffix))


def read_all(folder: str, suffix: str) -> dict[str, str]:
    """Return name → text of the files in a folder with that suffix."""
    texts = {name: read(os.path.join(folder, name)) for name in names(folder, suffix)}
    return {name: text for name, text in texts.items() if text is not None}


def append(path: str, lines: list[str]) -> None:
    """Append whole lines durably, starting a new line where a power cut left half of one."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        data = ("\n" if torn else "") + "".join(line + "\n" for line in lines)
        rest = memoryview(data.encode())
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
        if size == 0:
            sync_folder(os.path.dirname(path))
    finally:
        os.close(descriptor)


def lock(path: str, holder: dict[str, Any]) -> int:
    """Take the lock for as long as this process lives; raise Busy with the holder's note if it is taken."""
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note = os.read(descriptor, 4096).decode("utf-8", "replace")
        os.close(descriptor)
        raise Busy(note) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)
    return descriptor
