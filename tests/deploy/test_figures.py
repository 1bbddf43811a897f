"""What a deploy tells Prometheus of itself, and that alerts wait for it: whatever happens, how it ended is told."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import figures
from deploy.plan import Plan, plan_deploy
from deploy.release import Summary, Work, _figures, _silence
from ops.errors import Failed, NeedsPerson
from tests.fakes import FakeServer, World, environment, fails_in, intent, look, lost_at

LABELS, ABOUT = {"app": "blog", "environment": "production"}, {"release": "v2", "version": "2.0", "kind": "deploy"}
NOW = datetime(2026, 11, 23, 14, 5, 30, 250_000, tzinfo=UTC)
ENV = environment("one", "two")
ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series(text: str) -> Series:
    """Read figures as Prometheus does."""
    found: Series = {}
    for line in (line for line in text.split("\n") if line and not line.startswith("#")):
        match = re.fullmatch(r'(\w+)\{((?:\w+="(?:[^"\\\n]|\\[\\"n])*",?)*)\} (\S+)', line)
        assert match, line
        pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2])
        labels = frozenset((name, re.sub(r"\\.", lambda one: ESCAPES[one[0]], value)) for name, value in pairs)
        found[match[1].removeprefix("tidegate_deploy_"), labels] = float(match[3])
    assert text.endswith("\n")
    return found


def values(text: str) -> dict[str, float]:
    return {name: value for (name, _), value in series(text).items()}


def test_a_deploy_that_has_begun_says_since_when_and_nothing_of_how_it_ends() -> None:
    text = figures.begun(LABELS, ABOUT, NOW)
    assert values(text) == {"in_progress": 1, "started_timestamp_seconds": NOW.timestamp(), "info": 1}
    assert ("info", frozenset({**LABELS, **ABOUT}.items())) in series(text)
    assert all(frozenset(LABELS.items()) <= labels for _, labels in series(text))


@pytest.mark.parametrize("ok", [True, False])
def test_one_that_has_ended_says_how_and_how_long_it_took(ok: bool) -> None:
    ended = NOW + timedelta(seconds=12.3456)
    assert values(figures.ended(LABELS, ABOUT, NOW, ended, ok=ok)) == {
        "in_progress": 0, "success": ok, "duration_seconds": 12.346, "info": 1, "started_timestamp_seconds": NOW.timestamp(),
        "finished_timestamp_seconds": round(ended.timestamp(), 3),
    }  # fmt: skip


@given(version=st.text(), release=st.text())
def test_no_version_breaks_out_of_its_label(version: str, release: str) -> None:
    text = figures.begun(LABELS, {**ABOUT, "version": version, "release": release}, NOW)
    assert ("info", frozenset({**LABELS, **ABOUT, "version": version, "release": release}.items())) in series(text)


def test_every_app_has_a_file_of_its_own_that_the_node_exporter_reads() -> None:
    assert figures.path("blog") == "/srv/tidegate/metrics/blog_deploy.prom"


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not here")
def test_promtool_finds_nothing_to_say_against_them() -> None:
    text = figures.ended(LABELS, ABOUT, NOW, NOW + timedelta(seconds=1), ok=True)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@dataclass
class Watching:
    """A monitoring that remembers what it was told; each remark is returned as from a real one."""

    remark: str = ""
    told: list[Any] = field(default_factory=list)

    def begin(self, app: str, servers: Sequence[str], release: str) -> str:
        self.told.append((app, list(servers), release))
        return self.remark and f"begin: {self.remark}"

    def end(self, *, ok: bool) -> str:
        self.told.append(ok)
        return self.remark and f"end: {self.remark}"


@dataclass
class Known:
    """The servers of a release, and how to reach them, as far as telling needs it."""

    servers: dict[str, FakeServer]
    env: Any = ENV


def begin() -> tuple[World, Work, Plan]:
    world = World("one", "two")
    servers = world.connect()
    plan = plan_deploy(ENV, intent("v1", world.now()), look(servers))
    return world, cast("Work", Known(servers)), plan


def told(world: World) -> list[dict[str, float]]:
    return [values(machine.figures) for machine in world.machines.values()]


def test_every_server_is_told_that_a_deploy_begins_and_that_it_ended_well() -> None:
    world, work, plan = begin()
    with _figures(work, plan):
        assert [one["in_progress"] for one in told(world)] == [1, 1]
        assert all("success" not in one for one in told(world))
    assert [(one["in_progress"], one["success"]) for one in told(world)] == [(0, 1)] * 2
    labels = next(labels for name, labels in series(world.machines["one"].figures) if name == "info")
    assert dict(labels) == {**LABELS, "release": "v1", "version": "v1", "kind": "deploy"}


def test_of_a_prune_nothing_is_told_neither_that_it_ended_nor_in_place_of_the_last_deploy() -> None:
    world, work, plan = begin()
    with _figures(work, plan):
        pass
    before = [machine.figures for machine in world.machines.values()]
    with _figures(work, replace(plan, kind="prune")):
        assert [machine.figures for machine in world.machines.values()] == before
    with pytest.raises(Failed), _figures(work, replace(plan, kind="prune")):
        fail()
    assert [machine.figures for machine in world.machines.values()] == before


def interrupt() -> None:
    raise KeyboardInterrupt


def fail() -> None:
    raise Failed("it did not become healthy")


def give_up() -> None:
    raise NeedsPerson("the undo did not complete")


@pytest.mark.parametrize("ends", [fail, give_up, interrupt])
def test_a_deploy_that_fails_says_so_whatever_ended_it(ends: Callable[[], None]) -> None:
    world, work, plan = begin()
    with pytest.raises((Failed, NeedsPerson, KeyboardInterrupt)), _figures(work, plan):
        ends()
    assert [(one["in_progress"], one["success"]) for one in told(world)] == [(0, 0)] * 2


def test_a_deploy_that_was_killed_is_in_progress_for_ever() -> None:
    """So that DeployStuck tells."""
    world, work, plan = begin()
    telling = _figures(work, plan)
    telling.__enter__()
    assert [one["in_progress"] for one in told(world)] == [1, 1]


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_server_that_cannot_be_told_fails_no_deploy(nth: int) -> None:
    world, work, plan = begin()
    world.fault = fails_in("_figures_are", nth)
    with _figures(work, plan):
        pass
    remarks = [remark for server in work.servers.values() for remark in server.remarks]
    assert [remark.partition(":")[0] for remark in remarks] == [["one", "two"][(nth - 1) % 2]]
    assert sum(one.get("success") == 1 for one in told(world)) == (2 if nth < 3 else 1)


def test_nor_does_one_whose_connection_is_lost() -> None:
    world, work, plan = begin()

    def lose_and_fail() -> None:
        world.fault, world.ticks = lost_at(0), []
        fail()

    with pytest.raises(Failed, match="healthy"), _figures(work, plan):
        lose_and_fail()
    assert len([remark for server in work.servers.values() for remark in server.remarks]) == 1


def test_alerts_of_the_swapped_containers_wait_until_it_ended() -> None:
    _, work, plan = begin()
    watch, summary = Watching(), Summary("deploy", "production", "")
    with _silence(work, plan, summary, watch):
        assert watch.told == [("blog", ["one", "two"], "v1")]
    assert (watch.told[1:], summary.notes) == ([True], [])


@pytest.mark.parametrize("ends", [fail, interrupt])
def test_after_a_failure_they_are_told_again_too(ends: Callable[[], None]) -> None:
    _, work, plan = begin()
    watch = Watching()
    with pytest.raises((Failed, KeyboardInterrupt)), _silence(work, plan, Summary("deploy", "production", ""), watch):
        ends()
    assert watch.told[1:] == [False]


def test_what_the_monitoring_has_to_say_is_among_the_notes_of_the_deploy() -> None:
    _, work, plan = begin()
    summary = Summary("deploy", "production", "", notes=["before"])
    with _silence(work, plan, summary, Watching("not silenced")):
        assert summary.notes == ["before", "begin: not silenced"]
    assert summary.notes == ["before", "begin: not silenced", "end: not silenced"]


def test_without_a_monitoring_nobody_is_asked() -> None:
    _, work, plan = begin()
    summary = Summary("deploy", "production", "")
    with _silence(work, plan, summary, None):
        pass
    assert summary.notes == []
