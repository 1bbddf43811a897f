"""Deploys, rollbacks and prunes from end to end, through the tasks that people type, on a server that is this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import tasks
from deploy import docker_server
from deploy.docker_server import DockerServer
from ops.link import Link
from ops.names import EDGE, LABEL_RELEASE
from tests.deploy.a_project import Project, a_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Project]:
    with a_project(tmp_path, monkeypatch, capsys) as found:
        yield found


def test_a_deploy_serves_and_a_second_one_takes_its_place_and_a_rollback_brings_it_back(project: Project) -> None:
    said = project.deploy("v1")
    assert "deploy v1 → test: deploy@server.invalid (now: nothing)" in said
    assert "v1 serves at http://127.0.0.1" in said
    assert project.versions == {"v1": "running"}
    assert [one.policy for name, one in project.here.engine.boxes.items() if name != EDGE] == ["always"]
    project.deploy("v2")
    assert project.versions == {"v1": "exited", "v2": "running"}
    assert "serves" in project.run(tasks.rollback)
    assert project.versions == {"v1": "running", "v2": "exited"}
    ends = [one for one in project.here.records() if one["event"] == "end"]
    assert [(one["kind"], one["result"]) for one in ends] == [("deploy", "done"), ("deploy", "done"), ("rollback", "done")]


def test_what_serves_already_is_nothing_to_do_and_a_plan_changes_nothing(project: Project) -> None:
    assert "nothing was changed (--dry-run)" in project.deploy("v1", dry_run=True)
    assert project.versions == {}
    project.deploy("v1")
    before = project.here.records()
    assert "nothing to do" in project.deploy("v1")
    planned = json.loads(project.deploy("v2", dry_run=True, json=True))
    assert f"switch requests to {planned['release']}" in {one["step"] for one in planned["steps"]}
    assert (planned["kind"], planned["version"], planned["unchanged"], planned["refusals"]) == ("deploy", "v2", False, [])
    assert project.here.records() == before
    assert project.versions == {"v1": "running"}


def test_what_a_person_does_not_agree_to_is_not_done(project: Project) -> None:
    project.write(settings="approve = true")
    said = project.refused(tasks.deploy, 3, version="v1")
    assert "declined, nothing was changed" in said
    assert "no terminal to ask on: give --yes to agree" in said
    assert project.versions == {}
    assert "serves at" in project.deploy("v1", yes=True, verbose=True)


def test_a_summary_for_scripts_tells_phases_round_trips_and_what_users_saw(project: Project) -> None:
    project.deploy("v1")
    done = json.loads(project.deploy("v2", json=True))
    name = "deploy@server.invalid"
    assert (done["kind"], done["result"], done["version"], done["servers"]) == ("deploy", "done", "v2", [name])
    assert {"build", "ship", "start", "healthy", "switch", "verify"} <= done["phases"].keys()
    assert done["round_trips"][name] > 5
    assert done["probes"][name]["requests"] > 0


def test_a_crash_is_undone_and_told_with_its_last_words(project: Project) -> None:
    project.deploy("v1")
    project.write(more='environment = {BEHAVIOUR = "crash"}')
    said = project.refused(tasks.deploy, 1, version="v2")
    for word in (
        "did not become healthy (died)",
        "(exit code 3)",
        "its last words:\n    duplicate column",
        "mend it and deploy again",
    ):
        assert word in said
    assert project.versions == {"v1": "running"}
    last = project.here.records()[-1]
    assert (last["event"], last["result"]) == ("end", "undone")
    figures = (project.here.home / "metrics/blog_deploy.prom").read_text()
    assert 'tidegate_deploy_success{app="blog",environment="test"} 0' in figures


def test_one_that_never_answers_well_is_undone_once_its_time_is_over(project: Project) -> None:
    project.here.app.answers["/health"] = (503, "no database")
    said = project.refused(tasks.deploy, 1, version="v1")
    assert "did not become healthy (timeout)" in said
    assert "/health answered 503: no database" in said
    assert project.versions == {}


def test_a_migration_that_fails_is_told_in_its_own_words_and_nothing_is_left(project: Project) -> None:
    project.write(more='environment = {BEHAVIOUR = "migrate_fail"}')
    said = project.refused(tasks.deploy, 1, version="v1")
    assert "`migrate` failed with exit code 3" in said
    assert "duplicate column" in said
    assert list(project.here.engine.boxes) == [EDGE]


def test_an_nginx_that_refuses_the_file_is_quoted_before_anything_is_switched(project: Project) -> None:
    project.deploy("v1")
    project.here.engine.execs_said = lambda words: (1, 'unknown directive "gizp"')
    said = project.refused(tasks.deploy, 1, version="v2")
    for word in ("nginx refuses the new file", 'unknown directive "gizp"', "mend app.edge in ops.toml"):
        assert word in said
    assert project.versions == {"v1": "running"}
    assert not list((project.here.home / "edge/staged").iterdir())


def test_an_nginx_that_takes_up_neither_the_switch_nor_the_way_back_calls_for_a_person(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.deploy("v1")
    live = (project.here.home / "edge/apps/blog.conf").read_text()
    monkeypatch.setattr(docker_server, "SWITCH_SECONDS", 0.2)
    project.here.edge.answer = lambda path: (200, "another-generation")  # type: ignore[method-assign]
    said = project.refused(tasks.deploy, 5, version="v2")
    assert "nginx did not take up" in said
    assert "could not be undone on deploy@server.invalid" in said
    assert (project.here.home / "edge/apps/blog.conf").read_text() == live
    assert project.here.records()[-1]["result"] == "needs a person"


def test_an_image_that_cannot_be_pulled_is_told_in_the_engines_words(project: Project) -> None:
    project.here.engine.pulls = [{"error": "manifest unknown"}]
    said = project.refused(tasks.deploy, 1, version="v9")
    assert "the engine could not pull the image" in said
    assert "manifest unknown" in said
    project.here.engine.answers["POST /images/create"] = 500
    said = project.refused(tasks.deploy, 1, version="v9")
    assert "the engine could not pull registry.invalid/blog" in said
    assert "its registry can be reached from there" in said


def test_a_version_has_to_be_said_where_nothing_is_built(project: Project) -> None:
    said = project.refused(tasks.deploy, 3)
    assert "say which version to deploy" in said
    assert "--version TAG" in said


def test_a_rollback_without_anything_kept_is_refused(project: Project) -> None:
    project.deploy("v1")
    assert "rollback refused, nothing was changed" in project.refused(tasks.rollback, 3)
    assert project.versions == {"v1": "running"}


def test_a_prune_removes_what_a_killed_deploy_left_and_tells_monitoring_nothing(project: Project) -> None:
    project.deploy("v1")
    figures = (project.here.home / "metrics/blog_deploy.prom").read_text()
    (manifest,) = (project.here.home / "blog/releases").glob("*.json")
    left = manifest.with_name("v0.staged")
    left.write_text(json.dumps({**json.loads(manifest.read_text()), "id": "v0", "generation": "v0-abcdef"}))
    labels = project.here.engine.boxes["blog_web_v1"].body["Labels"]
    project.here.engine.add("blog_web_v0", Labels={**labels, LABEL_RELEASE: "v0"})
    assert "prune → test: deploy@server.invalid (now: v1)" in project.run(tasks.prune, dry_run=True)
    assert left.exists()
    assert "\npruned after" in project.run(tasks.prune)
    assert not left.exists()
    assert sorted(project.here.engine.boxes) == ["blog_web_v1", EDGE]
    assert (project.here.home / "metrics/blog_deploy.prom").read_text() == figures


def test_another_command_at_work_is_named(project: Project) -> None:
    other = Link(project.here.env, project.here.env.hosts[0])
    try:
        note = {"what": "deploy of test", "who": "bob@desk", "since": "noon"}
        other.call("lock", path=str(project.here.home / "blog/lock"), holder=note)
        said = project.refused(tasks.deploy, 4, version="v1")
    finally:
        other.close()
    assert "another command is at work: deploy of test by bob@desk since noon" in said


def test_a_server_that_was_never_made_ready_names_the_next_command(project: Project) -> None:
    (project.here.home / "blog/lock").mkdir()
    said = project.refused(tasks.deploy, 3, version="v1")
    assert "cannot take the lock under" in said
    assert "server.bootstrap -e test" in said


def test_an_interrupt_is_undone(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    project.deploy("v1")
    monkeypatch.setattr(DockerServer, "wait_healthy", interrupted)
    assert "deploy interrupted and undone; what served before serves on" in project.refused(tasks.deploy, 1, version="v2")
    assert project.versions == {"v1": "running"}
    assert project.here.records()[-1]["result"] == "undone"
