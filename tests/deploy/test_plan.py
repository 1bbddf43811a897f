"""Deploys planned from every state a server can be found in. Pure: no server, no fake."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from deploy.edge import EdgeFile, render
from deploy.model import Container, EdgeState, HostState, Release
from deploy.plan import plan_deploy, plan_prune
from tests.fakes import DOMAIN, environment, intent, shape

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ENV = environment()
ADDRESSES = {"v1": "10.213.0.11", "v2": "10.213.0.12", "v3": "10.213.0.13"}
SLOTS = {"v1": "blue", "v2": "green", "v3": "blue"}


def release(id: str, *, complete: bool = True, processes: tuple[str, ...] = ("web",)) -> Release:
    file = EdgeFile("blog", id, f"{id}-nonce", ADDRESSES[id], 3000, (DOMAIN,), "10m", 60, 5, gzip=True, pem=None)
    return Release(domains=("blog.example.com",), id=id, version=id, slot=SLOTS[id], image=f"tidegate/blog:{id}", content=f"content-of-{id}", config_hash="config-1",
                   environment_hash="{}", port=3000, address=ADDRESSES[id], processes=processes, edge_file=render(file),
                   generation=f"{id}-nonce", created=f"2026-01-0{id[1]}", by="ann", complete=complete)  # fmt: skip


def container(id: str, process: str = "web", *, running: bool = True) -> Container:
    return Container(name=f"blog_{process}_{id}", release=id, slot=SLOTS.get(id, "green"), process=process, version=id,
                     image="sha256:1", running=running, address=ADDRESSES.get(id, ""))  # fmt: skip


def edge(file: str | None = None, answering: str | None = None, *, running: bool = True) -> EdgeState:
    """Return nginx with the file of one release, answering with another (the same unless said)."""
    now = (answering or file) if running else None
    content = release(file).edge_file if file else None
    return EdgeState(present=True, running=running, content=content, generation=f"{file}-nonce" if file else None, release=file,
                     answering=f"{now}-nonce" if now else None, claims={DOMAIN: "blog"} if file else {})  # fmt: skip


def host(
    *containers: Container, releases: tuple[Release, ...] = (), at: EdgeState | None = None, name: str = "one", **rest: object
) -> HostState:
    images = {one.image: one.content for one in releases if one.complete}
    known = {"images": images, "subnet": "10.213.0.0/20", "disk_free": 10**11, "srv_free": 10**11, "api": "1.45", **rest}
    return HostState(host=name, containers=containers, releases=releases, edge=at or edge(), **known)  # type: ignore[arg-type]


def new(id: str, old: str | None = None, *, serves: bool = True, ship: bool = True) -> list[str]:
    """Return the steps of a deploy that has nothing to clean up; `id` may carry a number."""
    judge = ["verify: AwaitOldWorkers let open requests finish", "verify: JudgeProbes judge what users saw since the switch"]
    return [
        *([f"ship: Ship ship tidegate/blog:{id.partition('.')[0]}"] if ship else []),
        f"start: StartNew start blog_web_{id}",
        "start: StageEdge stage the nginx file and test it",
        f"healthy: WaitHealthy wait until blog_web_{id} healthy",
        f"healthy: WriteManifest write the manifest of {id}",
        f"switch: Switch switch requests to {id}",
        "verify: Verify verify through the public address",
        *(judge if serves else []),
        f"drain: CompleteRelease complete {id}",
        *([f"drain: Stop stop {old}"] if old else []),
    ]


BLUE = host(container("v1"), releases=(release("v1"),), at=edge("v1"))
GREEN = host(container("v1", running=False), container("v2"), releases=(release("v1"), release("v2")), at=edge("v2"))
RESTORE = "prepare: RestoreEdge restore the nginx file of the serving release"

# name: (state, version to deploy, its steps, words that a `why` of the plan must hold)
TABLE: dict[str, tuple[HostState, str, list[str], str]] = {
    "nothing there": (host(), "v1", new("v1", serves=False), "nothing serves yet"),
    "blue serves": (BLUE, "v2", new("v2", "blog_web_v1"), "green is free"),
    "green serves": (GREEN, "v3", new("v3", "blog_web_v2"), "blue is free"),
    "half a deploy: green up, no manifest": (
        host(container("v1"), container("v2"), releases=(release("v1"),), at=edge("v1")), "v3",
        ["prepare: RemoveContainers remove blog_web_v2", *new("v3", "blog_web_v1")], "left by a deploy that never finished",
    ),
    "green healthy, its manifest staged": (
        host(container("v1"), container("v2"), releases=(release("v1"), release("v2", complete=False)), at=edge("v1")), "v3",
        ["prepare: RemoveContainers remove blog_web_v2", "prepare: Prune prune v2", *new("v3", "blog_web_v1")], "releases that never served",
    ),
    "died between rename and reload": (
        host(container("v1"), container("v2"), releases=(release("v1"), release("v2", complete=False)), at=edge("v2", "v1")), "v3",
        [RESTORE, "prepare: RemoveContainers remove blog_web_v2", "prepare: Prune prune v2", *new("v3", "blog_web_v1")],
        "a deploy died while switching; v1 answers",
    ),
    "died after the switch, before completing": (
        host(container("v1"), container("v2"), releases=(release("v1"), release("v2", complete=False)), at=edge("v2")), "v3",
        ["prepare: CompleteRelease complete v2", "prepare: Stop stop blog_web_v1", *new("v3", "blog_web_v2")],
        "a deploy died after switching to it",
    ),
    "died before stopping blue, both slots up": (
        host(container("v1"), container("v2"), releases=(release("v1"), release("v2")), at=edge("v2")), "v3",
        ["prepare: Stop stop blog_web_v1", *new("v3", "blog_web_v2")], "a deploy died before stopping them",
    ),
    "a stray migration": (
        host(container("v1"), container("v2", "migrate"), releases=(release("v1"),), at=edge("v1")), "v3",
        ["prepare: RemoveContainers remove blog_migrate_v2", *new("v3", "blog_web_v1")], "left by a deploy that never finished",
    ),
    "the serving release has no manifest": (
        host(container("v1"), at=edge("v1")), "v2",
        [*new("v2", "blog_web_v1")[:-1], "drain: RemoveContainers remove blog_web_v1"], "without a manifest no rollback can go to them",
    ),
    "the manifest of the serving release is damaged": (
        host(container("v1"), at=edge("v1"), problems=("releases/v1.json is damaged and ignored",)), "v2",
        new("v2", "blog_web_v1"), "kept for a rollback",
    ),
    "a manifest is damaged: what it may explain stays, what runs of it is stopped": (
        host(container("v1", running=False), container("v2"), container("v3"), releases=(release("v3"),), at=edge("v3"),
             problems=("releases/v1.json is damaged and ignored",)), "v2",
        ["prepare: Stop stop blog_web_v2", *new("v2.2", "blog_web_v3")], "a deploy died before stopping them",
    ),
    "a manifest is damaged: a release that is known never to have served goes, and a migration": (
        host(container("v1"), container("v2"), container("v3", "migrate"), releases=(release("v1"), release("v2", complete=False)),
             at=edge("v1"), problems=("releases/v0.json is damaged and ignored",)), "v3",
        ["prepare: RemoveContainers remove blog_web_v2, blog_migrate_v3", "prepare: Prune prune v2", *new("v3.2", "blog_web_v1")],
        "releases that never served",
    ),
    "nginx has lost the app's file, blue runs": (
        host(container("v1"), releases=(release("v1"),)), "v2", new("v2", "blog_web_v1", serves=False), "nothing serves",
    ),
    "the edge is stopped": (
        host(container("v1"), releases=(release("v1"),), at=edge("v1", running=False)), "v2",
        ["prepare: StartEdge start the edge", *new("v2", "blog_web_v1")], "the edge nginx is stopped",
    ),
    "the serving container is stopped": (
        host(container("v1", running=False), releases=(release("v1"),), at=edge("v1")), "v2", new("v2", "blog_web_v1"), "green is free",
    ),
    "the serving container is gone": (host(releases=(release("v1"),), at=edge("v1")), "v2", new("v2"), "v1 serves"),
    "the same version, another configuration": (
        host(container("v1"), releases=(replace(release("v1"), config_hash="other"),), at=edge("v1")), "v1",
        new("v1.2", "blog_web_v1", ship=False), "green is free",
    ),
    "the same version, another environment": (
        host(container("v1"), releases=(replace(release("v1"), environment_hash="other"),), at=edge("v1")), "v1",
        new("v1.2", "blog_web_v1", ship=False), "green is free",
    ),
    "the same version, its container stopped": (
        host(container("v1", running=False), releases=(release("v1"),), at=edge("v1")), "v1",
        new("v1.2", "blog_web_v1", ship=False), "green is free",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_a_deploy_does_exactly_this_and_says_why_when(name: str) -> None:
    state, version, expected, word = TABLE[name]
    plan = plan_deploy(ENV, intent(version, NOW), (state,))
    assert (plan.refusals, plan.unchanged) == ((), False)
    assert shape(plan) == expected
    whys = [step.why for phase in plan.phases for step in phase.steps["one"]]
    assert all(whys)
    assert word in whys


def test_the_phases_stand_in_the_order_of_the_switch() -> None:
    state = host(container("v1"), container("v9", "migrate"), releases=(release("v1"), release("v2")), at=edge("v1"))
    env = environment(migrate={"command": ["migrate"]}, keep_releases=2)
    plan = plan_deploy(env, intent("v3", NOW), (state,))
    names = ["prepare", "ship", "migrate", "start", "healthy", "switch", "verify", "drain", "prune"]
    assert [phase.name for phase in plan.phases] == names
    assert [phase.final for phase in plan.phases] == [False] * 7 + [True] * 2


def test_the_version_that_serves_changes_nothing_and_says_so() -> None:
    plan = plan_deploy(ENV, intent("v1", NOW), (BLUE,))
    assert (plan.unchanged, plan.release, plan.phases) == (True, "v1", ())
    assert plan.notes == ("v1 serves already, nothing to do (--force restarts it)",)


def test_force_starts_the_same_version_again_under_a_number() -> None:
    plan = plan_deploy(ENV, intent("v1", NOW, force=True), (BLUE,))
    assert shape(plan) == new("v1.2", "blog_web_v1", ship=False)
    assert plan.slots == {"one": "green"}


LEFT_OVER = {
    "blue never stopped": (
        host(container("v1"), container("v2"), releases=(release("v1"), release("v2")), at=edge("v2")),
        ["prepare: Stop stop blog_web_v1"],
    ),
    "a stray container": (
        host(container("v2"), container("v3"), releases=(release("v2"),), at=edge("v2")),
        ["prepare: RemoveContainers remove blog_web_v3"],
    ),
    "a staged manifest": (
        host(container("v2"), releases=(release("v2"), release("v3", complete=False)), at=edge("v2")),
        ["prepare: Prune prune v3"],
    ),
    "the file of a release that was never switched to": (
        host(container("v2"), container("v3"), releases=(release("v2"), release("v3", complete=False)), at=edge("v3", "v2")),
        [RESTORE, "prepare: RemoveContainers remove blog_web_v3", "prepare: Prune prune v3"],
    ),
}


@pytest.mark.parametrize("name", LEFT_OVER)
def test_the_version_that_serves_is_not_restarted_for_what_a_killed_deploy_left(name: str) -> None:
    state, expected = LEFT_OVER[name]
    plan = plan_deploy(ENV, intent("v2", NOW), (state,))
    assert (plan.unchanged, plan.release, plan.refusals) == (False, "v2", ())
    assert shape(plan) == expected
    assert plan.notes == ("v2 serves already, only what a killed command left is cleaned up (--force restarts it)",)


REFUSED = {
    "the edge is missing": (replace(BLUE, edge=EdgeState()), "one: the edge nginx is missing: run inv server.bootstrap"),
    "the network is missing": (replace(BLUE, subnet=None), "one: the network of the edge is missing: run inv server.bootstrap"),
    "the disk is full": (
        replace(BLUE, disk_free=100 * 1024**2),
        "one: 100 MB of disk are free, 712 MB are needed: inv deploy.prune, or a bigger disk",
    ),
    "the disk of /srv is full": (replace(BLUE, srv_free=63 * 1024**2), "one: 63 MB are free under /srv/tidegate: make room there"),
    "the clock is far off": (replace(BLUE, clock_skew=-400.0), "one: its clock is off by -400 s: set up time synchronisation there"),
    "the domain is another app's": (
        replace(BLUE, edge=replace(edge("v1"), claims={DOMAIN: "shop"})),
        f"one: {DOMAIN} belongs to the app shop there: choose another domain",
    ),
    "the engine is old": (replace(BLUE, api="1.40"), "one: engine API 1.40 is older than 1.41: upgrade the engine"),
    "the engine does not say": (replace(BLUE, api=""), "one: engine API unknown is older than 1.41: upgrade the engine"),
    "the image has other content": (
        replace(BLUE, images={"tidegate/blog:v2": "other"}),
        "one: tidegate/blog:v2 is there but was built from other content: choose another --version",
    ),
    "no address is free": (
        replace(BLUE, subnet="10.213.0.0/27", taken=frozenset(f"10.213.0.{n}" for n in range(10, 16))),
        "no free address in 10.213.0.0/28",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_deploy_is_refused_before_anything_changes_when(name: str) -> None:
    state, expected = REFUSED[name]
    plan = plan_deploy(ENV, intent("v2", NOW, size=100 * 1024**2), (state,))
    assert plan.phases == ()
    assert len(plan.refusals) == 1
    assert plan.refusals[0].startswith(expected)


def test_all_refusals_of_all_servers_are_told_at_once() -> None:
    bad = replace(BLUE, api="1.30", clock_skew=999.0)
    plan = plan_deploy(ENV, intent("v2", NOW), (bad, replace(bad, host="two")))
    assert [line.partition(":")[0] for line in plan.refusals] == ["one", "one", "two", "two"]


def test_an_api_of_two_digits_is_newer_than_one_of_a_smaller_number() -> None:
    assert plan_deploy(ENV, intent("v2", NOW), (replace(BLUE, api="1.100"),)).refusals == ()


def test_an_image_that_is_there_needs_no_room() -> None:
    tight = replace(BLUE, disk_free=600 * 1024**2, images={"tidegate/blog:v2": "content-of-v2"})
    plan = plan_deploy(ENV, intent("v2", NOW, size=10**12), (tight,))
    assert plan.refusals == ()
    assert "ship" not in [phase.name for phase in plan.phases]


def test_a_pulled_image_is_pulled_although_its_content_is_unknown() -> None:
    plan = plan_deploy(ENV, intent("v2", NOW, pull=True), (BLUE,))
    assert shape(plan)[0] == "ship: Ship pull tidegate/blog:v2"


def test_what_a_person_should_know_is_noted() -> None:
    odd = replace(BLUE, containers=(container("v1", running=False),), clock_skew=7.5, unfinished="deploy of v2 by ann at noon",
                  problems=("releases/x.json is damaged",), releases=(replace(release("v1"), config_hash="x", environment_hash="y"),))  # fmt: skip
    assert plan_deploy(ENV, intent("v2", NOW), (odd,)).notes == (
        "one: releases/x.json is damaged",
        "one: its clock is off by +7.5 s",
        "one: deploy of v2 by ann at noon never finished; what it left is cleaned up first",
        "one: v1 should serve but does not run",
        "one: the configuration has changed since v1",
        "one: the environment has changed since v1",
    )


def test_two_servers_that_drifted_both_get_the_new_release_each_in_its_free_slot() -> None:
    plan = plan_deploy(ENV, intent("v3", NOW), (BLUE, replace(GREEN, host="two")))
    assert shape(plan, "one") == new("v3", "blog_web_v1")
    assert shape(plan, "two") == new("v3", "blog_web_v2")
    assert plan.slots == {"one": "green", "two": "blue"}
    assert plan.previous == {"one": "v1", "two": "v2"}
    assert plan.notes == ("the servers do not serve the same release now; after this they will",)


def test_a_release_has_one_id_on_all_servers_even_if_one_of_them_knew_it() -> None:
    plan = plan_deploy(ENV, intent("v2", NOW), (BLUE, replace(GREEN, host="two")))
    assert plan.release == "v2.2"


def test_migrations_run_once_per_deploy_or_on_each_server() -> None:
    hosts = (BLUE, replace(BLUE, host="two"))
    for on, expected in (("first", {"one": 1, "two": 0}), ("each", {"one": 1, "two": 1})):
        env = environment("one", "two", migrate={"command": ["blog", "migrate"], "on": on})
        (phase,) = [phase for phase in plan_deploy(env, intent("v2", NOW), hosts).phases if phase.name == "migrate"]
        assert {name: len(steps) for name, steps in phase.steps.items()} == expected


def test_prune_cleans_up_and_keeps_what_serves_and_its_rollback() -> None:
    old = tuple(release(id) for id in ("v1", "v2", "v3"))
    state = host(container("v1", running=False), container("v2", running=False), container("v3"), container("v9", "migrate"),
                 releases=old, at=edge("v3"))  # fmt: skip
    plan = plan_prune(environment(keep_releases=2), (state,))
    assert shape(plan) == ["prepare: RemoveContainers remove blog_migrate_v9", "prune: Prune prune v1"]
    (prune,) = plan.phases[1].steps["one"]
    assert (prune.containers, prune.images, prune.why) == (("blog_web_v1",), ("tidegate/blog:v1",), "keep_releases = 2")  # type: ignore[attr-defined]
