"""What must not be touched is not: another environment's app, a silent nginx, data in a volume nobody named, damaged manifests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from deploy.plan import Plan, plan_deploy, plan_prune, plan_rollback
from deploy.steps import Prune
from ops.config import Environment
from tests.fakes import Machine, World, deploy, environment, intent, prune, rollback, states

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ENV = environment()
STAGING = ENV.model_copy(update={"name": "staging", "domains": ("staging.example.com",)})

PLANS: dict[str, Callable[[Environment, World], Plan]] = {
    "deploy": lambda env, world: plan_deploy(env, intent("v3", NOW), states(world)),
    "deploy of what serves": lambda env, world: plan_deploy(env, intent("v2", NOW), states(world)),
    "rollback": lambda env, world: plan_rollback(env, states(world), None),
    "prune": lambda env, world: plan_prune(env, states(world)),
}
each_command = pytest.mark.parametrize("command", PLANS)


def served() -> World:
    """Return a server of production with a release that serves and one that is kept."""
    world = World()
    for version in ("v1", "v2"):
        deploy(world, ENV, version)
    return world


def lose_the_nginx_file(machine: Machine) -> None:
    machine.edge_files.clear()
    machine.restart_edge()


def lose_the_manifests(machine: Machine) -> None:
    machine.manifests.clear()


@each_command
@pytest.mark.parametrize("accident", [lambda machine: None, lose_the_nginx_file, lose_the_manifests])
def test_an_environment_does_not_touch_the_same_app_of_another_one(command: str, accident: Callable[[Machine], None]) -> None:
    world = served()
    accident(world.only)
    plan = PLANS[command](STAGING, world)
    assert plan.refusals == (
        "one: blog serves there for environment production: give this one its own app.name in [environments.staging.app]",
    )
    assert plan.phases == ()


@each_command
def test_an_environment_may_do_all_to_its_own_app(command: str) -> None:
    assert PLANS[command](ENV, served()).refusals == ()


def test_two_environments_with_app_names_of_their_own_share_a_server() -> None:
    state = states(served())[0]
    own = STAGING.model_copy(update={"app": STAGING.app.model_copy(update={"name": "blog-staging"})})
    elsewhere = replace(state, containers=(), releases=(), edge=replace(state.edge, content=None, release=None, environment=None))
    assert plan_deploy(own, intent("v1", NOW), (elsewhere,)).refusals == ()


@each_command
def test_nothing_is_decided_while_nginx_runs_and_does_not_answer(command: str) -> None:
    world = served()
    world.only.nginx_is_slow = True
    plan = PLANS[command](ENV, world)
    assert plan.refusals == (
        "one: the edge nginx runs but does not answer: look at `docker logs tidegate-edge`, or inv server.bootstrap",
    )
    assert plan.phases == ()


def test_a_stopped_nginx_and_one_that_has_no_file_of_the_app_may_be_silent() -> None:
    stopped = served()
    stopped.only.stop_edge()
    deploy(stopped, ENV, "v3")
    new = World()
    new.only.nginx_is_slow = True
    assert plan_deploy(ENV, intent("v1", NOW), states(new)).refusals == ()


def test_an_image_with_a_volume_of_its_own_is_refused_unless_the_app_mounts_it() -> None:
    wanted = intent("v1", NOW)
    wanted = replace(wanted, image=replace(wanted.image, volumes=("/app/data/", "/cache")))
    state = states(World())
    assert plan_deploy(ENV, wanted, state).refusals == tuple(
        f"tidegate/blog:v1: it declares the volume {path}, which would be new and empty in every release: "
        f'add a name for it to app.volumes in ops.toml: NAME = "{path}"'
        for path in ("/app/data/", "/cache")
    )
    assert plan_deploy(environment(volumes={"data": "/app/data", "cache": "/cache"}), wanted, state).refusals == ()
    assert len(plan_deploy(environment(volumes={"data": "/app"}), wanted, state).refusals) == 2


def damaged() -> World:
    """Return a server on which the manifest of the release to roll back to, with a certificate, cannot be read."""
    world = served()
    world.only.manifests["v1.json"] = "{"
    return world


def test_a_damaged_manifest_costs_neither_containers_nor_images_nor_the_way_back() -> None:
    world = damaged()
    good = served().only.manifests["v1.json"]
    deploy(world, environment(keep_releases=2), "v3")
    prune(world, environment(keep_releases=2))
    assert "blog_web_v1" in world.only.boxes
    assert "tidegate/blog:v1" in world.only.images
    world.only.manifests["v1.json"] = good
    rollback(world, ENV, to="v1")
    assert world.only.serves() == "v1"


@each_command
def test_what_a_damaged_manifest_may_explain_is_told(command: str) -> None:
    notes = PLANS[command](ENV, damaged()).notes
    assert notes[0].startswith("one: releases/v1.json is damaged and ignored")
    assert notes[1] == "one: kept until that manifest is mended or removed: blog_web_v1"


def test_the_release_whose_damaged_manifest_serves_is_stopped_and_kept() -> None:
    world = served()
    world.only.manifests["v2.json"] = "{"
    deploy(world, ENV, "v3")
    assert {"blog_web_v2", "blog_web_v1"} <= set(world.only.boxes)
    assert (world.only.serves(), world.only.running()) == ("v3", {"v3"})


def test_without_damage_containers_of_unknown_releases_are_removed_as_ever() -> None:
    world = served()
    del world.only.manifests["v1.json"]
    deploy(world, ENV, "v3")
    assert "blog_web_v1" not in world.only.boxes


def test_once_the_damaged_manifest_is_gone_so_is_what_it_kept() -> None:
    world = damaged()
    del world.only.manifests["v1.json"]
    plan = prune(world, ENV)
    assert "blog_web_v1" not in world.only.boxes
    assert any(
        isinstance(step, Prune) and "tidegate/blog:v1" in step.images for phase in plan.phases for step in phase.steps["one"]
    )
