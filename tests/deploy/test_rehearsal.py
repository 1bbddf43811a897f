"""What a deploy would run is brought to servers, and nothing of it runs."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest

from deploy import rehearsal
from deploy.intent import Options
from deploy.session import Session
from ops.errors import Refused
from tests.fakes import Quiet, World, environment

MIGRATES = {"image": "registry.example/blog", "migrate": {"command": ["migrate", "--all"], "timeout": 30}}


class Reporter(Quiet):
    """Says nothing, of builds and bytes neither."""

    def build(self, line: str) -> None:
        pass

    def bytes(self, server: str, done: int, total: int) -> None:
        pass


def bring(world: World, monkeypatch: pytest.MonkeyPatch, version: str | None, **app: Any) -> rehearsal.Next:
    servers = world.connect()
    monkeypatch.setattr(rehearsal, "Work", lambda *_, **__: nullcontext(SimpleNamespace(servers=servers)))
    session = cast("Session", SimpleNamespace(env=environment(*servers, **app)))
    return rehearsal.bring(session, Options(version=version), {}, Reporter())


def test_every_server_has_the_next_versions_image_and_is_otherwise_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World("one", "two")
    ahead = bring(world, monkeypatch, "v2", environment={"MODE": "live"}, **MIGRATES)
    assert (ahead.image, ahead.version) == ("registry.example/blog:v2", "v2")
    assert (ahead.command, ahead.timeout, dict(ahead.environment)) == (("migrate", "--all"), 30.0, {"MODE": "live"})
    for machine in world.machines.values():
        assert machine.pulled == {"registry.example/blog:v2"}
        assert (machine.boxes, machine.records(), machine.lock) == ({}, [], None)


def test_an_app_without_a_migration_has_nothing_to_rehearse(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="there is no migration to rehearse") as caught:
        bring(World("one"), monkeypatch, "v2", image="registry.example/blog")
    assert caught.value.fix == "app.migrate in ops.toml"


def test_of_an_image_from_a_registry_it_has_to_be_said_which(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="say which version to deploy"):
        bring(World("one"), monkeypatch, None, **MIGRATES)
