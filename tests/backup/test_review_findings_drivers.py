"""What a review of the drivers found: room for throwaway restores, answers of odd names, and the size of what is restored."""

from __future__ import annotations

from pathlib import Path

import pytest

from backup.agent import commands, mariadb_tools, postgres_restore, room
from backup.agent.errors import Untried
from backup.agent.model import Item
from tests.backup.agent_run import App


@pytest.fixture
def app(tmp_path: Path) -> App:
    found = App(tmp_path)
    found.fill()
    return found


@pytest.mark.parametrize("read", [postgres_restore.read_counts, mariadb_tools.read_counts])
def test_a_name_may_have_what_python_takes_for_ends_of_lines(read: object) -> None:
    assert callable(read)
    assert read('["a\u2028b\x85c", 3]\n["d", 4]\n') == {"a\u2028b\x85c": 3, "d": 4}
    assert read("") == {}


def test_a_throwaway_restore_that_would_fill_the_disk_is_not_tried_and_says_nothing_against_the_backup(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = app.call(commands.run)["id"]
    monkeypatch.setattr(room, "SPARE", 2.0**60)
    with pytest.raises(Untried, match="MB are needed"):
        app.call(commands.prove, id=id, level="restore")
    (shown,) = app.call(commands.listing)["backups"]
    assert shown["good"]


def test_what_is_restored_takes_the_room_that_it_took_when_it_was_saved(app: App) -> None:
    posts = app.call(commands.run)["items"][0]
    assert int(posts["versions"]["bytes"]) % int(posts["versions"]["page_size"]) == 0
    assert Item("posts", "sqlite", (), {}, versions={"bytes": "8192"}).restored == 8192
    assert Item("posts", "sqlite", (), {}).restored == 0  # as in a manifest of before that was written down
