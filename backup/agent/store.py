"""Backups on the disk: each a folder that is there whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from backup.agent.errors import BackupError, Busy, Refused
from backup.agent.model import CHECKSUMS, FULL, ID, RESTORE, Manifest, Proof, utc
from backup.agent.streams import create, sync
from ops.agent import files

MANIFEST, SUMS, PROOFS, PINNED = "manifest.json", "SHA256SUMS", "verified.jsonl", "pinned"
PARTIAL, TRASH = ".partial-", ".trash-"


@dataclass(frozen=True)
class Backup:
    """A backup as it lies there: what it says of itself, what was proved of it, and the note it is pinned with."""

    manifest: Manifest
    folder: Path
    proofs: tuple[Proof, ...] = ()
    pinned: str = ""

    @property
    def id(self) -> str:
        """Return its id."""
        return self.manifest.id

    @property
    def taken(self) -> datetime:
        """Return the moment it is of."""
        return utc(self.manifest.started)

    @property
    def good(self) -> bool:
        """Tell whether it is complete and was decoded in full, and its files are what they were then.

        A restore that fails later may be the server's fault, so it does not make a backup worthless: it is told.
        """
        decoded = any(one.ok and one.level == FULL for one in self.proofs)
        unharmed = all(one.ok or one.level != CHECKSUMS for one in self.proofs[-1:])  # every look begins with them
        return self.manifest.complete and decoded and unharmed

    @property
    def whole(self) -> bool:
        """Tell whether it is good and of all sources: one that was asked for less does not stand for the app's data."""
        return self.good and not self.manifest.only

    @property
    def restored(self) -> Proof | None:
        """Return the latest proof by a restore that passed."""
        return next((one for one in reversed(self.proofs) if one.level == RESTORE and one.ok), None)


class Store:
    """The backups of one app on this server. Nothing outside its folder is ever touched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unwritten: list[dict[str, Any]] = []

    @contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Hold the lock: one run, expiry or restore at a time. Raises Busy. What a killed one left is swept first."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                note = os.pread(descriptor, 200, 0).decode("utf-8", "replace")
                raise Busy("another run is at work on the backups of this app", note, "wait for it") from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{what}, process {os.getpid()}".encode(), 0)
            self._sweep()
            yield
        finally:
            os.close(descriptor)

    def _sweep(self) -> None:
        for left in (*self.folder.glob(f"{PARTIAL}*"), *self.folder.glob(f"{TRASH}*")):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()

    def stage(self, id: str) -> Path:
        """Make the folder in which a backup comes to be."""
        if not ID.fullmatch(id):
            raise Refused(f"{id!r} is not a backup's id")
        if (self.folder / id).exists():
            raise BackupError(f"there is a backup {id} already")
        staged = self.folder / f"{PARTIAL}{id}"
        staged.mkdir(mode=0o700)
        return staged

    def publish(self, staged: Path, manifest: Manifest, proof: Proof) -> Path:
        """Give a staged backup its name, durably: all in it is on the disk before it has the name."""
        sums = "".join(f"{file.sha256}  {file.name}\n" for item in manifest.items for file in item.files)
        for name, text in ((SUMS, sums), (MANIFEST, manifest.to_json()), (PROOFS, json.dumps(asdict(proof)) + "\n")):
            _write_new(staged / name, text)
        sync(staged)
        final = self.folder / manifest.id
        staged.rename(final)
        sync(self.folder)
        return final

    def discard(self, staged: Path) -> None:
        """Remove what was staged."""
        if staged.exists():
            shutil.rmtree(staged)

    def backups(self) -> tuple[list[Backup], list[str]]:
        """Return all backups, oldest first, and what is damaged; other things in the folder are left alone."""
        found, problems = [], []
        for folder in sorted(self.folder.iterdir()) if self.folder.exists() else ():
            if ID.fullmatch(folder.name):
                try:
                    found.append(self._read(folder))
                except (OSError, ValueError) as error:
                    problems.append(f"{folder.name} is damaged and not touched: {error}")
        return sorted(found, key=lambda one: (one.taken, one.id)), problems  # ids may be of another machine's clock

    def get(self, id: str) -> Backup:
        """Return a backup. Raises BackupError for one that is not there or damaged."""
        if not ID.fullmatch(id) or not (self.folder / id).is_dir():
            raise BackupError(f"there is no backup {id}", fix="inv backup.list")
        try:
            return self._read(self.folder / id)
        except (OSError, ValueError) as error:
            raise BackupError(f"{id} is damaged", str(error), "choose another: inv backup.list") from error

    def _read(self, folder: Path) -> Backup:
        manifest = Manifest.from_json((folder / MANIFEST).read_text())
        if manifest.id != folder.name:
            raise ValueError(f"its manifest is that of {manifest.id}")
        proofs = folder / PROOFS
        pinned = folder / PINNED
        return Backup(manifest, folder, tuple(_proofs(proofs.read_text())) if proofs.exists() else (),
                      pinned.read_text().strip() if pinned.exists() else "")  # fmt: skip

    def prove(self, id: str, proof: Proof) -> None:
        """Add what was proved of a backup to its record."""
        _append(self.folder / id / PROOFS, json.dumps(asdict(proof)))

    def pin(self, id: str, note: str) -> None:
        """Keep a backup whatever the policy says; without a note, no longer."""
        pinned = self.get(id).folder / PINNED
        if note:
            files.write(str(pinned), note)  # replaced in one step: a backup is never unpinned between two notes
        else:
            files.remove(str(pinned))

    def delete(self, id: str) -> None:
        """Remove a backup: out of sight by a rename first, so that half of one is never seen."""
        trash = self.folder / f"{TRASH}{id}"
        self.get(id).folder.rename(trash)
        sync(self.folder)
        shutil.rmtree(trash)

    def note(self, record: dict[str, Any], warn: Callable[[str], None] | None = None) -> None:
        """Append a line to the history, durably; with `warn` a full disk is only told: people must still hear of the record."""
        try:
            _append(self.folder / "history.jsonl", json.dumps(record))
        except OSError as error:
            if warn is None:
                raise
            self._unwritten.append(json.loads(json.dumps(record)))
            warn(f"the history lacks a line: {error}")

    def history(self) -> list[dict[str, Any]]:
        """Return the history, oldest first; half a line, as a power cut leaves it, is left out."""
        path = self.folder / "history.jsonl"
        lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else ()
        return [*(known for line in lines if (known := _record(line))), *self._unwritten]


def _write_new(path: Path, text: str) -> None:
    descriptor = create(path)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _append(path: Path, line: str) -> None:
    """Append one line; a line that a power cut or a full disk halved before it is ended first."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        broken = size and os.pread(descriptor, 1, size - 1) != b"\n"
        rest = memoryview(f"{chr(10) if broken else ''}{line}\n".encode())
        while rest:  # a disk that fills up takes a part and says so only the next time
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync(path.parent)


def _record(line: str) -> dict[str, Any] | None:
    try:
        known = json.loads(line)
    except ValueError:
        return None
    return known if isinstance(known, dict) else None


def _proofs(text: str) -> Iterator[Proof]:
    for line in text.splitlines():
        if known := _record(line):
            try:
                yield Proof(**known)
            except TypeError as error:
                raise ValueError(f"its record of proofs is not ours: {error}") from error
