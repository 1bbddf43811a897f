"""What the app's own files tell of a restore: the lock that deploys hold, their journal, and the history of backups."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from backup.agent.begun import Begun
from backup.agent.errors import Busy, NeedsPerson
from backup.agent.model import Settings, written
from backup.agent.report import Report
from backup.agent.store import Store
from ops.agent import files

UTC = timezone.utc  # noqa: UP017  # 3.10


class Journal:
    """Lock, journal and history of one app."""

    def __init__(self, settings: Settings, store: Store, report: Report) -> None:
        self._settings = settings
        self._store = store
        self._report = report

    @contextmanager
    def no_deploys(self, what: str, by: str) -> Iterator[None]:
        """Hold the lock that deploys hold. Raises Busy."""
        path = self._settings.folder / "lock"
        since = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            descriptor = files.lock(str(path), {"what": what, "who": by or "the server", "since": since})
        except files.Busy as busy:
            raise Busy("a deploy is at work on this app", str(busy), "wait for it") from None
        try:
            _as_its_folder(path)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def recorded(self, begun: Begun, began: float, *, skip_safety: bool) -> Iterator[None]:
        """Write beginning and end into the app's journal and into the history of its backups."""
        self._journal("begin", begun, {"skip_safety": True} if skip_safety else {})
        result, why = "undone", ""
        try:
            yield
            result = "done"
        except BaseException as error:
            why = str(error) or type(error).__name__
            if isinstance(error, NeedsPerson):
                result = "needs a person"
            raise
        finally:
            self.end(begun, began, result, why)

    def end(self, begun: Begun, began: float, result: str, why: str) -> None:
        """Write down how it ended; that this fails must not hide how."""
        seconds, ok = round(time.monotonic() - began, 3), result == "done"
        try:
            self._journal("end", begun, {"result": result, "seconds": seconds})
            self._store.note({
                "event": "restore", "id": begun.id, "started": begun.started, "finished": written(datetime.now(UTC)), "ok": ok,
                "result": result, "error": "" if ok else why, "seconds": seconds, "safety": begun.safety, "by": begun.by,
            })  # fmt: skip
        except OSError as error:
            self._report.warn(f"journal and history lack how this ended: {error}")

    def _journal(self, event: str, begun: Begun, more: Mapping[str, Any]) -> None:
        head = {"event": event, "operation": begun.operation, "kind": "restore", "release": f"backup {begun.id}", "version": "",
                "by": begun.by}  # fmt: skip
        path = self._settings.folder / "journal.jsonl"
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        files.append(str(path), [json.dumps({"time": stamp, **head, **more})])
        _as_its_folder(path)


def _as_its_folder(path: Path) -> None:
    """Leave a file to the owner of its folder: deploys, which are not root, write it too."""
    folder = path.parent.stat()
    if os.geteuid() == 0 and path.stat().st_uid != folder.st_uid:
        os.chown(path, folder.st_uid, folder.st_gid)
