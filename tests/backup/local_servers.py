"""Servers that are folders of this machine, with the real program in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backup import client, settings
from backup.client import Client
from backup.settings import server_settings
from ops.config import App, Backup, BackupSource, Environment, HostAddress
from ops.link import Link
from tests.local_ssh import install_ssh, install_sudo

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
