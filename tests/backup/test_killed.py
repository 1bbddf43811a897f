"""A run that is killed at any touch of the system: no partial under a final name, nothing good gone, and the next run is fine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from backup.agent import commands
from tests.backup.agent_run import DIED, App, die_at, manifests


def assert_whole(app: App, level: str = "full") -> set[str]:
    """Fail unless everything that has a backup's name can be verified; returns their ids."""
    for id in manifests(app.folder):
        assert app.call(commands.prove, id=id, level=level)["ok"]
    return set(manifests(app.folder))


def leave_no_trace(app: App) -> None:
    """Fail when anything is left beside backups, lock and history."""
    odd = [one.name for one in app.folder.iterdir() if one.name.startswith(".") and one.name != ".lock"]
    assert odd == []
    assert [one.name for one in app.database.parent.iterdir() if "tidegate" in one.name] == []


@pytest.fixture
def app(tmp_path: Path) -> App:
    found = App(tmp_path)
    found.fill()
    return found


def test_a_run_killed_anywhere_leaves_nothing_under_a_final_name_and_the_next_run_sweeps(app: App, tmp_path: Path) -> None:
    first = app.call(commands.run)["id"]
    for number in range(1, 2000):
        code, where = die_at(number, lambda: app.call(commands.run))
        assert code in (0, DIED), where
        there = assert_whole(app)
        assert first in there, where
        leave_no_trace(app)
        for extra in there - {first}:
            shutil.rmtree(app.folder / extra)
        if code == 0:
            break
    assert code == 0
    assert number > 50, "the run touched the system less often than it must"


def test_an_expiry_killed_anywhere_deletes_only_what_was_due(app: App) -> None:
    ids = [app.call(commands.run, id=f"2026010{n}T000000Z-00000{n}")["id"] for n in range(1, 7)]
    for id in ids:
        manifest = app.folder / id / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"started": "2026-11', '"started": "2025-11'))
    due = set(app.call(commands.explain)["due"])
    assert due, "nothing was due, so the test would prove nothing"
    for number in range(1, 500):
        code, where = die_at(number, lambda: app.call(commands.prune))
        assert code in (0, DIED), where
        assert set(ids) - due <= assert_whole(app, "checksums"), where
        if code == 0:
            break
    assert code == 0
    leave_no_trace(app)
