"""The second store's house-keeping, with a repository in memory; tests/backup/test_offsite.py has the same with a real restic."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backup.agent import offsite
from backup.agent.errors import BackupError, NeedsPerson
from backup.agent.report import Report
from backup.agent.restic import Absent, Snapshot
from tests.backup.test_offsite import NOW, local_of, make, settings_of

SETTINGS_TAGS = {"app": "blog", "environment": "production", "server": "web-1"}


class Repository:
    """Snapshots by id; `refuses` are the commands that it does not carry out, `there` whether it was ever made."""

    def __init__(self) -> None:
        self.kept: dict[str, Snapshot] = {}
        self.ran: list[str] = []
        self.refuses: set[str] = set()
        self.there = True

    def run(self, *words: str) -> str:
        self.ran.append(words[0])
        if words[0] in self.refuses:
            raise BackupError(f"restic {words[0]} failed", "append-only")
        if words[0] == "init":
            self.there = True
        elif words[0] == "forget":
            for id in words[1:]:
                del self.kept[id]
        return ""

    def snapshots(self, tags: str) -> list[Snapshot]:
        if not self.there:
            raise Absent("there is no repository", "no such folder")
        if "snapshots" in self.refuses:
            raise BackupError("the line is cut")
        wanted = dict(one.split(":", 1) for one in tags.split(","))
        return [one for one in self.kept.values() if wanted.items() <= one.tags.items()]

    def save(self, path: str, tags: str, descriptor: int, decode: Any = ()) -> tuple[str, int]:
        if "save" in self.refuses and path == offsite.RECORD:
            raise BackupError("the second store is full")
        id = f"s{len(self.kept)}-{len(self.ran)}"
        self.ran.append("save")
        self.kept[id] = Snapshot(id, path, dict(one.split(":", 1) for one in tags.split(",")))
        return id, 0


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Repository:
    found = Repository()

    @contextmanager
    def opened(settings: Any) -> Iterator[Repository]:
        yield found

    monkeypatch.setattr(offsite, "opened", opened)
    return found


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


def store(folder: Path, said: io.StringIO, **more: Any) -> None:
    settings = settings_of(folder, minimum=1)
    backups = local_of(settings).backups()[0]
    offsite.store(settings, local_of(settings), backups[-1] if backups else make(settings), Report(said), **more)


def test_it_is_made_when_it_is_used_for_the_first_time_and_what_is_there_is_not_copied_again(
    repository: Repository, tmp_path: Path, said: io.StringIO
) -> None:
    repository.there = False
    store(tmp_path, said)
    assert repository.ran == ["init", "save", "save", "save"]
    store(tmp_path, said)
    assert "is off-site already" in said.getvalue()
    assert repository.ran.count("save") == 3


def test_one_that_was_there_and_is_gone_is_never_begun_anew(repository: Repository, tmp_path: Path, said: io.StringIO) -> None:
    store(tmp_path, said)
    repository.there = False
    with pytest.raises(NeedsPerson, match="the off-site repository is gone") as caught:
        store(tmp_path, said)
    assert "is its disk mounted" in caught.value.why
    assert "init" not in repository.ran


def test_once_a_week_it_is_cleaned_up_and_checked_and_what_is_kept_here_stays(
    repository: Repository, tmp_path: Path, said: io.StringIO
) -> None:
    store(tmp_path, said)
    for count in range(2):
        tags = {**SETTINGS_TAGS, "id": f"2020010{count + 1}T000000Z-abcdef", "attempt": f"a{count}", "types": "daily"}
        repository.kept[f"old{count}"] = Snapshot(f"old{count}", offsite.RECORD, tags)
    store(tmp_path, said, now=NOW + timedelta(days=1))
    assert "check" not in repository.ran
    store(tmp_path, said, now=NOW + timedelta(days=8))
    assert repository.ran[-3:] == ["forget", "prune", "check"]
    assert {one.tags["id"] for one in repository.kept.values()} == {
        one.id for one in local_of(settings_of(tmp_path)).backups()[0]
    }
    before = len(repository.ran)
    store(tmp_path, said, now=NOW + timedelta(days=9))
    assert "check" not in repository.ran[before:]


def test_what_attempts_that_were_cut_off_left_is_swept(repository: Repository, tmp_path: Path, said: io.StringIO) -> None:
    repository.kept["half"] = Snapshot(
        "half", "/posts.sqlite", {**SETTINGS_TAGS, "id": "20260101T000000Z-abcdef", "attempt": "cut off"}
    )
    store(tmp_path, said)
    assert "half" not in repository.kept


def test_an_append_only_repository_keeps_what_nobody_may_remove(
    repository: Repository, tmp_path: Path, said: io.StringIO
) -> None:
    repository.kept["half"] = Snapshot(
        "half", "/posts.sqlite", {**SETTINGS_TAGS, "id": "20260101T000000Z-abcdef", "attempt": "cut off"}
    )
    repository.refuses.add("forget")
    store(tmp_path, said)
    assert "1 snapshots stay off-site" in said.getvalue()
    assert len(repository.kept) == 4


@pytest.mark.parametrize(("refuses", "left"), [({"save"}, 0), ({"save", "forget"}, 2)])
def test_a_copy_that_fails_takes_back_what_it_stored_where_it_may(
    repository: Repository, tmp_path: Path, said: io.StringIO, refuses: set[str], left: int
) -> None:
    repository.refuses |= refuses
    with pytest.raises(BackupError, match="the second store is full"):
        store(tmp_path, said)
    assert len(repository.kept) == left
    assert ("2 snapshots stay off-site" in said.getvalue()) == bool(left)


def test_where_even_that_cannot_be_asked_the_next_run_does_it(repository: Repository, tmp_path: Path, said: io.StringIO) -> None:
    repository.refuses.add("snapshots")
    offsite._withdraw(repository, "app:blog", Report(said))  # type: ignore[arg-type]  # as far as it is asked
    assert "stays off-site for now, without a record" in said.getvalue()


def test_without_a_second_store_nothing_waits_for_it(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    backup = make(settings)
    assert offsite.pending(settings, local_of(settings)) == backup
    assert offsite.pending(settings_of(tmp_path, offsite=None), local_of(settings)) is None


def test_of_several_servers_with_one_backups_id_it_is_said_which_is_meant() -> None:
    mine, other = (offsite.Stored("20260101T000000Z-abcdef", name, frozenset({"daily"}), name) for name in ("web-1", "web-2"))
    assert offsite._saved_as(mine.id, [mine, other], "web-1") == mine
    assert offsite._saved_as(mine.id, [other], "web-1") == other
    with pytest.raises(BackupError, match="there is no backup"):
        offsite._saved_as("20250101T000000Z-abcdef", [mine, other], "web-1")
    with pytest.raises(BackupError, match="several servers saved a backup"):
        offsite._saved_as(mine.id, [mine, other], "web-3")
