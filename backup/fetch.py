"""Backups brought here over OpenSSH, straight from descriptor to file; what arrived before an interruption is not sent again.

Nothing is ever deleted on a server or because of one: a folder here keeps its own history.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backup.agent.model import ID, Manifest
from backup.agent.store import MANIFEST, PARTIAL, PROOFS, SUMS
from backup.agent.streams import measure, sync
from backup.by_hand import commands
from backup.client import Client
from backup.hosts import Done, on_each, saving
from backup.progress import Printer
from ops.config import Environment
from ops.errors import ConfigError, Failed, Locked, Refused
from ops.link import explain, ssh_options
from ops.shell import Command

LOOK = 0.25


def fetch(env: Environment, printer: Printer, to: Path, id: str = "") -> Done:
    """Bring a backup into a folder from every server; without an id every good one that is not there yet."""
    if id and not ID.fullmatch(id):
        raise ConfigError(f"{id} is not a backup's id", fix=f"inv backup.list -e {env.name}")
    stop, several = threading.Event(), len(saving(env)) > 1

    def work(client: Client) -> Any:
        folder = to / re.sub(r"[^\w.@:\[\]-]", "_", client.name) if several else to
        return _Fetch(env, client, printer, folder, stop).all([id] if id else None)

    with printer:
        return on_each(env, work, None, stop=stop)


@dataclass(frozen=True)
class _Fetch:
    """From one server into one folder."""

    env: Environment
    client: Client
    printer: Printer
    folder: Path
    stop: threading.Event

    def all(self, ids: list[str] | None) -> dict[str, Any]:
        known = {one["id"]: one for one in self.client.call("list")["backups"]}
        wanted = [id for id, one in known.items() if one["good"]] if ids is None else ids
        if missing := [id for id in wanted if id not in known]:
            raise Failed(f"there is no backup {missing[0]}", where=self.client.name, fix=f"inv backup.list -e {self.env.name}")
        with self._locked():
            found = [self._one(id, known[id]["bytes"]) for id in wanted if not (self.folder / id / MANIFEST).exists()]
        here = [id for id in wanted if id not in [one["id"] for one in found]]
        return {"folder": str(self.folder), "fetched": found, "already_here": here}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Locked("another command fetches into this folder", where=str(self.folder), fix="wait for it") from None
            yield
        finally:
            os.close(descriptor)

    def _one(self, id: str, size: int) -> dict[str, Any]:
        began, partial = time.monotonic(), self.folder / f"{PARTIAL}{id}"
        partial.mkdir(mode=0o700, exist_ok=True)
        self._require_room(size - sum(one.stat().st_size for one in partial.iterdir()))
        for name in (MANIFEST, SUMS, PROOFS):
            (partial / name).unlink(missing_ok=True)
            self._receive(id, name, partial / name)
        manifest = self._manifest(id, (partial / MANIFEST).read_text())
        files = [file for item in manifest.items for file in item.files]
        for file in files:
            self._receive(id, file.name, partial / file.name, file.bytes)
        self.printer.note(self.client.name, f"{id} is here, checking it")
        for file in files:
            if measure(partial / file.name) != file:
                (partial / file.name).unlink()
                raise Failed(f"{file.name} of {id} is not what the manifest says, and was removed", where=self.client.name,
                             why="its size or SHA-256 is another: it was damaged there or on its way, or the shell of the login "
                                 "prints something", fix="the same command fetches that file again")  # fmt: skip
            sync(partial / file.name)
        sync(partial)
        partial.rename(self.folder / id)
        sync(self.folder)
        return {"id": id, "bytes": manifest.bytes, "seconds": round(time.monotonic() - began, 3), "by_hand": commands(manifest)}

    def _require_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise Refused(f"{needed / 1e6:.0f} MB are to come and {free / 1e6:.0f} MB are free", where=str(self.folder),
                          fix="make room, or name another folder with --to")  # fmt: skip

    def _manifest(self, id: str, text: str) -> Manifest:
        """Read a server's manifest, whose file names are only trusted when they stay in the folder."""
        try:
            found = Manifest.from_json(text)
            names = [file.name for item in found.items for file in item.files]
            if found.id != id or not all(map(_is_plain, names)):
                raise ValueError("it is another backup's, or names files that it cannot have")
        except ValueError as error:
            raise Failed(f"the manifest of {id} is damaged", where=self.client.name, why=str(error),
                         fix="fetch another: inv backup.list") from None  # fmt: skip
        return found

    def _receive(self, id: str, name: str, path: Path, size: int | None = None) -> None:
        """Let ssh append to a file what is not in it yet."""
        if size is not None and path.exists() and path.stat().st_size > size:
            path.unlink()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            offset = os.lseek(descriptor, 0, os.SEEK_END)
            if size is None or offset < size:
                self._stream(self.client.sender(id, name, offset), descriptor, name, size or 0)
        finally:
            os.close(descriptor)

    def _stream(self, command: Command, target: int, name: str, size: int) -> None:
        host = self.client.host
        options = ["-o", "Compression=no", *ssh_options(self.env, host)]  # the first one counts; it is compressed already
        argv = ["ssh", *options, "--", host.address, command.reveal()]
        with tempfile.TemporaryFile() as words:
            ssh = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=target, stderr=words, start_new_session=True)
            try:
                self._watch(ssh, target, name, size)
            finally:
                ssh.terminate()
                ssh.wait()
            words.seek(0)
            said = words.read()[-2000:].decode("utf-8", "replace").strip()
        if ssh.returncode == 255:
            raise explain(self.client.name, self.env.name, [said or "the line was cut", f"{name} is here in part"])
        if ssh.returncode:
            raise Failed(f"{name} did not arrive whole", where=self.client.name, why=said or f"exit code {ssh.returncode}",
                         fix="the same command goes on where this one ended")  # fmt: skip

    def _watch(self, ssh: subprocess.Popen[bytes], target: int, name: str, size: int) -> None:
        while ssh.poll() is None:
            try:
                ssh.wait(LOOK)
            except subprocess.TimeoutExpired:
                if size:
                    self.printer.bytes(self.client.name, name, os.fstat(target).st_size, size)
            if self.stop.is_set():
                raise Failed("interrupted", where=self.client.name, why=f"{name} is here in part",
                             fix="the same command goes on where this one ended")  # fmt: skip


def _is_plain(name: str) -> bool:
    """Tell whether a name stays in its folder, and is none that we use there."""
    return bool(name) and not set(name) & set("/\0") and not name.startswith(".") and name not in (MANIFEST, SUMS, PROOFS)
