"""An upgrade as a server's stack sees it, and what a wish of the one who upgrades leads to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from monitoring import images, upgrading
from monitoring.check import Problem
from monitoring.hosts import Host
from monitoring.images import Image
from monitoring.inventory import Inventory, inventory
from monitoring.server import Server
from monitoring.upgrading import HostStack, Wish, show, upgrade_of
from ops import link as links
from ops.config import Environment
from ops.console import Console
from ops.errors import Refused
from ops.link import Link
from tests import an_engine
from tests.local_ssh import HOST, environment
from tests.monitoring.a_stack import stack, target, targets
from tests.monitoring.on_engine import container, install_forwarding_ssh
from tests.monitoring.test_upgrade import DeadError, FakeStack
from tests.monitoring.test_upgrade import Server as Upgraded


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[an_engine.Engine]:
    with an_engine.engine(tmp_path) as found:
        monkeypatch.setattr(links, "ENGINE_SOCKET", str(found.socket_path))
        yield found


@pytest.fixture
def link(engine: an_engine.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    install_forwarding_ssh(tmp_path, monkeypatch)
    found = Link(environment(tmp_path), HOST)
    found.hello()
    yield found
    found.close()


@pytest.fixture
def env(tmp_path: Path) -> Environment:
    """An environment whose patience is short."""
    known = environment(tmp_path)
    return known.model_copy(update={"monitoring": known.monitoring.model_copy(update={"timeout": 0.0})})


@pytest.fixture
def known(env: Environment) -> Inventory:
    return inventory(env)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def one(link: Link, env: Environment, known: Inventory, said: list[str]) -> HostStack:
    host = Host(known.watcher, Server(link), images={"grafana": "grafana/grafana:12", "node": "prom/node-exporter:v1"})
    return HostStack(host, env, known, link, said.append)


def test_the_note_of_an_upgrade_lies_on_the_server(one: HostStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrading, "UPGRADE_NOTE", str(tmp_path / "upgrade.json"))
    assert one.note() == ""
    one.write_note("begun")
    assert one.note() == "begun"
    one.write_note("")
    assert not (tmp_path / "upgrade.json").exists()


def test_only_services_with_data_of_their_own_that_run_there_are_copied(one: HostStack) -> None:
    assert [one.keeps_data(name) for name in ("grafana", "alertmanager", "node")] == [True, False, False]


def test_an_image_that_is_there_is_not_brought(one: HostStack, engine: an_engine.Engine, said: list[str]) -> None:
    engine.answers["GET /images/grafana/grafana:13/json"] = {"Id": "g"}
    one.bring("grafana/grafana:13")
    assert said == []


def test_of_what_programs_have_against_files_that_counts_which_is_to_change(
    one: HostStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def check(engine: Any, files: Any, lock: images.Lock) -> list[Problem]:
        asked.append(lock["grafana"])
        return [Problem("grafana", "t", ok=False, said="no such option"), Problem("loki", "t", ok=False, said="old trouble"),
                Problem("grafana", "t", ok=None, said="not asked")]  # fmt: skip

    monkeypatch.setattr(upgrading, "check_files", check)
    assert one.check({"grafana": "grafana/grafana:13"}) == ["grafana: no such option"]
    assert asked == [Image("grafana/grafana", "13")]


def test_services_that_run_are_stopped_and_the_others_are_fine(one: HostStack, engine: an_engine.Engine) -> None:
    engine.answers |= {
        "GET /containers/json": [container("grafana"), container("node", "exited")], "POST /containers/grafana-id/stop": b"",
    }  # fmt: skip
    one.stop(["grafana", "node", "loki"])
    assert [what for what in engine.asked if what.startswith("POST")] == ["POST /containers/grafana-id/stop"]


def test_it_is_healthy_when_all_that_is_watched_there_answers(
    one: HostStack, engine: an_engine.Engine, known: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.answers["GET /containers/json"] = []
    with stack(monkeypatch) as pages:
        name = known.watcher.name
        found = [target(job, name) for job in known.watcher.jobs]
        pages.answers["/api/v1/targets"] = targets(*found)
        assert one.healthy() == ""
        pages.answers["/api/v1/targets"] = targets(
            *found[1:], target(found[0]["labels"]["job"], name, error="connection refused")
        )
        assert one.healthy().startswith("not everything that is watched answers: ")
        assert "connection refused" in one.healthy()


def test_whose_words_they_are_is_said(one: HostStack, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrading, "compose_up", lambda host, env, known, say, only: say("x", f"{only} started"))
    one.start({"node": "prom/node-exporter:v2"})
    assert said == [f"{one.name}: ['node'] started"]


@pytest.fixture
def upgraded(monkeypatch: pytest.MonkeyPatch, env: Environment, known: Inventory) -> Upgraded:
    """A server that the stack of an environment runs on, whose lock file names newer images."""
    server = Upgraded()
    host = Host(known.watcher, Placed())
    monkeypatch.setattr(upgrading, "at_work", lambda *_: nullcontext([host]))
    monkeypatch.setattr(upgrading, "decide", lambda *_: None)
    monkeypatch.setattr(upgrading, "HostStack", lambda *_: FakeStack(server))
    monkeypatch.setattr(images, "load", lambda: {"grafana": Image("graf", "2", "sha256:" + "1" * 64)})
    return server


class Placed(Server):
    """A server with all its files."""

    def __init__(self) -> None:
        self.name = "one"
        self.link = None  # type: ignore[assignment]

    def differs(self, files: Any) -> bool:
        return False


def die(server: Upgraded, monkeypatch: pytest.MonkeyPatch, env: Environment) -> None:
    """Have an upgrade die once it has stopped what changes."""
    monkeypatch.setattr(upgrading, "HostStack", lambda *_: FakeStack(server, 8))
    with pytest.raises(DeadError):
        wished(env, Wish())
    assert server.told
    monkeypatch.setattr(upgrading, "HostStack", lambda *_: FakeStack(server))


def wished(env: Environment, wish: Wish) -> str:
    return upgrade_of(env, {}, wish, lambda planned: True, lambda what: None)


def test_an_upgrade_that_never_finished_is_gone_on_with_and_then_there_is_nothing_more_to_do(
    upgraded: Upgraded, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(upgraded, monkeypatch, env)
    assert wished(env, Wish(go_on=True)) == "unchanged"
    assert (upgraded.runs["grafana"], upgraded.told) == ("g2", "")


def test_or_it_is_put_back_and_stays_so(upgraded: Upgraded, env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    die(upgraded, monkeypatch, env)
    assert wished(env, Wish(put_back=True)) == "put back"
    assert (upgraded.runs["grafana"], upgraded.told) == ("g1", "")


@pytest.mark.parametrize("wish", [Wish(go_on=True), Wish(put_back=True)])
def test_where_none_is_unfinished_there_is_nothing_to_end(upgraded: Upgraded, env: Environment, wish: Wish) -> None:
    with pytest.raises(Refused, match="no upgrade is unfinished"):
        wished(env, wish)


@pytest.mark.parametrize(("refresh", "written"), [(False, 0), (True, 1)])
def test_the_lock_file_changes_where_digests_were_asked_for_and_run(
    upgraded: Upgraded, env: Environment, monkeypatch: pytest.MonkeyPatch, refresh: bool, written: int
) -> None:
    locks: list[images.Lock] = []
    monkeypatch.setattr(images, "write", locks.append)
    if refresh:
        monkeypatch.setattr(images, "load", lambda: {"grafana": Image("graf", "2", "sha256:" + "0" * 64)})
    monkeypatch.setattr(images, "registry_digest", lambda name: "sha256:" + "1" * 64)
    assert wished(env, Wish(refresh=refresh)) == "upgraded"
    assert (upgraded.runs["grafana"], len(locks)) == ("g2", written)


def test_what_changes_is_shown_by_server_and_service(
    capsys: pytest.CaptureFixture[str], upgraded: Upgraded, env: Environment
) -> None:
    def agree(planned: Any) -> bool:
        show(Console(), planned)
        return False

    assert upgrade_of(env, {}, Wish(), agree, lambda what: None) == "declined"
    words = capsys.readouterr().out.split()
    assert words[-4:] == ["server", "grafana", "graf:1", "graf:2"]
