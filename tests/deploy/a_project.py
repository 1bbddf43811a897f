"""A project whose only server is this machine (tests/deploy/a_server.py), driven by the tasks that people type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from invoke import Context, Exit

import tasks
from ops import interrupts, menu
from ops.names import EDGE
from tests.deploy import a_server
from tests.deploy.a_server import Here

CONFIG = """
[app]
name = "blog"
image = "registry.invalid/blog"
port = {port}
keep_releases = 2
{more}
[app.health]
interval = "10ms"
timeout = "1s"
successes = 1
[app.prober]
interval = "5ms"
[app.drain]
grace = "1s"
[app.migrate]
command = ["migrate"]
[environments.test]
domain = "a.example"
hosts = [{{address = "server.invalid", user = "deploy", url = "{url}"}}]
{settings}
"""


class Project:
    """A folder with an ops.toml, and what its commands show."""

    def __init__(self, here: Here, capsys: pytest.CaptureFixture[str]) -> None:
        self.here = here
        self.capsys = capsys
        self.write()

    def write(self, more: str = "", settings: str = "") -> None:
        text = CONFIG.format(
            port=self.here.app.server_port, url=f"http://127.0.0.1:{self.here.edge.server_port}", more=more, settings=settings
        )
        menu.CONFIG.write_text(text)

    def run(self, task: Any, **options: Any) -> str:
        """Return what a command shows."""
        self.capsys.readouterr()
        task(Context(), env="test", **options)
        return self.capsys.readouterr().out

    def deploy(self, version: str, **options: Any) -> str:
        return self.run(tasks.deploy, version=version, **options)

    def refused(self, task: Any, code: int, **options: Any) -> str:
        """Return what a command that does not succeed says."""
        self.capsys.readouterr()
        with pytest.raises(Exit) as caught:
            task(Context(), env="test", **options)
        assert caught.value.code == code, caught.value.message
        return f"{caught.value.message}\n{self.capsys.readouterr().out}"

    @property
    def versions(self) -> dict[str, str]:
        """Return the app's containers by version: how each is."""
        boxes = [one for name, one in self.here.engine.boxes.items() if name != EDGE]
        return {one.body["Labels"]["dev.tidegate.version"]: one.status for one in boxes}


@contextmanager
def a_project(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Project]:
    """Have one for as long as the block runs."""
    monkeypatch.setattr(menu, "CONFIG", folder / "ops.toml")
    monkeypatch.setattr(interrupts, "interrupt_once", lambda: None)  # its handlers are of the whole process
    (folder / "known_hosts").touch()
    with a_server.server(folder, monkeypatch) as here:
        yield Project(here, capsys)
