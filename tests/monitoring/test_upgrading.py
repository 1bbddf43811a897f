"""`inv monitoring.upgrade`: what it says that it did, and when it changes the lock file and when nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from monitoring import images, upgrading
from monitoring.files import File
from monitoring.hosts import Host
from monitoring.images import Image, Lock
from monitoring.inventory import inventory
from monitoring.server import Server
from monitoring.upgrading import RESULTS, HostStack, _forward, _require_placed
from ops.errors import Failed, Refused
from tests.monitoring.test_upgrade import LOCK, FakeStack
from tests.monitoring.test_upgrade import Server as Upgraded
from tests.monitoring.watched import environment

SAME: Lock = {"loki": Image("loki", "1")}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Lock]:
    """What the lock file was given."""
    found: list[Lock] = []
    monkeypatch.setattr(images, "write", found.append)
    return found


def forward(lock: Lock, *, agree: bool, broken: frozenset[str] = frozenset()) -> str:
    stacks = [FakeStack(Upgraded(), broken=broken)]
    return _forward(cast("Sequence[HostStack]", stacks), lock, lambda planned: agree, lambda what: None)


@pytest.mark.parametrize(
    ("lock", "agree", "done"), [(LOCK, True, "upgraded"), (SAME, True, "unchanged"), (SAME, False, "unchanged")]
)
def test_what_was_done_is_said_and_the_lock_file_is_what_runs(written: list[Lock], lock: Lock, done: str, *, agree: bool) -> None:
    assert forward(lock, agree=agree) == done
    assert done in RESULTS
    assert written == [lock]


def test_what_nobody_agreed_to_is_in_no_lock_file(written: list[Lock]) -> None:
    assert (forward(LOCK, agree=False), written) == ("declined", [])


def test_nor_is_what_did_not_become_healthy(written: list[Lock]) -> None:
    with pytest.raises(Failed, match="the old images are back"):
        forward(LOCK, agree=True, broken=frozenset({"g2"}))
    assert written == []


class Placed(Server):
    """A server whose files are what `up` placed, or are not."""

    def __init__(self, *, differs: bool) -> None:
        self.name = "one"
        self.link = type("Line", (), {"environment": "production"})()
        self._differs = differs

    def differs(self, files: Sequence[File]) -> bool:
        return self._differs


def test_an_upgrade_changes_images_and_nothing_else() -> None:
    known = inventory(environment())
    _require_placed(Host(known.watcher, Placed(differs=False)))
    with pytest.raises(Refused, match="has changed since the last up") as caught:
        _require_placed(Host(known.watcher, Placed(differs=True)))
    assert caught.value.fix.startswith("inv monitoring.up -e production")


def test_only_services_that_change_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    env = environment()
    known = inventory(env)
    started: list[tuple[Any, ...]] = []
    monkeypatch.setattr(upgrading, "compose_up", lambda host, *rest: started.append((dict(host.images), rest[-1])))
    server = Placed(differs=False)
    server.__dict__["engine"] = None
    stack = HostStack(Host(known.watcher, server, images={"node": "n:1", "loki": "l:1"}), env, known, server.link, lambda _: None)
    stack.start({"node": "n:2"})
    assert started == [({"node": "n:2", "loki": "l:1"}, ["node"])]
