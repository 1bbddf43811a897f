"""What deploys and rollbacks do about the app's data, planned and carried out on servers in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.data import parse
from deploy.inspect import rows
from deploy.plan import Plan, plan_deploy, plan_rollback
from ops.config import Environment
from ops.errors import Failed
from tests import fakes
from tests.fakes import World, deploy, environment, intent, rollback, shape, states

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
BACKUP = {"sources": {"posts": {"kind": "sqlite", "volume": "blog-data", "path": "blog.db"}}}


def seen(schema: str = "one", **source: Any) -> dict[str, Any]:
    """Return what the backup program says of a server with one SQLite file."""
    known = {"present": True, "schema": schema, "journal": "wal", **source}
    return {"sources": {"posts": known}, "backups": {}, "restoring": False, "time": "2026-06-01T12:00:00Z"}


def backed_up() -> Environment:
    return environment(volumes={"blog-data": "/data"}, backup=BACKUP)


def world(**source: Any) -> World:
    found = World()
    found.only.data = seen(**source)
    return found


def planned(where: World, *, skip: bool = False, version: str = "v2") -> Plan:
    return plan_deploy(backed_up(), replace(intent(version, NOW), skip_backup=skip), states(where))


def test_the_data_is_saved_after_the_image_is_there_and_before_anything_migrates() -> None:
    here = world()
    deploy(here, backed_up(), "v1")
    env = environment(volumes={"blog-data": "/data"}, backup=BACKUP, migrate={"command": ["migrate"]})
    phases = [phase.name for phase in plan_deploy(env, intent("v2", NOW), states(here)).phases]
    assert phases[:4] == ["ship", "backup", "migrate", "start"]


def test_the_backup_belongs_to_the_release_and_its_manifest_names_it() -> None:
    here = world()
    deploy(here, backed_up(), "v1")
    deploy(here, backed_up(), "v2")
    newest = states(here)[0].release("v2")
    assert newest is not None
    assert here.only.backups[newest.backup] == "v2"


def test_a_deploy_stops_before_it_migrates_when_its_backup_fails() -> None:
    here = world()
    deploy(here, backed_up(), "v1")
    with pytest.raises(Failed):
        deploy(here, backed_up(), "v2", fault=fakes.fails_in("back_up"))
    assert "start_new" not in {method for _, method in here.calls()}
    assert here.only.serves() == "v1"


@pytest.mark.parametrize("problem", [{"error": "database container db is not running"}, {"present": False}])
def test_a_deploy_is_refused_when_data_that_should_be_there_cannot_be_saved(problem: dict[str, Any]) -> None:
    here = world()
    deploy(here, backed_up(), "v1")
    here.only.data = seen(**problem)
    (refusal,) = planned(here).refusals
    assert "posts cannot be backed up" in refusal
    assert "--skip-backup" in refusal
    assert not planned(here, skip=True).refusals


def test_before_the_first_deploy_there_may_be_nothing_to_save_but_an_unreachable_database_counts() -> None:
    nothing = planned(world(present=False))
    assert (nothing.refusals, nothing.backup) == ((), "")
    assert planned(world(present=False, error="wrong password")).refusals


def test_a_backup_is_skipped_only_when_asked_and_the_plan_says_so() -> None:
    here = world()
    deploy(here, backed_up(), "v1")
    plan = planned(here, skip=True)
    assert plan.skips_backup
    assert not any("Backup" in line for line in shape(plan))
    assert "one: no backup is taken before this" in plan.notes
    assert not planned(here).skips_backup


def test_a_server_without_sources_of_its_own_takes_no_backup() -> None:
    here = world()
    assert here.only.data is not None
    here.only.data["sources"] = {}
    assert not any("Backup" in line for line in shape(planned(here)))


def test_a_database_that_two_containers_would_block_is_noted() -> None:
    assert any("posts is not in WAL mode" in note for note in planned(world(journal="delete")).notes)
    assert not any("WAL" in note for note in planned(world()).notes)


def test_nothing_is_deployed_nor_rolled_back_onto_a_half_restored_server() -> None:
    here = world()
    deploy(here, backed_up(), "v1")
    deploy(here, backed_up(), "v2")
    assert here.only.data is not None
    here.only.data["restoring"] = True
    for plan in (planned(here, version="v3"), plan_rollback(backed_up(), states(here), None)):
        assert "inv backup.restore-undo" in plan.refusals[0]


def test_a_restore_that_died_is_seen_in_nginx_too_where_nobody_could_tell_of_the_data() -> None:
    here = world()
    deploy(here, backed_up(), "v1")
    (state,) = states(here)
    died = replace(state, data=None, edge=replace(state.edge, generation="maintenance-1", answering="maintenance-1"))
    assert "inv backup.restore-undo" in plan_deploy(backed_up(), intent("v2", NOW), (died,)).refusals[0]
    assert [row.note for row in rows([died])] == ["a restore is under way, or died: inv backup.restore-undo"]


def rolled_back(here: World) -> str:
    """Return what a rollback says of the data."""
    return next(note for note in plan_rollback(backed_up(), states(here), None).notes if "data" in note or "schema" in note)


def test_a_rollback_says_that_the_schema_moved_which_backup_is_the_releases_and_what_restoring_it_would_lose() -> None:
    here = world(schema="old")
    deploy(here, backed_up(), "v1")
    deploy(here, backed_up(), "v2")
    (id,) = [id for id, release in here.only.backups.items() if release == "v2"]
    assert here.only.data is not None
    here.only.data["sources"]["posts"]["schema"] = "new"
    here.only.data["time"] = (NOW + timedelta(hours=2, minutes=10)).strftime("%Y-%m-%dT%H:%M:%SZ")
    note = rolled_back(here)
    assert "the schema of posts has moved since v1 served" in note
    assert f"backup {id} has the data as v1 left it" in note
    assert "lose the last 2 h 10 min" in note


def test_a_rollback_says_that_the_schema_is_the_same() -> None:
    here = world()
    deploy(here, backed_up(), "v1")
    deploy(here, backed_up(), "v2")
    assert "the schema has not moved since v1 served" in rolled_back(here)


def test_a_rollback_without_a_backup_says_that_nobody_knows() -> None:
    here = world()
    deploy(here, backed_up(), "v1")
    deploy(here, backed_up(), "v2", skip_backup=True)
    assert "no backup of the data as v1 left it" in rolled_back(here)


def test_two_releases_back_the_backup_is_the_one_taken_right_after_that_release() -> None:
    here = world()
    for version in ("v1", "v2", "v3"):
        deploy(here, backed_up(), version)
    (id,) = [id for id, release in here.only.backups.items() if release == "v2"]
    notes = plan_rollback(backed_up(), states(here), "v1").notes
    assert any(f"backup {id} has the data as v1 left it" in note for note in notes)


def test_of_a_release_that_was_returned_to_the_backup_is_the_one_of_its_last_time() -> None:
    here = world()
    deploy(here, backed_up(), "v1")
    deploy(here, backed_up(), "v2")
    rollback(here, backed_up())
    deploy(here, backed_up(), "v3")
    (id,) = [id for id, release in here.only.backups.items() if release == "v3"]
    notes = plan_rollback(backed_up(), states(here), "v1").notes
    assert any(f"backup {id} has the data as v1 left it" in note for note in notes)


def test_only_good_backups_are_offered() -> None:
    known = seen()
    known["backups"] = {"a": {"taken": "2026-06-01T12:00:00Z", "good": False, "schemas": {}}}
    assert not parse(known).backups


def test_a_later_backup_does_not_pass_for_that_of_a_release_whose_own_was_skipped() -> None:
    here = world()
    deploy(here, backed_up(), "v1")
    deploy(here, backed_up(), "v2", skip_backup=True)
    deploy(here, backed_up(), "v3")
    notes = plan_rollback(backed_up(), states(here), "v1").notes
    assert any("no backup of the data as v1 left it" in note for note in notes)
