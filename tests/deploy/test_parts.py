"""What a release is made of on a server, and what is pruned."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from deploy import parts
from deploy.edge import read_head
from deploy.model import ProcessSpec, Release
from deploy.steps import Prune
from ops.config import Environment
from ops.secret import Secret
from tests.fakes import World, deploy, environment, intent, prune, rollback, states

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ENV = environment(
    command=["serve", "--x", "$(id) ü"], memory="512m", volumes={"data": "/app/data"}, drain={"grace": "7s"},
    processes={"worker": {"command": ["work"], "steady": "2s"}}, migrate={"command": ["migrate"], "timeout": "1m"},
)  # fmt: skip


def made(env: Environment = ENV) -> tuple[Release, tuple[ProcessSpec, ...]]:
    wanted = intent("v1", NOW, values={"TITLE": "a 'b' \"c\"\n$(id)"})
    (state,) = states(World())
    release = parts.draft(env, wanted, state, "v1")
    return release, parts.process_specs(env.app, wanted, release)


def test_a_release_has_a_container_for_each_process_all_with_its_labels_and_environment() -> None:
    release, (web, worker) = made()
    assert release.processes == ("web", "worker")
    assert (web.name, worker.name) == ("blog_web_v1", "blog_worker_v1")
    assert (web.command, worker.command) == (("serve", "--x", "$(id) ü"), ("work",))
    assert (web.address, worker.address) == (release.address, None)
    assert (web.healthcheck, worker.healthcheck) == (True, False)
    for spec in (web, worker):
        assert (spec.memory, spec.stop_seconds, spec.volumes) == ("512m", 7.0, {"blog_data": "/app/data"})
        assert spec.environment["TITLE"] == "a 'b' \"c\"\n$(id)"
        about = {"TIDEGATE_RELEASE": "v1", "TIDEGATE_SLOT": "blue", "TIDEGATE_PROCESS": spec.process}
        assert about.items() <= spec.environment.items()
        assert spec.labels == {
            "dev.tidegate.managed": "true", "dev.tidegate.app": "blog", "dev.tidegate.release": "v1", "dev.tidegate.slot": "blue",
            "dev.tidegate.process": spec.process, "dev.tidegate.version": "v1",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("metrics", "told"),
    [({}, "3000/metrics"), ({"port": 9000, "path": "/figures"}, "9000/figures"), ({"public": True}, "3000/metrics")],
)
def test_the_web_container_says_where_its_figures_are_and_no_other_does(metrics: dict[str, Any], told: str) -> None:
    env = environment(metrics=metrics, processes={"worker": {"command": ["work"]}}, migrate={"command": ["migrate"]})
    release, (web, worker) = made(env)
    (migration,) = parts.migrate(env.app, intent("v1", NOW), release, first=True)
    assert web.labels["dev.tidegate.metrics"] == told
    for spec in (worker, migration.spec):  # type: ignore[attr-defined]
        assert "dev.tidegate.metrics" not in spec.labels


@pytest.mark.parametrize(
    ("metrics", "hidden"), [(None, False), ({}, True), ({"path": "/figures"}, True), ({"public": True}, False)]
)
def test_figures_are_hidden_from_users_unless_they_are_public(metrics: dict[str, Any] | None, hidden: bool) -> None:
    release, _ = made(environment(metrics=metrics))
    path = (metrics or {}).get("path", "/metrics")
    assert (f'location ~* "^{path}/*$" {{ return 404; }}' in release.edge_file) == hidden


def test_the_migration_runs_the_new_image_with_the_new_environment() -> None:
    release, (web, _) = made()
    (step,) = parts.migrate(ENV.app, intent("v1", NOW, values={"A": "b"}), release, first=True)
    spec = step.spec  # type: ignore[attr-defined]
    assert (spec.image, spec.command, spec.environment["A"], spec.address) == (web.image, ("migrate",), "b", None)
    assert step.timeout == 60.0  # type: ignore[attr-defined]


def test_the_nginx_file_of_a_release_names_it_and_its_address() -> None:
    release, _ = made()
    assert (read_head(release.edge_file)["release"], read_head(release.edge_file)["generation"]) == ("v1", release.generation)
    assert f"server {release.address}:3000;" in release.edge_file


def test_an_address_that_nginx_or_a_manifest_still_names_is_not_given_to_another_release() -> None:
    world = World()
    deploy(world, ENV, "v1")
    world.only.boxes.clear()
    (state,) = states(world)
    assert state.taken == frozenset()
    old = state.releases[0].address
    assert parts.draft(ENV, intent("v2", NOW), state, "v2").address != old
    assert parts.draft(ENV, intent("v2", NOW), replace(state, releases=()), "v2").address != old
    assert parts.draft(ENV, intent("v2", NOW), replace(state, edge=replace(state.edge, content=None)), "v2").address != old


def test_every_deploy_has_a_generation_of_its_own_even_of_the_same_version() -> None:
    world = World()
    deploy(world, ENV, "v1")
    deploy(world, ENV, "v1", force=True)
    (state,) = states(world)
    assert len({one.generation for one in state.releases}) == 2


def test_no_manifest_holds_a_value_of_the_environment() -> None:
    wanted = replace(intent("v1", NOW, values={"KEY": "hunter2"}), environment_hash="0123")
    (state,) = states(World())
    release = parts.draft(ENV, wanted, state, "v1")
    assert "hunter2" not in release.to_json()
    hidden = replace(wanted, environment={"KEY": Secret("hunter2")})
    assert "hunter2" not in repr((hidden, parts.process_specs(ENV.app, hidden, release)))


@pytest.mark.parametrize("keep", [2, 3, 5])
def test_after_many_deploys_only_the_newest_are_kept_with_what_they_need(keep: int) -> None:
    world, env = World(), environment(keep_releases=keep)
    for number in range(1, 9):
        deploy(world, env, f"v{number}")
    newest = [f"v{number}" for number in range(9 - keep, 9)]
    machine = world.only
    assert sorted(machine.manifests) == [f"{id}.json" for id in newest]
    assert sorted(machine.boxes) == [f"blog_web_{id}" for id in newest]
    assert sorted(machine.images) == [f"tidegate/blog:{id}" for id in newest]


def test_what_serves_is_kept_however_old_it_is() -> None:
    world, env = World(), environment(keep_releases=3)
    for version in ("v1", "v2", "v3"):
        deploy(world, env, version)
    rollback(world, env, to="v1")
    prune(world, environment(keep_releases=2))
    assert world.only.serves() == "v1"
    assert "v1.json" in world.only.manifests
    assert "tidegate/blog:v1" in world.only.images


def test_an_image_that_a_kept_release_shares_with_a_pruned_one_stays() -> None:
    world, env = World(), environment(keep_releases=2)
    for _ in range(4):
        deploy(world, env, "v1", force=True)
    assert sorted(world.only.manifests) == ["v1.3.json", "v1.4.json"]
    assert "tidegate/blog:v1" in world.only.images


def test_nothing_to_prune_is_no_step() -> None:
    world = World()
    deploy(world, ENV, "v1")
    (state,) = states(world)
    assert [step for step in parts.prune(ENV.app, state, None) if isinstance(step, Prune)] == []
