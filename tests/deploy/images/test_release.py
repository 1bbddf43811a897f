"""The bill of materials of an image that was scanned goes with its releases, and never outlives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.images import bills
from deploy.intent import Options, make_intent
from ops.config import load
from ops.errors import Failed
from tests.fakes import Killed, Quiet, World, deploy, environment, fails_in, killed_at, prune, rollback

CONFIGURATION = """
[app]
name = "shop"
image = "registry.example.com/shop"
port = 3000
[environments.production]
domain = "shop.example.com"
hosts = ["deploy@203.0.113.10"]
"""
ENV = environment(keep_releases=2)


def served(*versions: str) -> World:
    world = World("one")
    for version in versions:
        deploy(world, ENV, version, bill=f"bill of {version}")
    return world


def kept(world: World) -> set[str]:
    return {name.rpartition(".")[0] for name in world.only.manifests}


def test_kept_releases_keep_theirs_and_pruned_ones_lose_them() -> None:
    world = served("v1", "v2", "v3")
    assert world.only.bills == {"v2": "bill of v2", "v3": "bill of v3"}


def test_a_rollback_and_the_deploy_after_it_keep_them() -> None:
    world = served("v1", "v2")
    rollback(world, ENV)
    assert world.only.bills == {"v1": "bill of v1", "v2": "bill of v2"}
    deploy(world, ENV, "v3", bill="bill of v3")
    prune(world, ENV)
    assert set(world.only.bills) == kept(world)


def test_a_release_whose_image_was_never_scanned_has_none() -> None:
    world = served("v1")
    deploy(world, ENV, "v2")
    assert world.only.bills == {"v1": "bill of v1"}


def test_a_deploy_that_is_undone_takes_it_away() -> None:
    world = served("v1")
    with pytest.raises(Failed):
        deploy(world, ENV, "v2", bill="bill of v2", fault=fails_in("probe_report"))
    assert set(world.only.bills) == {"v1"}


def test_after_a_kill_at_any_point_the_next_deploy_leaves_only_those_of_its_releases() -> None:
    whole = served("v1")
    deploy(whole, ENV, "v2", bill="bill of v2")
    for number in range(len(whole.ticks)):
        world = served("v1")
        with pytest.raises(Killed):
            deploy(world, ENV, "v2", bill="bill of v2", fault=killed_at(number))
        world.fault = None
        deploy(world, ENV, "v3", bill="bill of v3")
        assert set(world.only.bills) <= kept(world), number
        assert world.only.bills["v3"] == "bill of v3", number


def test_of_an_image_that_was_not_built_here_no_bill_is_known(tmp_path: Path) -> None:
    (tmp_path / "ops.toml").write_text(CONFIGURATION)
    env = load(tmp_path / "ops.toml", {}).environment("production")
    bills.keep(tmp_path, "sha256:other", "another's")
    assert make_intent(env, Options(version="1.4.0"), {}, Reporting()).bill == ""


class Reporting(Quiet):
    """A reporter that shows no build."""

    def build(self, line: str) -> None:
        """Say nothing."""

    def bytes(self, server: str, done: int, total: int) -> None:
        """Say nothing."""
