"""Carrying out a plan: the barrier, the undo, the journal, and what the outcome is called."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.apply import Run
from deploy.plan import plan_deploy
from ops.errors import Failed, Locked, NeedsPerson, TidegateError, Unreachable
from tests.fakes import FakeServer, Fault, Quiet, World, deploy, environment, fails_in, intent, look, lost_at, rollback, states

APP: dict[str, Any] = {"migrate": {"command": ["blog", "migrate"], "on": "each"}, "processes": {"worker": {"command": ["work"]}}}
ENV = environment(**APP)
PAIR = environment("one", "two", **APP)
TRIO = environment("one", "two", "three")


def served(*names: str) -> World:
    """Return servers that serve v1."""
    world = World(*names)
    deploy(world, environment(*names, **APP), "v1")
    return world


def first(world: World, method: str) -> int:
    return next(tick.number for tick in world.ticks if tick.method == method and tick.what == "called")


def last(world: World, method: str) -> int:
    return max(tick.number for tick in world.ticks if tick.method == method and tick.what == "called")


def test_no_server_switches_before_every_server_is_healthy() -> None:
    world = World("one", "two", "three")
    deploy(world, TRIO, "v1")
    assert last(world, "wait_healthy") < first(world, "switch_edge")
    assert last(world, "write_release") < first(world, "switch_edge")


def test_no_server_completes_or_stops_the_old_release_before_every_server_is_verified() -> None:
    world = served("one", "two")
    deploy(world, PAIR, "v2")
    assert last(world, "verify_public") < first(world, "complete_release")
    assert last(world, "verify_public") < first(world, "stop")


def test_one_unhealthy_server_of_three_and_none_switches() -> None:
    world = World("one", "two", "three")
    deploy(world, TRIO, "v1")
    with pytest.raises(Failed):
        deploy(world, TRIO, "v2", fault=fails_in("wait_healthy", server="two"))
    assert world.calls("switch_edge") == []
    assert {machine.serves() for machine in world.machines.values()} == {"v1"}
    assert {frozenset(machine.boxes) for machine in world.machines.values()} == {frozenset({"blog_web_v1"})}


def test_a_failure_ends_the_waits_of_the_other_servers() -> None:
    world = served("one", "two")
    world.machines["one"].hangs = True
    with pytest.raises(Failed, match="two: wait_healthy: injected"):
        deploy(world, PAIR, "v2", fault=fails_in("wait_healthy", server="two"))
    assert world.calls("cancel") == [("one", "cancel"), ("two", "cancel")]


def test_the_error_told_is_the_first_one_and_not_that_of_a_cancelled_server() -> None:
    world = served("one", "two")
    world.machines["one"].hangs = True
    unhealthy = fails_in("wait_healthy", server="two")
    spoiled = Fault(
        lambda tick: unhealthy.strikes(tick) or (tick.server, tick.method) == ("one", "remove"),
        lambda tick: Failed(f"{tick.method}: injected", where=tick.server), repeated=True,
    )  # fmt: skip
    with pytest.raises(Failed) as caught:
        deploy(world, PAIR, "v2", fault=spoiled)
    assert "two: wait_healthy: injected" in caught.value.why
    assert "one: remove: injected" in caught.value.why


def test_the_undo_goes_backwards_through_what_was_begun() -> None:
    world = served("one")
    with pytest.raises(Failed):
        deploy(world, ENV, "v2", fault=fails_in("probe_report"))
    undone = [record["step"] for record in world.only.records() if record.get("state") == "undo"]
    assert undone == [
        "judge what users saw since the switch",
        "let open requests finish",
        "verify through the public address",
        "switch requests to v2",
        "write the manifest of v2",
        "wait until blog_web_v2, blog_worker_v2 healthy",
        "stage the nginx file and test it",
        "start blog_web_v2, blog_worker_v2",
        "migrate: blog migrate",
        "ship tidegate/blog:v2",
    ]


def test_nothing_that_was_not_begun_is_undone() -> None:
    world = served("one")
    with pytest.raises(Failed):
        deploy(world, ENV, "v2", fault=fails_in("run_once"))
    assert "start_new" not in {method for _, method in world.calls()}
    assert [record["step"] for record in world.only.records() if record.get("state") == "undo"] == [
        "migrate: blog migrate",
        "ship tidegate/blog:v2",
    ]


def test_a_switch_is_undone_with_the_same_proof_before_the_new_release_is_removed() -> None:
    world = served("one")
    with pytest.raises(Failed):
        deploy(world, ENV, "v2", fault=fails_in("probe_report"))
    assert len(world.calls("switch_edge")) == 2
    assert last(world, "switch_edge") < first(world, "remove_release") < first(world, "remove")
    assert last(world, "switch_edge") < last(world, "wait_old_workers") < first(world, "remove")


def test_the_first_deploy_is_undone_to_nothing() -> None:
    world = World()
    with pytest.raises(Failed):
        deploy(
            world,
            ENV,
            "v1",
            fault=fails_in("journal", nth=2 * len(("ship", "migrate", "start", "stage", "wait", "write", "switch")) + 2),
        )
    assert world.calls("switch_edge") == [("one", "switch_edge")] * 2
    machine = world.only
    assert (machine.boxes, machine.manifests, machine.edge_files, machine.loaded, machine.staged) == ({}, {}, {}, {}, None)


def test_a_failed_rollback_stops_what_it_started_and_keeps_it() -> None:
    world = served("one")
    deploy(world, ENV, "v2")
    with pytest.raises(Failed):
        rollback(world, ENV, fault=fails_in("probe_report"))
    assert (world.only.serves(), world.only.running()) == ("v2", {"v2"})
    assert "blog_web_v1" in world.only.boxes
    assert rollback(world, ENV).release == "v1"


def test_every_step_is_journalled_before_and_after_it_is_done() -> None:
    world = served("one")
    deploy(world, ENV, "v2")
    records = [record for record in world.only.records() if record["operation"] == "deploy v2"]
    assert [record["event"] for record in records] == ["begin", *["step"] * (len(records) - 2), "end"]
    steps = [(record["phase"], record["step"], record["state"]) for record in records[1:-1]]
    assert [state for _, _, state in steps] == ["before", "after"] * (len(steps) // 2)
    assert all(before[:2] == after[:2] for before, after in zip(steps[::2], steps[1::2], strict=True))
    assert ("switch", "switch requests to v2", "before") in steps


def test_a_step_is_in_the_journal_before_it_touches_the_server() -> None:
    world = served("one")
    deploy(world, ENV, "v2")
    calls = [method for _, method in world.calls()]
    assert all(
        calls[calls.index(method) - 1] == "journal"
        for method in ("start_new", "stage_edge", "wait_healthy", "probe_mark", "stop")
    )


def test_what_fails_after_the_release_is_proven_is_left_for_the_next_deploy() -> None:
    world = served("one")
    servers = world.connect()
    plan = plan_deploy(ENV, intent("v2", world.now()), look(servers))
    world.fault = fails_in("stop")
    outcome = Run(plan, servers, "operation", Quiet()).apply()
    assert len(outcome.leftovers) == 1
    assert outcome.leftovers[0].startswith("one: drain was not finished, the next deploy does it:")
    assert (world.only.serves(), world.only.running()) == ("v2", {"v1", "v2"})
    deploy(world, ENV, "v2")
    assert world.only.running() == {"v2"}


def test_the_seconds_of_every_phase_are_told() -> None:
    world, reporter = served("one"), Quiet()
    servers = world.connect()
    plan = plan_deploy(ENV, intent("v2", world.now()), look(servers))
    outcome = Run(plan, servers, "operation", reporter).apply()
    assert list(outcome.phases) == [phase.name for phase in plan.phases]
    assert [line for line in reporter.said if line.startswith(("phase", "done"))] == [
        line for phase in plan.phases for line in (f"phase {phase.name}", f"done {phase.name}")
    ]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("crash", "died"),
        ("unhealthy", "timeout"),
        ("worker_fail", "blog_worker_v2 did not"),
        ("migrate_fail", "failed with exit code 1"),
    ],
)
def test_a_bad_version_is_refused_with_its_words_and_exit_code_1(behaviour: str, words: str) -> None:
    world = served("one")
    with pytest.raises(Failed, match=words) as caught:
        deploy(world, ENV, "v2", values={"BEHAVIOUR": behaviour})
    assert caught.value.exit_code == 1
    assert (world.only.serves(), set(world.only.boxes)) == ("v1", {"blog_web_v1", "blog_worker_v1"})


def test_a_bad_nginx_file_is_refused_with_nginx_words_and_removed() -> None:
    world = served("one")
    with pytest.raises(Failed, match="nginx refuses") as caught:
        deploy(world, ENV, "v2", extra="no_such_directive on;")
    assert "no_such_directive" in caught.value.why
    assert (world.only.serves(), world.only.staged) == ("v1", None)


def test_failures_beyond_the_budget_after_the_switch_roll_back() -> None:
    world = served("one")
    world.only.failures_after_mark = 3
    with pytest.raises(Failed, match="3 of 50 requests failed after the switch"):
        deploy(world, ENV, "v2")
    assert world.only.serves() == "v1"
    deploy(world, environment(**APP, prober={"budget": 3}), "v2")
    assert world.only.serves() == "v2"


def test_a_public_address_that_never_worked_does_not_count_and_is_remarked() -> None:
    world = served("one")
    world.only.public_works = False
    servers = world.connect()
    plan = plan_deploy(ENV, intent("v2", world.now()), look(servers))
    Run(plan, servers, "operation", Quiet()).apply()
    assert world.only.serves() == "v2"
    assert any("was not reachable before either" in line for line in servers["one"].remarks)


def test_a_lost_connection_before_the_switch_is_exit_code_1_and_after_it_exit_code_5() -> None:
    codes = {}
    for method in ("start_new", "verify_public"):
        world = served("one")
        deploy(world, ENV, "v2")
        at = first(world, method)
        world = served("one")
        with pytest.raises(TidegateError) as caught:
            deploy(world, ENV, "v2", fault=lost_at(at))
        codes[method] = (type(caught.value), caught.value.exit_code)
        assert isinstance(caught.value.__cause__, Unreachable)
    assert codes == {"start_new": (Failed, 1), "verify_public": (NeedsPerson, 5)}


def test_a_server_lost_after_the_switch_needs_a_person_and_the_other_one_is_undone() -> None:
    world = served("one", "two")
    seen = fails_in("verify_public", server="two")
    lost = Fault(seen.strikes, lambda tick: Unreachable("the connection was lost", where=tick.server), lasting=True)
    with pytest.raises(NeedsPerson) as caught:
        deploy(world, PAIR, "v2", fault=lost)
    assert "on two" in caught.value.what
    assert "the connection was lost" in caught.value.why
    assert "deploy.status" in caught.value.fix
    assert {name: machine.serves() for name, machine in world.machines.items()} == {"one": "v1", "two": "v2"}


def test_a_journal_that_cannot_be_written_ends_a_deploy_but_not_its_undo() -> None:
    world = served("one")
    deploy(world, ENV, "v2")
    at = first(world, "wait_healthy") - 1
    world = served("one")
    full = Fault(
        lambda tick: tick.number >= at and tick.method == "journal",
        lambda tick: TidegateError("no space left on device", where=tick.server), repeated=True,
    )  # fmt: skip
    with pytest.raises(TidegateError, match="no space left"):
        deploy(world, ENV, "v2", fault=full)
    assert (world.only.serves(), world.only.running()) == ("v1", {"v1"})
    assert set(world.only.boxes) == {"blog_web_v1", "blog_worker_v1"}


def test_an_interrupt_undoes_on_all_servers() -> None:
    world = served("one", "two")
    servers = world.connect()
    plan = plan_deploy(PAIR, intent("v2", world.now()), look(servers))

    class Impatient(Quiet):
        def phase(self, name: str) -> None:
            if name == "healthy":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(plan, servers, "operation", Impatient()).apply()
    assert {frozenset(machine.running()) for machine in world.machines.values()} == {frozenset({"v1"})}


def test_two_operators_at_once_the_second_one_is_locked_out() -> None:
    world = served("one")
    servers = world.connect()
    look(servers)
    second = FakeServer(world.only, world)
    second.lock({"what": "a deploy", "who": "bob", "since": "later"})
    with pytest.raises(Locked, match="a deploy") as caught:
        second.observe()
    assert caught.value.exit_code == 4
    servers["one"].close()
    third = FakeServer(world.only, world)
    third.lock({"what": "a deploy", "who": "bob", "since": "later"})
    third.observe()


def test_a_killed_deploy_is_noted_by_the_next_one_and_then_forgotten() -> None:
    world = served("one")
    world.only.journal.append(
        '{"event": "begin", "operation": "x", "kind": "deploy", "release": "v2", "by": "ann", "time": "noon"}'
    )
    plan = deploy(world, ENV, "v3")
    assert "one: deploy of v2 by ann at noon never finished; what it left is cleaned up first" in plan.notes
    assert [state.unfinished for state in states(world)] == [None]


class Speechless(Quiet):
    """A reporter whose terminal is gone."""

    def phase(self, name: str) -> None:
        raise OSError("Input/output error")

    def phase_done(self, name: str, seconds: float) -> None:
        raise OSError("Input/output error")

    def step(self, server: str, title: str) -> None:
        raise OSError("Input/output error")

    def note(self, text: str) -> None:
        raise OSError("Input/output error")


def test_a_terminal_that_is_gone_stops_neither_a_deploy_nor_its_undo() -> None:
    world = served("one")
    for version, fault, serves in (("v2", None, "v2"), ("v3", fails_in("wait_old_workers"), "v2")):
        servers = world.connect()
        run = Run(plan_deploy(ENV, intent(version, world.now()), look(servers)), servers, "operation", Speechless())
        world.fault = fault
        if fault:
            with pytest.raises(Failed, match="injected"):
                run.apply()
        else:
            run.apply()
        assert (world.only.serves(), world.only.running()) == (serves, {serves})
        servers["one"].close()
