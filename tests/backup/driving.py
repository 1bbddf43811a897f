"""Drivers on this machine's own files, and processes that die at whichever system call they are told to."""

from __future__ import annotations

import io
import os
import posix
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from backup.agent.directory import Directory
from backup.agent.model import Item, Settings, Source
from backup.agent.report import Report
from backup.agent.source import Saved, Stage
from backup.agent.sqlite import Sqlite
from backup.agent.streams import Codec
from ops.agent.engine import Engine

KILLED = 77
STEPS = ("rename", "open", "mkdir", "unlink", "rmdir", "fsync", "fchown", "fchmod")


def settings_of(source: Source) -> Settings:
    return Settings("blog", "production", "one", (source,))


def sqlite_of(path: Path | str, **more: Any) -> Sqlite:
    source = Source("posts", "sqlite", path=str(path), **more)
    return Sqlite(settings_of(source), source, Engine("/nowhere/docker.sock"))


def directory_of(path: Path | str, **more: Any) -> Directory:
    source = Source("uploads", "directory", path=str(path), **more)
    return Directory(settings_of(source), source, Engine("/nowhere/docker.sock"))


def stage_in(folder: Path, codec: str = "zstd", out: io.StringIO | None = None) -> Stage:
    folder.mkdir(mode=0o700, exist_ok=True)
    source = Source("posts", "sqlite")
    return Stage(settings_of(source), folder, Codec(codec), Report(out or io.StringIO(), as_json=True))


def saved_in(folder: Path, item: Item) -> Saved:
    return Saved(item, folder, Report(io.StringIO()))


def database(path: Path, posts: int = 3, journal: str = "wal") -> Path:
    with closing(sqlite3.connect(path)) as made:
        made.execute(f"PRAGMA journal_mode = {journal}")
        made.execute("CREATE TABLE authors (id INTEGER PRIMARY KEY, name TEXT)")
        made.execute("CREATE TABLE posts (id INTEGER PRIMARY KEY, author INTEGER REFERENCES authors, body TEXT)")
        made.execute("INSERT INTO authors VALUES (1, 'Ada')")
        made.executemany("INSERT INTO posts (author, body) VALUES (1, ?)", [(f"post {n}",) for n in range(posts)])
        made.commit()
    return path


def rows(path: Path, query: str = "SELECT count(*) FROM posts") -> Any:
    with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as opened:
        return opened.execute(query).fetchone()[0]


def dies(work: Callable[[], object], at: int) -> bool:
    """Run in a process of its own that is gone before its step number `at`; False when it ended before that."""
    child = os.fork()
    if child == 0:
        try:
            _count_steps(at)
            work()
            posix._exit(0)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        posix._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED


def _count_steps(at: int) -> None:
    count = 0

    def stepping(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                posix._exit(KILLED)
            return real(*args, **more)

        return step

    for name in STEPS:
        setattr(os, name, stepping(getattr(os, name)))


def tree(folder: Path) -> Mapping[str, str]:
    """Return every name below a folder with what it is, links not followed."""
    return {str(one.relative_to(folder)): _what(one) for one in sorted(folder.rglob("*"))}


def _what(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    return "folder" if path.is_dir() else path.read_bytes().decode("latin-1")
