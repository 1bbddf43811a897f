"""Servers that are folders of this machine, with the real program in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from backup import client, settings
from backup.agent.model import Settings
from backup.client import Client
from backup.settings import server_settings
from ops import menu
from ops.config import App, Backup, BackupSource, Environment, HostAddress
from ops.link import Link
from tests import an_engine
from tests.local_ssh import MEASURED, install_ssh, install_sudo, measured_python

if TYPE_CHECKING:
    import pytest

ONE, TWO = HostAddress(address="one.invalid"), HostAddress(address="two.invalid")


@dataclass
class Servers:
    """An environment whose servers are this machine: they share one folder of backups."""

    folder: Path
    env: Environment

    @property
    def app(self) -> Path:
        return self.folder / "srv" / "blog"

    @property
    def program(self) -> Path:
        return self.folder / "lib" / "backup.pyz"

    @contextmanager
    def client(self, *, told: bool = True) -> Iterator[Client]:
        link = Link(self.env, ONE)
        try:
            yield Client(link, self.env, server_settings(self.env, ONE, {}) if told else None)
        finally:
            link.close()


def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Servers:
    """Make them, with one SQLite file to save."""
    install_ssh(tmp_path, monkeypatch)
    install_sudo(tmp_path)
    if MEASURED:
        monkeypatch.setattr(client, "PYTHON", measured_python(tmp_path))  # the system's python3 has no coverage
    monkeypatch.setattr(client, "PROGRAM", str(tmp_path / "lib" / "backup.pyz"))
    for module in (client, settings):
        monkeypatch.setattr(module, "HOME", str(tmp_path / "srv"))
    (tmp_path / "srv").mkdir(mode=0o711)
    with closing(sqlite3.connect(tmp_path / "blog.db")) as database:
        database.executescript("CREATE TABLE posts (text); INSERT INTO posts VALUES ('one'), ('two');")
    source = BackupSource(kind="sqlite", path=str(tmp_path / "blog.db"))
    app = App(name="blog", port=3000, backup=Backup(sources={"posts": source}, reserve="1k"))
    env = Environment(
        name="test", app=app, hosts=(ONE,), domains=("a.b",), known_hosts=tmp_path / "known_hosts", project_root=tmp_path
    )
    return Servers(tmp_path, env)


def configure(servers: Servers, monkeypatch: pytest.MonkeyPatch, app: str = "", source: str = "") -> None:
    """Have an ops.toml that says the same, for what people type."""
    (servers.folder / "Dockerfile").touch()
    posts = source or f'kind = "sqlite", path = "{servers.folder}/blog.db"'
    (servers.folder / "ops.toml").write_text(
        f'[app]\nname = "blog"\nport = 3000\n{app}\n[app.backup]\nreserve = "1k"\nsources.posts = {{ {posts} }}\n'
        f'[environments.test]\ndomain = "a.b"\nhosts = ["{ONE.address}"]\n'
    )
    monkeypatch.setattr(menu, "CONFIG", servers.folder / "ops.toml")


def serve_engine(engine: an_engine.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the servers' program ask this engine."""
    monkeypatch.setattr(settings, "Settings", partial(Settings, engine=str(engine.socket_path)))
