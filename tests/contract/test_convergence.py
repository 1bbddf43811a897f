"""Whatever happened before, the next deploy converges; whatever happens now, users are always answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.model import ProcessSpec
from deploy.plan import Plan, plan_deploy
from deploy.steps import Prune, RemoveContainers, Stop
from ops.errors import Failed, NeedsPerson, Refused, TidegateError
from tests.fakes import (
    Box,
    Killed,
    Machine,
    World,
    deploy,
    environment,
    fails_at,
    intent,
    killed_at,
    look,
    lost_at,
    rollback,
    shape,
    states,
)

APP: dict[str, Any] = {
    "migrate": {"command": ["blog", "migrate"]},
    "processes": {"worker": {"command": ["blog", "work"]}},
    "keep_releases": 2,
}
ENV = environment(**APP)
PAIR = environment("one", "two", **APP)


def with_data(*names: str) -> World:
    """Return a world whose apps have a database that every deploy backs up."""
    world = World(*names)
    for machine in world.machines.values():
        posts = {"present": True, "schema": "one", "journal": "wal"}
        machine.data = {"sources": {"posts": posts}, "backups": {}, "restoring": False, "time": "2026-01-01T00:00:00Z"}
    return world


def served_throughout(machine: Machine) -> bool:
    """Tell whether users were answered at every moment of a command if they were when it began."""
    return machine.users_saw[0] is None or None not in machine.users_saw


def touched_before_the_switch(plan: Plan, server: str) -> Iterator[str]:
    """Yield the containers and releases that a plan stops or removes before it switches."""
    for phase in plan.phases:
        if phase.name == "switch":
            return
        for step in phase.steps[server]:
            if isinstance(step, RemoveContainers | Stop | Prune):
                yield from step.containers
            if isinstance(step, Prune):
                yield from step.releases


def is_safe(plan: Plan, machine: Machine) -> bool:
    """Tell whether a plan leaves alone what answers, until it does not any more, and what a rollback would go to."""
    serving = machine.serves()
    own = {name for name, box in machine.boxes.items() if serving and box.spec.labels["dev.tidegate.release"] == serving}
    pruned = {
        id
        for phase in plan.phases
        if phase.final
        for step in phase.steps[machine.name]
        if isinstance(step, Prune)
        for id in step.releases
    }
    return not (own | {serving}) & set(touched_before_the_switch(plan, machine.name)) and not {plan.release, serving} & pruned


def checked_deploy(world: World, version: str, **wanted: object) -> Plan:
    """Deploy after checking the plan, and check what users saw."""
    env = PAIR if len(world.machines) > 1 else ENV
    plan = plan_deploy(env, intent(version, world.now()), look(world.connect()))
    for machine in world.machines.values():
        assert is_safe(plan, machine), shape(plan, machine.name)
    try:
        return deploy(world, env, version, **wanted)  # type: ignore[arg-type]
    finally:
        for machine in world.machines.values():
            assert served_throughout(machine), machine.users_saw


def assert_converges(world: World, version: str) -> None:
    """Deploy twice: the first makes exactly one release run and serve, the second finds nothing to do."""
    done = checked_deploy(world, version)
    for machine in world.machines.values():
        serving = machine.serves()
        assert serving is not None
        assert serving.partition(".")[0] == version
        assert machine.running() == {serving}
        named = states(world)[list(world.machines).index(machine.name)].release(serving)
        assert named is not None
        assert named.backup in machine.backups, "what serves names a backup that was never taken"
    assert done.unchanged or [state.unfinished for state in states(world) if state.unfinished] == []
    env = PAIR if len(world.machines) > 1 else ENV
    again = plan_deploy(env, intent(version, world.now()), states(world))
    assert again.unchanged, [shape(again, name) for name in world.machines]


def _nth(machine: Machine, n: int) -> str | None:
    names = sorted(machine.boxes)
    return names[n % len(names)] if names else None


def stop_a_box(machine: Machine, n: int) -> None:
    if name := _nth(machine, n):
        machine.boxes[name].state = "exited"


def start_a_box(machine: Machine, n: int) -> None:
    if name := _nth(machine, n):
        machine.boxes[name].state = "running"


def remove_a_box(machine: Machine, n: int) -> None:
    if name := _nth(machine, n):
        del machine.boxes[name]


def lose_a_manifest(machine: Machine, n: int) -> None:
    if machine.manifests:
        del machine.manifests[sorted(machine.manifests)[n % len(machine.manifests)]]


def damage_a_manifest(machine: Machine, n: int) -> None:
    if machine.manifests:
        machine.manifests[sorted(machine.manifests)[n % len(machine.manifests)]] = ["", "{", "[]", "{}", "null"][n % 5]


def stop_the_edge(machine: Machine, n: int) -> None:
    machine.stop_edge()


def restart_the_edge(machine: Machine, n: int) -> None:
    machine.restart_edge()


def lose_the_file(machine: Machine, n: int) -> None:
    machine.edge_files.clear()
    machine.restart_edge()


def lose_images(machine: Machine, n: int) -> None:
    machine.images.clear()


def leave_a_migration(machine: Machine, n: int) -> None:
    release = plan_draft(f"m{n}")
    machine.boxes[release.name] = Box(release, "running")


def plan_draft(id: str) -> ProcessSpec:
    """Return a one-off container of a release."""
    world = with_data("x")
    deploy(world, ENV, id)
    web = world.only.boxes[f"blog_web_{id}"].spec
    return ProcessSpec(**{**vars(web), "name": f"blog_migrate_{id}", "process": "migrate", "address": None,
                          "labels": {**web.labels, "dev.tidegate.process": "migrate"}})  # fmt: skip


MEDDLE: list[Callable[[Machine, int], None]] = [
    stop_a_box, start_a_box, remove_a_box, lose_a_manifest, damage_a_manifest, stop_the_edge, restart_the_edge, lose_the_file,
    lose_images, leave_a_migration,
]  # fmt: skip

_VERSION = st.sampled_from(["a", "b", "c"])
_WHEN = st.integers(0, 90)
_KILLS = st.tuples(st.sampled_from(["deploy", "killed", "failed", "lost", "rollback", "killed rollback"]), _VERSION, _WHEN)
_ACCIDENTS = st.tuples(st.just("meddle"), st.sampled_from(range(len(MEDDLE))), st.integers(0, 5))


def happen(world: World, what: str, which: object, when: int) -> None:
    """Let one thing of a history happen."""
    if what == "meddle":
        for machine in world.machines.values():
            MEDDLE[int(str(which))](machine, when)
        return
    fault = {"killed": killed_at, "failed": fails_at, "lost": lost_at, "killed rollback": killed_at}.get(what)
    try:
        if "rollback" in what:
            rollback(world, PAIR if len(world.machines) > 1 else ENV, fault=fault(when) if fault else None)
        else:
            checked_deploy(world, str(which), fault=fault(when) if fault else None)
    except (Killed, TidegateError):
        pass  # what is left of it is what the next deploy meets


@settings(max_examples=150, deadline=None)
@given(history=st.lists(_KILLS, max_size=6))
def test_after_any_history_of_kills_and_failures_a_deploy_converges_and_users_never_notice(
    history: list[tuple[str, str, int]],
) -> None:
    world = with_data("one")
    checked_deploy(world, "first")
    for event in history:
        happen(world, *event)
        assert served_throughout(world.only)
    assert_converges(world, "last")


@settings(max_examples=150, deadline=None)
@given(history=st.lists(st.one_of(_KILLS, _ACCIDENTS), max_size=7), version=st.sampled_from(["a", "last"]))
def test_after_any_accident_as_well_a_deploy_converges(history: list[tuple[str, object, int]], version: str) -> None:
    world = with_data("one")
    for event in history:
        happen(world, *event)
    assert_converges(world, version)


def test_what_answers_is_left_alone_although_its_manifest_is_lost_and_nginx_was_about_to_switch() -> None:
    for tick in range(ticks_of_a_deploy("one")):
        world = with_data("one")
        happen(world, "deploy", "a", 0)
        happen(world, "meddle", MEDDLE.index(lose_a_manifest), 0)
        happen(world, "killed", "b", tick)
        assert_converges(world, "a")


@settings(max_examples=60, deadline=None)
@given(history=st.lists(_KILLS, max_size=4))
def test_two_servers_converge_too(history: list[tuple[str, str, int]]) -> None:
    world = with_data("one", "two")
    checked_deploy(world, "first")
    for event in history:
        happen(world, *event)
    assert_converges(world, "last")


def ticks_of_a_deploy(*names: str) -> int:
    """Return how many ticks the second deploy has."""
    world = with_data(*names)
    env = PAIR if len(names) > 1 else ENV
    deploy(world, env, "v1")
    deploy(world, env, "v2")
    return len(world.ticks)


@pytest.mark.parametrize("again", ["v2", "v3"])
def test_killed_at_any_tick_the_same_or_another_version_converges(again: str) -> None:
    for tick in range(ticks_of_a_deploy("one")):
        world = with_data("one")
        deploy(world, ENV, "v1")
        with pytest.raises(Killed):
            deploy(world, ENV, "v2", fault=killed_at(tick))
        assert served_throughout(world.only), tick
        assert world.only.serves() in ("v1", "v2")
        assert_converges(world, again)


def test_a_failure_at_any_tick_leaves_the_old_release_answering_and_nothing_else_behind() -> None:
    outcomes = set()
    for tick in range(ticks_of_a_deploy("one")):
        world = with_data("one")
        deploy(world, ENV, "v1")
        machine = world.only
        boxes, manifests, files = set(machine.boxes), dict(machine.manifests), dict(machine.edge_files)
        try:
            deploy(world, ENV, "v2", fault=fails_at(tick))
        except Failed:
            assert machine.serves() == "v1"
            assert (set(machine.boxes), machine.manifests, machine.edge_files) == (boxes, manifests, files), tick
            assert (machine.running(), machine.staged) == ({"v1"}, None)
            outcomes.add("failed")
        else:
            assert machine.serves() == "v2"  # it failed when everything was decided
            outcomes.add("served")
        assert served_throughout(machine)
        assert_converges(world, "v3")
    assert outcomes == {"failed", "served"}


def test_a_failure_on_one_of_two_servers_leaves_the_old_release_on_both() -> None:
    for tick in range(0, ticks_of_a_deploy("one", "two"), 3):
        world = with_data("one", "two")
        deploy(world, PAIR, "v1")
        try:
            deploy(world, PAIR, "v2", fault=fails_at(tick))
        except Failed:
            assert {machine.serves() for machine in world.machines.values()} == {"v1"}
            assert {frozenset(machine.running()) for machine in world.machines.values()} == {frozenset({"v1"})}
        else:
            assert {machine.serves() for machine in world.machines.values()} == {"v2"}
        assert all(map(served_throughout, world.machines.values()))


def test_a_connection_lost_at_any_tick_needs_a_person_only_once_the_switch_began() -> None:
    for tick in range(ticks_of_a_deploy("one")):
        world = with_data("one")
        deploy(world, ENV, "v1")
        outcome: TidegateError | None = None
        try:
            deploy(world, ENV, "v2", fault=lost_at(tick))
        except TidegateError as error:
            outcome = error
        assert world.fault is not None
        assert world.fault.struck is not None
        methods = [one.method for one in (*world.ticks, world.fault.struck)]
        if isinstance(outcome, NeedsPerson):
            assert "probe_mark" in methods
            assert str(outcome).startswith("deploy failed and could not be undone on one")
        elif isinstance(outcome, Failed):
            assert "left to clean up" in str(outcome)
            assert (world.only.serves(), "probe_mark" in methods) == ("v1", False)
        elif outcome is None:
            assert world.only.serves() == "v2"  # it was proven before the connection was lost
        else:
            assert set(methods) == {"journal"}  # nothing was done yet
        assert served_throughout(world.only)
        assert_converges(world, "v2")


def test_killed_at_any_tick_of_a_rollback_the_next_deploy_or_rollback_goes_on() -> None:
    world = with_data("one")
    for version in ("v1", "v2"):
        deploy(world, ENV, version)
    rollback(world, ENV)
    for tick in range(len(world.ticks)):
        world = with_data("one")
        for version in ("v1", "v2"):
            deploy(world, ENV, version)
        with pytest.raises(Killed):
            rollback(world, ENV, fault=killed_at(tick))
        assert served_throughout(world.only)
        rollback(world, ENV, to="v1")
        assert served_throughout(world.only)
        assert (world.only.serves(), world.only.running()) == ("v1", {"v1"})
        assert_converges(world, "v3")


def test_a_refusal_changes_nothing() -> None:
    world = with_data("one")
    deploy(world, ENV, "v1")
    world.only.disk_free = 0
    before = (set(world.only.boxes), list(world.only.journal))
    with pytest.raises(Refused):
        deploy(world, ENV, "v2")
    assert (set(world.only.boxes), list(world.only.journal)) == before
