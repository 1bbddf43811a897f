"""Rollbacks planned: where they go, and what they do there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.plan import plan_rollback, rollback_candidates
from ops.errors import Refused
from tests.fakes import World, deploy, environment, rollback, shape, states

ENV = environment(processes={"worker": {"command": ["work"]}})
PAIR = environment("one", "two")


def world(*versions: str, names: tuple[str, ...] = ("one",)) -> World:
    """Return servers on which those versions were deployed one after the other."""
    found = World(*names)
    for version in versions:
        deploy(found, PAIR if len(names) > 1 else ENV, version)
    return found


def test_a_rollback_goes_to_the_release_before_with_its_own_containers_and_nginx_file() -> None:
    plan = plan_rollback(ENV, states(world("v1", "v2", "v3")), None)
    names = "blog_web_v2, blog_worker_v2"
    assert shape(plan) == [
        f"start: StartKept start {names}",
        "start: StageEdge stage the nginx file and test it",
        f"healthy: WaitHealthy wait until {names} healthy",
        "switch: Switch switch requests to v2",
        "verify: Verify verify through the public address",
        "verify: AwaitOldWorkers let open requests finish",
        "verify: JudgeProbes judge what users saw since the switch",
        "drain: CompleteRelease complete v2",
        "drain: Stop stop blog_web_v3, blog_worker_v3",
    ]
    assert all(step.why for phase in plan.phases for step in phase.steps["one"])
    assert (plan.kind, plan.release, plan.version, plan.previous) == ("rollback", "v2", "v2", {"one": "v3"})


def test_a_rollback_keeps_the_old_release_stopped_so_that_one_can_go_forward_again() -> None:
    servers = world("v1", "v2")
    rollback(servers, ENV)
    assert (servers.only.serves(), servers.only.running()) == ("v1", {"v1"})
    rollback(servers, ENV, to="v2")
    assert (servers.only.serves(), servers.only.running()) == ("v2", {"v2"})


def test_to_names_a_version_or_a_release() -> None:
    servers = world("v1", "v2", "v3")
    deploy(servers, ENV, "v3", force=True)
    assert plan_rollback(ENV, states(servers), "v1").release == "v1"
    assert plan_rollback(ENV, states(servers), "v3.2").unchanged
    assert plan_rollback(ENV, states(servers), "v2").release == "v2"


def test_without_a_kept_release_a_rollback_is_refused() -> None:
    plan = plan_rollback(ENV, states(world("v1")), None)
    assert plan.refusals == ("no kept release older than the one that serves; kept on every server: v1",)
    with pytest.raises(Refused):
        rollback(world("v1"), ENV)


def test_where_nothing_serves_and_nothing_is_kept_a_rollback_is_refused() -> None:
    plan = plan_rollback(ENV, states(World()), None)
    assert plan.refusals == ("no kept release older than the one that serves; kept on every server: none",)


def test_an_unknown_release_is_refused_with_those_that_are_kept() -> None:
    plan = plan_rollback(ENV, states(world("v1", "v2")), "v9")
    assert plan.refusals == ("no kept release v9; kept on every server: v2, v1",)


def test_a_release_kept_on_one_of_two_servers_is_not_offered() -> None:
    servers = world("v1", "v2", "v3", names=("one", "two"))
    del servers.machines["two"].boxes["blog_web_v2"]
    assert [one.id for one in rollback_candidates(states(servers))] == ["v3", "v1"]
    assert plan_rollback(PAIR, states(servers), None).release == "v1"
    assert plan_rollback(PAIR, states(servers), "v2").refusals == (
        (
            "no kept release v2; kept on every server: v3, v1; one keeps v3, v2, v1; two keeps v3, v1; "
            "two lacks v2: deploy that version again: check out v2 and run inv deploy -e production"
        ),
    )


def test_after_adding_a_server_a_rollback_says_what_it_lacks_and_how_it_gets_it() -> None:
    servers = world("v1", "v2")
    servers.machines["two"] = World("two").machines["two"]
    assert plan_rollback(PAIR, states(servers), None).refusals == (
        (
            "no kept release older than the one that serves; kept on every server: none; one keeps v2, v1; two keeps none; "
            "two lacks v1: deploy that version again: check out v1 and run inv deploy -e production"
        ),
    )
    ready = environment("one", "two", image="registry.example.com/blog")
    assert plan_rollback(ready, states(servers), None).refusals[0].endswith(": inv deploy -e production --version v1")


def test_a_release_without_one_of_its_processes_or_its_manifest_is_not_offered() -> None:
    servers = world("v1", "v2", "v3")
    del servers.only.boxes["blog_worker_v2"]
    del servers.only.manifests["v1.json"]
    assert [one.id for one in rollback_candidates(states(servers))] == ["v3"]


def test_a_release_that_never_served_is_not_offered() -> None:
    servers = world("v1", "v2")
    servers.only.manifests["v1.staged"] = servers.only.manifests.pop("v1.json")
    assert plan_rollback(ENV, states(servers), None).refusals


def test_servers_that_drifted_meet_at_the_older_release_and_the_one_that_has_it_is_not_restarted() -> None:
    servers = world("v1", "v2", names=("one", "two"))
    behind = World("two")
    behind.machines["two"] = servers.machines["two"]
    rollback(behind, environment("two"))
    plan = plan_rollback(PAIR, states(servers), None)
    assert plan.release == "v1"
    assert "start: StartKept start blog_web_v1" in shape(plan, "one")
    assert [line for line in shape(plan, "two") if "StartKept" in line or "Stop" in line] == []
    rollback(servers, PAIR)
    assert {machine.serves() for machine in servers.machines.values()} == {"v1"}


def test_each_server_goes_back_to_its_own_address() -> None:
    servers = World("one", "two")
    servers.machines["two"].attached = {"10.213.1.139"}
    for version in ("v1", "v2"):
        deploy(servers, PAIR, version)
    rollback(servers, PAIR)
    addresses = {machine.boxes["blog_web_v1"].spec.address for machine in servers.machines.values()}
    assert len(addresses) == 2
    assert {machine.serves() for machine in servers.machines.values()} == {"v1"}


def test_the_release_that_serves_is_no_rollback() -> None:
    plan = plan_rollback(ENV, states(world("v1")), "v1")
    assert (plan.unchanged, plan.phases, plan.notes) == (True, (), ("v1 serves already, nothing to do",))


def test_a_rollback_finishes_what_a_killed_one_left() -> None:
    servers = world("v1", "v2")
    for name in ("blog_web_v1", "blog_worker_v1"):
        servers.only.boxes[name].state = "running"
    plan = plan_rollback(ENV, states(servers), "v2")
    assert shape(plan) == ["prepare: Stop stop blog_web_v1, blog_worker_v1"]
    assert plan.notes == ("v2 serves already, only what a killed command left is cleaned up",)


def test_a_rollback_needs_the_edge() -> None:
    servers = world("v1", "v2")
    servers.only.edge = None
    assert plan_rollback(ENV, states(servers), None).refusals == ("one: the edge nginx is missing: run inv server.bootstrap",)


def test_a_rollback_does_not_remove_what_it_goes_to() -> None:
    (state,) = states(world("v1", "v2"))
    lost = replace(state, releases=tuple(replace(one, complete=one.id == "v1") for one in state.releases))
    plan = plan_rollback(ENV, (lost,), None)
    assert shape(plan)[0] == "prepare: CompleteRelease complete v2"
    assert not any("Remove" in line for line in shape(plan))


def test_a_serving_release_whose_containers_are_stopped_is_started_by_a_rollback_to_it() -> None:
    servers = world("v1", "v2")
    for name in ("blog_web_v2", "blog_worker_v2"):
        servers.only.boxes[name].state = "exited"
    rollback(servers, ENV, to="v2")
    assert servers.only.serves() == "v2"


def test_after_a_rollback_and_a_new_deploy_the_next_rollback_goes_where_the_first_one_went() -> None:
    servers = world("v1", "v2")
    rollback(servers, ENV)  # v2 was bad
    deploy(servers, ENV, "v3")
    assert plan_rollback(ENV, states(servers), None).release == "v1"
