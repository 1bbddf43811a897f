"""Restoring: live data is what it was until all is proven, and again whatever fails or dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from backup.agent.errors import BackupError, Busy, NeedsPerson, Refused, Stopped
from backup.agent.model import CHECKSUMS, Proof
from ops.agent import files
from tests.backup.restoring import CONTAINERS, DIED, ID, World

RESTORED = {"posts": "posts 1\nposts 2\nposts 3\n", "users": "users 1\nusers 2\nusers 3\n"}

STEPS = [  # all effects of a restore in their order, those on restore.json and the journal included
    "before append", "append", "before write", "write",
    "before beside posts", "beside posts", "before beside users", "beside users", "before write", "write",
    "nginx draining", "nginx maintenance", "before write", "write", "stopped blog_web_1", "stopped blog_worker_1",
    "half swapped posts", "swapped posts", "half swapped users", "swapped users", "before write", "write",
    "started blog_web_1", "started blog_worker_1", "before write", "write", "nginx release", "before remove", "remove",
    "before append", "append",
]  # fmt: skip
DECIDED = 25  # up to here the old data comes back


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path).build()


def history(world: World) -> list[dict[str, object]]:
    return [one for one in world.store.history() if one["event"] == "restore"]


def journal(world: World) -> list[dict[str, object]]:
    return [json.loads(line) for line in (world.settings.folder / "journal.jsonl").read_text().splitlines()]


def test_a_restore_brings_the_data_back_and_keeps_what_it_replaced(world: World) -> None:
    before = world.live()
    done = world.restore()
    assert world.live() == {**before, **RESTORED}
    assert {name: one["rows"] for name, one in done["sources"].items()} == {"posts": 3, "users": 3}
    for name, one in done["sources"].items():
        assert Path(one["kept"]).read_text() == before[name]
        subprocess.run(one["remove"], shell=True, check=True)
    assert world.leftovers() == []
    assert 0 < done["paused_seconds"] < done["seconds"]


def test_what_is_replaced_is_saved_first(world: World) -> None:
    done = world.restore()
    saved = world.store.get(done["safety"])
    assert saved.good
    assert saved.manifest.types == ("safety",)
    assert {item.source: item.counts["lines"] for item in saved.manifest.items} == {"posts": 2, "users": 2}


def test_a_restore_can_be_restored_from_its_safety_backup(world: World) -> None:
    before = world.live()
    world.restore(id=world.restore()["safety"])
    assert world.live() == before


def test_only_the_sources_asked_for_are_touched(world: World) -> None:
    before = world.live()
    done = world.restore(sources=("users",))
    assert world.live() == {**before, "users": RESTORED["users"]}
    assert [item.source for item in world.store.get(done["safety"]).manifest.items] == ["users"]


def test_a_source_that_is_gone_is_restored_without_a_safety_backup_of_it(world: World) -> None:
    for source in world.settings.sources:
        Path(source.path).unlink()
    done = world.restore()
    assert world.live().items() >= RESTORED.items()
    assert done["safety"] is None
    assert done["sources"]["posts"] == {"rows": 3, "kept": ""}


def test_where_nothing_runs_nothing_is_paused(world: World) -> None:
    for path in (world.settings.folder / "containers").iterdir():
        path.write_text("stopped")
    assert world.restore()["paused_seconds"] == 0
    assert world.live().items() >= RESTORED.items()
    assert world.live()["nginx"] == "release-1"


def test_journal_and_history_tell_of_it(world: World) -> None:
    done = world.restore()
    begin, end = journal(world)
    assert (begin["event"], begin["kind"], begin["release"], begin["by"]) == ("begin", "restore", f"backup {ID}", "somebody")
    assert (end["event"], end["operation"], end["result"]) == ("end", begin["operation"], "done")
    (noted,) = history(world)
    assert (noted["ok"], noted["id"], noted["safety"]) == (True, ID, done["safety"])


def test_the_steps_come_in_an_order_in_which_users_never_meet_a_stopped_app(world: World) -> None:
    world.restore()
    files = ("append", "write", "remove")
    assert world.step.names == [name for name in STEPS if name.removeprefix("before ") not in files]


def test_dying_at_any_step_leaves_the_old_data_or_the_new_and_undo_brings_the_app_back(tmp_path: Path, world: World) -> None:
    before, outcomes = world.live(), []
    for at in range(1, len(STEPS) + 1):
        copy = world.copy(tmp_path / "copies" / str(at))
        assert copy.die_in(partial(copy.restore, skip_safety=True), at) == DIED, at
        outcomes.append(copy.undo()["result"])
        old = at <= DECIDED
        assert copy.live() == (before if old else {**before, **RESTORED}), at
        assert all(".old-" in name for name in copy.leftovers()) if not old else copy.leftovers() == [], at
        assert copy.undo() == {"id": None, "result": "nothing to undo"}
    # Once users may have written to the restored data it stays.
    assert outcomes[:4] == [*["nothing to undo"] * 3, "undone"]
    assert set(outcomes[3:DECIDED]) == {"undone"}
    assert outcomes[DECIDED:] == ["done"] * 3 + ["nothing to undo"] * 3


@pytest.mark.parametrize(
    "moment",
    ["beside users", "nginx maintenance", "stopped blog_worker_1", "half swapped users", "started blog_web_1", "nginx release"],
)
def test_an_undo_that_dies_at_any_step_is_finished_by_the_next(tmp_path: Path, world: World, moment: str) -> None:
    before, at, code = world.live(), 0, DIED
    assert world.die_in(partial(world.restore, skip_safety=True), STEPS.index(moment) + 1) == DIED
    while code == DIED:
        at += 1
        copy = world.copy(tmp_path / "copies" / str(at))
        code = copy.die_in(copy.undo, at)
        copy.undo()
        assert copy.live() == ({**before, **RESTORED} if moment == "nginx release" else before), at
    assert code == 0
    assert at > 4


@pytest.mark.parametrize("at", range(1, 16))
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), BackupError("it broke"), Stopped()], ids=["disk full", "error", "stopped"]
)
def test_whatever_fails_at_whichever_step_the_live_data_is_as_it_was(world: World, at: int, error: BaseException) -> None:
    def fail() -> None:
        raise error

    before = world.live()
    world.step.at, world.step.then = at, fail
    if at == 15:  # nginx answers with the release again: decided, and finished
        world.restore()
        assert world.live() == {**before, **RESTORED}
        return
    with pytest.raises((BackupError, Stopped)) as raised:
        world.restore()
    assert not isinstance(raised.value, NeedsPerson)
    assert isinstance(error, Stopped) or "the live data is as it was" in str(raised.value)
    assert world.live() == before
    assert world.leftovers() == []
    assert (history(world)[-1]["ok"], history(world)[-1]["result"]) == (False, "undone")
    assert journal(world)[-1]["result"] == "undone"


def test_other_counts_than_the_manifests_are_found_while_the_app_still_serves(world: World) -> None:
    before = world.live()
    world.lying.add("users")
    with pytest.raises(BackupError, match="differs from the manifest: lines: -1 instead of 3"):
        world.restore()
    assert world.live() == before
    assert world.leftovers() == []
    assert not [name for name in world.step.names if name.startswith(("nginx", "stopped"))]


def test_an_app_that_does_not_run_on_the_restored_data_gets_its_own_back(world: World) -> None:
    before = world.live()
    world.writers.sick = True
    with pytest.raises(BackupError, match="does not get healthy"):
        world.restore()
    assert world.live() == before


def test_when_even_the_way_back_fails_a_person_is_told_how_things_stand(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = world.live()

    def fail() -> None:
        raise BackupError("the disk is on fire")

    world.step.at, world.step.then = 12, fail
    with monkeypatch.context() as patched:
        patched.setattr("tests.backup.restoring.Copy.swap_back", lambda _: fail())
        with pytest.raises(NeedsPerson) as raised:
            world.restore()
    assert "posts, users may be swapped" in raised.value.why
    assert all(name in raised.value.why for name in CONTAINERS)
    assert history(world)[-1]["result"] == "needs a person"
    assert world.live()["nginx"].startswith("maintenance")
    with pytest.raises(Refused, match="unfinished"):
        world.restore()
    assert world.undo()["result"] == "undone"
    assert world.live() == before


def test_without_a_safety_backup_nothing_is_begun(world: World) -> None:
    before = world.live()
    posts = Path(world.settings.sources[0].path)
    posts.unlink()
    posts.mkdir()
    with pytest.raises(BackupError, match="nothing was changed"):
        world.restore()
    posts.rmdir()
    posts.write_text(before["posts"])
    assert not [name for name in world.step.names if "beside" in name]
    assert world.restore(skip_safety=True)["safety"] is None
    assert world.live() == {**before, **RESTORED}
    assert journal(world)[0]["skip_safety"] is True


def test_a_damaged_backup_is_refused_before_anything_is_done(world: World) -> None:
    backup = world.store.get(ID)
    (backup.folder / "posts.txt").write_text("posts 1\nposts 2\nposts X\n")
    with pytest.raises(BackupError, match=r"posts.txt is damaged"):
        world.restore()
    assert [one.id for one in world.store.backups()[0]] == [ID]


def test_a_backup_that_was_found_bad_is_restored_only_when_forced(world: World) -> None:
    world.store.prove(ID, Proof("2026-11-23T04:00:00Z", CHECKSUMS, False, 1.0, "page 7 is bad"))
    with pytest.raises(Refused, match="page 7 is bad"):
        world.restore()
    world.restore(force=True)
    assert world.live().items() >= RESTORED.items()


def test_a_source_that_the_backup_lacks_is_refused_by_name(world: World) -> None:
    with pytest.raises(Refused, match="has no uploads"):
        world.restore(sources=("posts", "uploads"))


def test_a_deploy_at_work_keeps_a_restore_out(world: World) -> None:
    path = world.settings.folder / "lock"
    code = "import sys; from ops.agent import files; files.lock(sys.argv[1], {'what': 'deploy of test'}); print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as deploy:
        assert deploy.stdout
        deploy.stdout.readline()
        with pytest.raises(Busy, match="deploy of test"):
            world.restore()
        deploy.communicate(b"\n")
    world.restore()


def test_a_restore_keeps_deploys_out(world: World) -> None:
    def deploy() -> None:
        with pytest.raises(files.Busy, match=f"restore of {ID}"):
            files.lock(str(world.settings.folder / "lock"), {})

    world.step.at, world.step.then = 9, deploy
    world.restore()


def test_a_lost_operator_during_the_way_back_does_not_cut_it_short(world: World) -> None:
    before = world.live()

    def fail() -> None:
        world.step.at, world.step.then = world.step.count + 2, lambda: os.kill(os.getpid(), signal.SIGTERM)
        raise Stopped

    world.step.at, world.step.then = 12, fail
    with pytest.raises(Stopped):
        world.restore()
    assert world.live() == before


def test_what_would_fill_the_disk_is_refused(world: World) -> None:
    before = world.live()
    world.settings = replace(world.settings, reserve=10**15)
    with pytest.raises(Refused, match="MB are free where the restored data goes"):
        world.restore()
    assert world.live() == before
    assert world.step.names == []


def test_a_schema_that_moved_on_is_told(world: World) -> None:
    manifest = world.store.get(ID).folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema": "1"', '"schema": "0"'))
    world.restore(sources=("posts",))
    assert "posts: its schema is now another than that in" in world.said.getvalue()
