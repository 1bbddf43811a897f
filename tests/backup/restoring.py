"""An app whose data, containers and nginx are files, and which dies at whichever step it is told to."""

from __future__ import annotations

import io
import os
import posix
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from backup.agent.errors import BackupError
from backup.agent.model import Item, Settings, Source
from backup.agent.report import Report
from backup.agent.restore import Request, Restore
from backup.agent.run import Run, Wanted
from backup.agent.source import Kinds, Saved, Stage, State
from backup.agent.store import Store
from backup.agent.writers import Paused, Writer, Writers
from ops.agent import files
from ops.agent.engine import Engine

ID = "20261123T030000Z-000000"
CONTAINERS = ("blog_web_1", "blog_worker_1")
DIED = 77


class Steps:
    """Counts steps; at the one it is told, it does what it is told."""

    def __init__(self) -> None:
        self.at = 0
        self.count = 0
        self.names: list[str] = []
        self.then: Callable[[], object] = lambda: None

    def __call__(self, name: str) -> None:
        self.count += 1
        self.names.append(name)
        if self.count == self.at:
            self.then()


@dataclass
class Lines:
    """A source of lines in a file; every effect is a step."""

    settings: Settings
    source: Source
    engine: Engine
    step: Steps
    lie: bool = False

    @property
    def path(self) -> Path:
        return Path(self.source.path)

    def state(self) -> State:
        if not self.path.exists():
            return State(present=False)
        return State(True, schema="1", bytes=self.path.stat().st_size)

    def dump(self, stage: Stage) -> Item:
        with self.path.open("rb") as file:
            saved = stage.save(self.source.name, f"{self.source.name}.txt", file.fileno())
        return Item(self.source.name, "lines", (saved,), self._counts(self.path), "1")

    def decode(self, saved: Saved, work: Path) -> None:
        self._read(saved, work / "decoded")

    @contextmanager
    def trial(self, saved: Saved, work: Path) -> Iterator[Any]:
        yield self.replaced("trial")

    def beside(self, saved: Saved, tag: str) -> Copy:
        copy = self.replaced(tag)
        self.step(f"before beside {self.source.name}")
        self._read(saved, copy.new)
        self.step(f"beside {self.source.name}")
        return copy

    def replaced(self, tag: str) -> Copy:
        return Copy(self, tag)

    def _read(self, saved: Saved, path: Path) -> None:
        with path.open("wb") as file:
            saved.read(f"{self.source.name}.txt", file.fileno())

    @staticmethod
    def _counts(path: Path) -> dict[str, int]:
        return {"lines": len(path.read_text().splitlines())}


@dataclass
class Copy:
    """A restored file beside the live one."""

    lines: Lines
    tag: str

    @property
    def new(self) -> Path:
        return self.lines.path.with_name(f"{self.lines.path.name}.new-{self.tag}")

    @property
    def old(self) -> Path:
        return self.lines.path.with_name(f"{self.lines.path.name}.old-{self.tag}")

    def counts(self) -> Mapping[str, int]:
        return {"lines": -1} if self.lines.lie else self.lines._counts(self.new)

    def swap(self) -> str:
        live = self.lines.path
        assert nobody_writes(self.lines.settings), "swapped while the app may write"
        if live.exists():
            live.rename(self.old)
            self.lines.step(f"half swapped {self.lines.source.name}")
        self.new.rename(live)
        self.lines.step(f"swapped {self.lines.source.name}")
        return str(self.old) if self.old.exists() else ""

    def swap_back(self) -> None:
        live = self.lines.path
        assert nobody_writes(self.lines.settings), "swapped back while the app may write"
        if self.old.exists():
            if live.exists():
                live.rename(self.new)
                self.lines.step(f"half back {self.lines.source.name}")
            self.old.rename(live)
            self.lines.step(f"back {self.lines.source.name}")

    def discard(self) -> None:
        self.new.unlink(missing_ok=True)
        self.lines.step(f"discarded {self.lines.source.name}")


class Files(Writers):
    """Containers and nginx as files: what is in them is their state."""

    def __init__(self, settings: Settings, report: Report, step: Steps) -> None:
        super().__init__(settings, report)
        self._folder, self._step, self.sick = settings.folder, step, False

    def look(self) -> Paused:
        names = sorted(path.name for path in (self._folder / "containers").iterdir() if path.read_text() == "running")
        generation = (self._folder / "nginx").read_text() if names else ""
        return Paused(tuple(Writer(name, "1", "web", {"Name": "always"}) for name in names), generation)

    def drain(self, paused: Paused, tag: str) -> None:
        self._nginx(paused, f"draining-{tag}")

    def close(self, paused: Paused, tag: str) -> None:
        self._nginx(paused, f"maintenance-{tag}")

    def stop(self, paused: Paused) -> None:
        assert not paused.generation or (self._folder / "nginx").read_text().startswith("maintenance"), "users would see a 502"
        for one in paused.containers:
            (self._folder / "containers" / one.name).write_text("stopped")
            self._step(f"stopped {one.name}")

    def start(self, paused: Paused, *, must: bool) -> None:
        for one in paused.containers:
            (self._folder / "containers" / one.name).write_text("running")
            self._step(f"started {one.name}")
        if must and self.sick:
            raise BackupError("the app does not get healthy with the restored data")

    def open(self, paused: Paused) -> None:
        self._nginx(paused, paused.generation)

    def _nginx(self, paused: Paused, generation: str) -> None:
        if paused.generation:
            (self._folder / "nginx").write_text(generation)
            self._step(f"nginx {generation.partition('-')[0]}")


