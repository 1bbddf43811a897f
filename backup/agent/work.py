"""What every command works with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

from backup.agent import toolbox
from backup.agent.errors import BackupError
from backup.agent.model import Settings
from backup.agent.rehearse import DATABASES
from backup.agent.report import Report
from backup.agent.source import Kinds
from backup.agent.store import Store
from ops.agent.engine import Engine

UTC = timezone.utc  # noqa: UP017  # 3.10


@dataclass(frozen=True)
class Work:
    """What every command works with; `request` is what came over the tether, `agent` the program's version."""

    settings: Settings
    kinds: Kinds
    report: Report
    request: Mapping[str, Any]
    agent: str

    @cached_property
    def store(self) -> Store:
        """Return the app's backups."""
        return Store(self.settings.folder / "backups")

    @contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Hold the lock of the backups. Raises Busy. What killed runs left goes first, also in the engine."""
        with self.store.locked(what):
            databases = any(one.kind in DATABASES for one in self.settings.sources)
            if databases or any(self.settings.folder.glob(f"{toolbox.PREFIX}*")):
                self._sweep_toolboxes()
            yield

    def _sweep_toolboxes(self) -> None:
        try:
            toolbox.sweep(Engine(self.settings.engine), self.settings)
        except BackupError as error:  # sources that need no engine are saved all the same
            self.report.warn(f"what killed runs left in the engine stays for now: {error}")

    @contextmanager
    def identity(self) -> Iterator[int | None]:
        """Hold the age identity that came with the request in memory, as a descriptor that age can read."""
        text = self.request.get("identity")
        if not text:
            yield None
            return
        descriptor = os.memfd_create("identity")
        try:
            os.write(descriptor, f"{text.strip()}\n".encode())
            yield descriptor
        finally:
            os.close(descriptor)


def now() -> datetime:
    """Return the time, to the second, as ids and manifests have it."""
    return datetime.now(UTC).replace(microsecond=0)
