"""An app with an SQLite file and a folder, whose backups are taken by the real program code, in this process or in one to kill."""

from __future__ import annotations

import json
import os
import posix  # its _exit: that of os writes down what was covered where that is measured, which takes longer than these live
import sqlite3
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backup.agent.directory import Directory
from backup.agent.model import Settings, Source
from backup.agent.report import Report
from backup.agent.source import Kinds
from backup.agent.sqlite import Sqlite
from backup.agent.work import Work

KINDS = Kinds({"sqlite": Sqlite, "directory": Directory})
EVENTS = ("open", "os.", "shutil.", "subprocess.Popen", "sqlite3.connect", "fcntl.")
DIED = 77


@dataclass
class Lines:
    """A file that keeps what a report writes to it."""

    text: list[str] = field(default_factory=list)

    def write(self, text: str) -> int:
        self.text.append(text)
        return len(text)

    def flush(self) -> None:
        pass


class App:
    """The app's folder on a server that is a temporary folder."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        self.database = root / "data" / "blog's.db"
        self.uploads = root / "data" / "up loads"
        self.uploads.mkdir(parents=True, exist_ok=True)
        sources = (
            Source("posts", "sqlite", path=str(self.database)),
            Source("uploads", "directory", path=str(self.uploads)),
        )
        known = {"sources": sources, "reserve": 0, "home": str(root / "srv"), "drill_every": 0.0, **settings}
        self.settings = Settings(app="blog", environment="production", server="one", **known)
        self.said = Lines()

    def fill(self, posts: int = 20) -> None:
        """Write posts, in WAL mode as the app would, and an upload."""
        with sqlite3.connect(self.database) as connection:
            connection.execute("PRAGMA journal_mode=wal")
            connection.execute("CREATE TABLE IF NOT EXISTS posts (id INTEGER PRIMARY KEY, title TEXT)")
            connection.executemany("INSERT INTO posts (title) VALUES (?)", [(f"post {n}",) for n in range(posts)])
        connection.close()
        (self.uploads / "a picture.png").write_bytes(os.urandom(3000))

    def work(self, kinds: Kinds = KINDS, **request: Any) -> Work:
        """Return what commands work with."""
        return Work(self.settings, kinds, Report(self.said, as_json=True), request, "agent")  # type: ignore[arg-type]

    @property
    def folder(self) -> Path:
        """Return the folder of the backups."""
        return self.settings.folder / "backups"

    def with_settings(self, **changes: Any) -> App:
        """Change settings."""
        self.settings = replace(self.settings, **changes)
        return self

    def call(self, command: Callable[[Work, Namespace], Any], kinds: Kinds = KINDS, **asked: Any) -> Any:
        """Carry out a command with the options it would have from the command line."""
        options = {"types": "manual", "id": "", "by": "test", "before": "", "first": False, "only": "", "level": "full",
                   "dry_run": False, "thaw": False, **asked}  # fmt: skip
        return command(self.work(kinds), Namespace(**options))


def die_at(number: int, action: Callable[[], object]) -> tuple[int, str]:
    """Run an action in a child that is killed at its n-th touch of the system; returns how it ended and what came then.

    The touches are Python's audit events: files opened, made, renamed or removed, programs started, locks taken.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        left = number

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event.startswith(EVENTS):
                left -= 1
                if left == 0:
                    os.write(writer, f"{event} {arguments!r}"[:300].encode())
                    posix._exit(DIED)

        sys.addaudithook(count)
        try:
            action()
            posix._exit(0)
        except BaseException as error:
            os.write(writer, repr(error).encode()[:300])
            posix._exit(1)
    os.close(writer)
    with os.fdopen(reader) as words:
        said = words.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def manifests(folder: Path) -> Mapping[str, dict[str, Any]]:
    """Return the manifests of all that has a backup's name."""
    return {one.name: json.loads((one / "manifest.json").read_text()) for one in folder.glob("2*Z-*")}