def nobody_writes(settings: Settings) -> bool:
    """Tell whether every container is stopped."""
    return all(path.read_text() != "running" for path in (settings.folder / "containers").iterdir())


@dataclass
class World:
    """A server with an app that has two sources and a good backup from when each had three lines."""

    home: Path
    step: Steps = field(default_factory=Steps)

    def __post_init__(self) -> None:
        sources = tuple(Source(name, "lines", path=str(self.home / "data" / name)) for name in ("posts", "users"))
        self.settings = Settings("blog", "test", "here", sources, compression="none", reserve=0, home=str(self.home))
        self.store = Store(self.settings.folder / "backups")
        self.said = io.StringIO()
        self.report = Report(self.said)
        self.lying: set[str] = set()
        self.writers = Files(self.settings, self.report, self.step)
        self.kinds = Kinds({"lines": self._lines})

    def _lines(self, settings: Settings, source: Source, engine: Engine) -> Lines:
        return Lines(settings, source, engine, self.step, source.name in self.lying)

    def build(self) -> World:
        """Make its files."""
        for folder in ("data", "blog/containers", "blog/releases"):
            (self.home / folder).mkdir(parents=True)
        for name in CONTAINERS:
            (self.settings.folder / "containers" / name).write_text("running")
        (self.settings.folder / "nginx").write_text("release-1")
        for source in self.settings.sources:
            Path(source.path).write_text(f"{source.name} 1\n{source.name} 2\n{source.name} 3\n")
        with self.store.locked("a backup"):
            self.run().take(Wanted(ID, ("daily",)), datetime(2026, 11, 23, 3, tzinfo=timezone.utc))  # noqa: UP017
        for source in self.settings.sources:
            Path(source.path).write_text(f"{source.name} 1\ngarbled {source.name}\n")
        return self

    def copy(self, home: Path) -> World:
        """Return another server that is just like this one."""
        shutil.copytree(self.home, home, ignore=shutil.ignore_patterns("copies"))
        begun = home / "blog" / "restore.json"
        if begun.exists():  # it names the sources' paths
            begun.write_text(begun.read_text().replace(f"{self.home}/", f"{home}/"))
        return World(home)

    def run(self) -> Run:
        return Run(self.settings, self.store, self.kinds, self.report)

    def restore(self, **wanted: Any) -> dict[str, Any]:
        with self.store.locked("a restore"):
            return self._restore().restore(Request(wanted.pop("id", ID), by="somebody", **wanted))

    def undo(self) -> dict[str, Any]:
        with self.store.locked("a restore"):
            return self._restore().undo()

    def _restore(self) -> Restore:
        return Restore(self.settings, self.kinds, self.store, self.report, writers=self.writers)

    def die_in(self, action: Callable[[], object], at: int) -> int:
        """Do it in a process that ends without another word at a step; returns its exit code."""
        child = os.fork()
        if child == 0:
            try:
                self.step.count, self.step.at, self.step.then = 0, at, lambda: posix._exit(DIED)
                for name in ("write", "remove", "append"):
                    setattr(files, name, stepping(name, getattr(files, name), self.step))
                action()
            except BaseException:
                posix._exit(1)
            posix._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def live(self) -> dict[str, str]:
        """Return the data, what runs and what nginx answers."""
        folder = self.settings.folder
        return {
            **{source.name: Path(source.path).read_text() for source in self.settings.sources},
            **{path.name: path.read_text() for path in (folder / "containers").iterdir()},
            "nginx": (folder / "nginx").read_text(),
        }

    def leftovers(self) -> list[str]:
        """Return the names beside the live data, and whether a restore is still under way."""
        names = {source.name for source in self.settings.sources}
        beside = [path.name for path in (self.home / "data").iterdir() if path.name not in names]
        return sorted([*beside, *(path.name for path in self.settings.folder.glob("restore*"))])


def stepping(name: str, action: Callable[..., Any], step: Steps) -> Callable[..., Any]:
    """Make a step of the moments before and after something."""

    def do(*args: Any, **kwargs: Any) -> Any:
        step(f"before {name}")
        found = action(*args, **kwargs)
        step(name)
        return found

    return do
