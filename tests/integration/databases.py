"""A database server in a container of the local engine, and a backup of it taken by a driver, for tests of both kinds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from backup.agent.model import Settings, Source
from backup.agent.report import Report
from backup.agent.source import Driver, Saved, Stage
from backup.agent.streams import Codec
from backup.agent.toolbox import LABEL, PREFIX
from ops.agent.engine import Engine

Make = Callable[[Settings, Source, Engine], Driver]


def docker(*arguments: str, feed: str = "", check: bool = True) -> str:
    """Run the docker command line and return what it prints."""
    done = subprocess.run(["docker", *arguments], input=feed, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def server(image: str, environment: Mapping[str, str], probe: list[str], *command: str) -> Iterator[str]:
    """Run a database server; returns the container's name."""
    name = f"tidegate-test-{os.urandom(4).hex()}"
    variables = [part for key, value in environment.items() for part in ("-e", f"{key}={value}")]
    try:
        docker("run", "-d", "--name", name, "--label", "dev.tidegate.test=1", *variables, image, *command)
        script = 'until "$@" >/dev/null 2>&1; do sleep 0.1; done'
        docker("exec", name, "timeout", "120", "sh", "-c", script, "sh", *probe)
        yield name
    finally:
        docker("rm", "-f", "-v", name, check=False)


@dataclass(frozen=True)
class Site:
    """An app whose database is saved: its folder, its source, and the driver under test."""

    home: Path
    source: Source
    make: Make

    @property
    def settings(self) -> Settings:
        return Settings(f"shop-{self.home.name}", "production", "here", (self.source,), home=str(self.home))

    @property
    def driver(self) -> Driver:
        return self.make(self.settings, self.source, Engine(self.settings.engine))

    def change(self, **known: object) -> Site:
        """Return the site with another source."""
        return replace(self, source=replace(self.source, **known))  # type: ignore[arg-type]

    def stage(self) -> Stage:
        """Return a new place for a backup."""
        folder = self.home / f"backup-{os.urandom(4).hex()}"
        folder.mkdir(mode=0o700)
        return Stage(self.settings, folder, Codec("zstd", 3), Report())

    def save(self) -> Saved:
        """Take a backup."""
        stage = self.stage()
        return Saved(self.driver.dump(stage), stage.folder, Report())

    def work(self) -> Path:
        """Return an empty folder."""
        folder = self.home / f"work-{os.urandom(4).hex()}"
        folder.mkdir()
        return folder

    def left(self) -> list[str]:
        """Return what a driver left behind: containers, and folders with pipes and passwords."""
        containers = docker("ps", "-aq", "--filter", f"label={LABEL}={self.settings.app}").splitlines()
        return containers + [path.name for path in self.settings.folder.glob(f"{PREFIX}*")]


def damaged(saved: Saved, name: str, change: Callable[[bytearray], bytearray]) -> Saved:
    """Return a copy of a backup with one file changed."""
    folder = saved.folder.parent / f"damaged-{os.urandom(4).hex()}"
    folder.mkdir()
    for file in saved.item.files:
        data = (saved.folder / file.name).read_bytes()
        (folder / file.name).write_bytes(change(bytearray(data)) if file.name == name else data)
    return replace(saved, folder=folder)


def flipped(data: bytearray) -> bytearray:
    """Flip one bit in the middle."""
    data[len(data) // 2] ^= 16
    return data


DAMAGE: dict[str, Callable[[bytearray], bytearray]] = {
    "empty": lambda data: data[:0],
    "cut in half": lambda data: data[: len(data) // 2],
    "without its last bytes": lambda data: data[:-9],
    "with a flipped bit": flipped,
}
