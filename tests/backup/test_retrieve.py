"""A server is lost: a new one gets the data back from the second store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from backup.agent import commands
from backup.agent.errors import BackupError, Refused
from backup.agent.model import Offsite
from tests.backup.agent_run import App, manifests

pytestmark = pytest.mark.skipif(not shutil.which("restic"), reason="restic is not installed: apt-get install restic")


def test_a_backup_of_a_lost_server_is_listed_brought_back_and_good_on_a_new_one(tmp_path: Path) -> None:
    second_store = Offsite(str(tmp_path / "repository"), "a password")
    lost = App(tmp_path / "lost", offsite=second_store)
    lost.fill()
    id = lost.call(commands.scheduled_run)["offsite"]
    new = App(tmp_path / "new", offsite=second_store)
    (known,) = new.call(commands.elsewhere)["backups"]
    assert (known["id"], known["here"]) == (id, False)
    new.call(commands.retrieve, id=id)
    assert new.call(commands.elsewhere)["backups"][0]["here"]
    assert new.call(commands.prove, id=id, level="restore")["ok"]
    assert new.call(commands.listing)["backups"][0]["good"]
    with pytest.raises(BackupError, match="already"):
        new.call(commands.retrieve, id=id)
    with pytest.raises(BackupError, match="no backup"):
        new.call(commands.retrieve, id="20200101T000000Z-000000")
    assert list(manifests(new.folder)) == [id]


def test_without_a_second_store_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no second store"):
        App(tmp_path).call(commands.elsewhere)
