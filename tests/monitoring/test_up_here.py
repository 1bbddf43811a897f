"""A stack brought up, up again and taken down on a server that is this machine; Compose is told, and a test does what it would."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from monitoring import checking, hosts, publishing, server, up
from monitoring.files import OWNER, PROJECT, File
from monitoring.images import load
from monitoring.inventory import inventory
from monitoring.server import COMPOSE
from ops.compose import Compose
from ops.config import Environment, Monitoring
from ops.errors import Failed, Locked, Refused
from ops.link import Link
from ops.names import EDGE, NETWORK
from tests.deploy import a_server
from tests.deploy.a_server import Here
from tests.monitoring.a_stack import Stack, stack

NOTHING = json.dumps({"status": "success", "data": {"resultType": "vector", "result": []}})
SILENT = json.dumps(
    {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {"host": "one"}, "value": [0, "0"]}]}}
)


class Composed:
    """What Compose was told, and what it does to the engine."""

    def __init__(self, here: Here) -> None:
        self.here = here
        self.told: list[tuple[str, ...]] = []
        self.fails = ""

    def follow(self, compose: Compose, *words: str, document: Any, say: Callable[[str], None]) -> tuple[int, str]:
        self.told.append(words)
        if self.fails:
            return 1, self.fails
        if words[0] == "down":
            for name in [name for name in self.here.engine.boxes if name.startswith(PROJECT)]:
                del self.here.engine.boxes[name]
            return 0, "done"
        for service, one in document["services"].items():
            say(f"Container {PROJECT}-{service}-1 Started")
            labels = {f"{COMPOSE}.project": PROJECT, f"{COMPOSE}.service": service}
            if f"{PROJECT}-{service}-1" not in self.here.engine.boxes:
                self.here.engine.add(f"{PROJECT}-{service}-1", image=one.get("image", service), Labels=labels)
        say(f"Container {PROJECT}-gate-1 Created")
        return 0, "done"


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    with stack(monkeypatch) as found:
        found.answers["/api/v1/query"] = NOTHING
        yield found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: Stack) -> Iterator[Here]:
    described, me = server._described, os.getuid()

    def mine(file: File) -> Mapping[str, Any]:
        return {**described(file), "owner": me}

    monkeypatch.setattr(server, "_described", mine)  # to give files away takes root
    monkeypatch.setattr(server.Server, "own", lambda self, volumes: None)
    monkeypatch.setattr(up, "await_targets", lambda *wanted: 12)
    monkeypatch.setattr(hosts, "_ports", lambda known, host: [])
    with a_server.server(tmp_path, monkeypatch) as found:
        for name, value in (
            ("FOLDER", found.home / "monitoring"),
            ("HOME", found.home),
            ("ENGINE_SOCKET", found.engine.socket_path),
        ):
            monkeypatch.setattr(server, name, str(value))
        for module in (hosts, up):
            monkeypatch.setattr(module, "UPGRADE_NOTE", str(found.home / "upgrade.json"))
        monkeypatch.setattr(publishing, "EDGE_HOME", str(found.home / "edge"))
        monkeypatch.setattr(publishing, "_LIVE", str(found.home / "edge/apps/grafana.conf"))
        found.env = found.env.model_copy(update={"monitoring": Monitoring(without=("cadvisor",))})
        yield found


@pytest.fixture
def composed(here: Here, monkeypatch: pytest.MonkeyPatch) -> Composed:
    found = Composed(here)
    monkeypatch.setattr(Compose, "follow", lambda compose, *words, **named: found.follow(compose, *words, **named))
    return found


def come_up(env: Environment) -> tuple[up.Done, list[str]]:
    """Return what came of it, and what was said."""
    said: list[str] = []
    return up.up(env, {}, lambda server, what: said.append(what)), said


def test_a_bare_server_gets_images_files_and_containers_and_a_password_once(here: Here, composed: Composed) -> None:
    done, said = come_up(here.env)
    assert (done.environment, done.targets) == ("test", 12)
    assert done.password is not None
    assert set(done.services["deploy@server.invalid"]) == {
        name.removeprefix(f"{PROJECT}-").removesuffix("-1") for name in here.engine.boxes
    } - {EDGE}
    assert f"pulling {load()['prometheus'].name}" in said
    assert "checking the configuration in its images" in said
    assert "prometheus Started" in said
    assert not [what for what in said if what.endswith("Created")]
    owner = json.loads((here.home / "monitoring" / OWNER).read_text())
    assert owner == {"app": "blog", "environment": "test"}
    assert any("nobody is told of alerts" in remark for remark in done.remarks)
    assert any("left out: cadvisor" in remark for remark in done.remarks)
    again, said = come_up(here.env)
    assert again.password is None
    assert not [what for what in said if what.startswith("pulling")]


def test_services_read_their_changed_files_anew_or_start_anew_where_they_cannot(
    here: Here, composed: Composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    reloaded: list[str] = []
    monkeypatch.setattr(up, "reload", lambda link, name, signal: reloaded.append(name))
    come_up(here.env)
    for path in ("prometheus/prometheus.yml", "blackbox/blackbox.yml", "loki/loki.yaml"):
        file = here.home / "monitoring" / path
        file.write_text(file.read_text() + "\n")
    _, said = come_up(here.env)
    assert reloaded == ["prometheus"]
    assert [what for what in said if "anew" in what] == [
        "loki starts anew with its changed files",
        "blackbox reads its files anew",
        "prometheus reads its files anew",
    ]
    assert f"POST /containers/id-{PROJECT}-blackbox-1/kill" in here.engine.asked


def test_one_whose_files_its_own_program_refuses_changes_nothing(
    here: Here, composed: Composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = here.engine._container

    def judged(one: Any, what: str, body: Any) -> Any:
        if what == "wait":
            one.code, one.words = 1, "parse error: unexpected token\n"
        return act(one, what, body)

    monkeypatch.setattr(here.engine, "_container", judged)
    with pytest.raises(Refused, match="the stack's own programs refuse this configuration, nothing was changed") as caught:
        come_up(here.env)
    assert "prometheus: prometheus/prometheus.yml: parse error: unexpected token" in caught.value.why
    assert composed.told == []
    assert not (here.home / "monitoring" / OWNER).exists()


def test_one_that_does_not_come_up_is_told_with_its_last_words_and_where_the_new_password_is(
    here: Here, composed: Composed
) -> None:
    composed.fails = "container tidegate-monitoring-loki-1 is unhealthy"
    labels = {f"{COMPOSE}.project": PROJECT, f"{COMPOSE}.service": "loki"}
    here.engine.add(f"{PROJECT}-loki-1", "exited", image="grafana/loki:1", Labels=labels).words = "no space left\n"
    said: list[str] = []
    with pytest.raises(Failed, match="the stack did not come up") as caught:
        up.up(here.env, {}, lambda server, what: said.append(what))
    assert "loki-1 is unhealthy" in caught.value.why
    assert "no space left" in caught.value.why
    assert caught.value.fix == "mend it and run this again; inv monitoring.status -e test shows what runs"
    assert "Grafana's password is in" in said[-1]


def test_an_edge_without_figures_and_servers_that_are_no_more_are_remarked(
    here: Here, composed: Composed, answers: Stack
) -> None:
    answers.answers["/api/v1/query"] = SILENT
    here.engine.add(f"{PROJECT}-gate-1", image="nginx:0.1", Labels={f"{COMPOSE}.project": PROJECT, f"{COMPOSE}.service": "gate"})
    here.engine.add_image("nginx:0.1")
    here.engine.images["sha256:nginx:0.1"] = here.engine.images["nginx:0.1"]
    done, _ = come_up(here.env)
    assert "the edge of one tells no figures: inv server.bootstrap -e test gives nginx its new main file" in done.remarks
    assert "other images than monitoring/images.toml has: gate: inv monitoring.upgrade -e test" in done.remarks


def test_taking_it_down_keeps_what_it_collected_unless_that_is_to_go_too(here: Here, composed: Composed) -> None:
    come_up(here.env)
    here.engine.volumes = [f"{PROJECT}_prometheus", f"{PROJECT}_loki"]
    here.engine.labels_of = {name: {server.LABEL_VOLUME: "true"} for name in here.engine.volumes}
    assert up.down(here.env, lambda *_: None) == [f"{PROJECT}_loki", f"{PROJECT}_prometheus"]
    assert list(here.engine.boxes) == [EDGE]
    assert (here.home / "monitoring" / OWNER).exists()
    assert up.down(here.env, lambda *_: None, volumes=True) == []
    assert here.engine.volumes == []
    assert not (here.home / "monitoring" / OWNER).exists()
    composed.fails = "cannot connect"
    with pytest.raises(Failed, match="the stack is not all down") as caught:
        up.down(here.env, lambda *_: None)
    assert (caught.value.why, caught.value.fix) == ("cannot connect", "run this again")


def test_an_upgrade_that_never_finished_another_command_and_another_environment_stand_in_the_way(
    here: Here, composed: Composed
) -> None:
    (here.home / "upgrade.json").write_text("{}")
    for act in (up.down, lambda env, say: up.up(env, {}, say)):
        with pytest.raises(Refused, match="an upgrade of the stack never finished there") as caught:
            act(here.env, lambda *_: None)
        assert "--go-on, or --put-back" in caught.value.fix
    other = Link(here.env, here.env.hosts[0])
    try:
        holder = {"what": "monitoring.up of test", "who": "bob", "since": "noon"}
        other.call("lock", path=str(here.home / "monitoring.lock"), holder=holder)
        with pytest.raises(Locked, match=r"monitoring\.up of test by bob"):
            come_up(here.env)
    finally:
        other.close()
    (here.home / "upgrade.json").unlink()
    (here.home / "monitoring").mkdir(exist_ok=True)
    (here.home / "monitoring" / OWNER).write_text('{"app": "shop", "environment": "live"}')
    with pytest.raises(Refused, match="the stack there watches shop in live"):
        come_up(here.env)
    assert composed.told == []


def test_a_server_without_the_apps_network_is_to_be_made_ready(here: Here, composed: Composed) -> None:
    here.engine.networks.clear()
    with pytest.raises(Refused, match=f"the network {NETWORK} is missing") as caught:
        come_up(here.env)
    assert caught.value.fix == "inv server.bootstrap -e test"


def test_a_check_judges_what_would_be_placed_and_asks_what_runs(
    here: Here, composed: Composed, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[bool, bool]] = []

    def run(servers: Mapping[str, Any], lock: Mapping[str, Any], prometheus: object, loki: object) -> Any:
        (files,) = [files for _, files in servers.values()]
        assert "prometheus/prometheus.yml" in {file.path for file in files}
        asked.append((prometheus is not None, loki is not None))

    monkeypatch.setattr(checking, "run", run)
    checking.check_of(here.env, {})
    come_up(here.env)
    checking.check_of(here.env, {})
    assert asked == [(False, False), (True, True)]
    assert inventory(here.env).has("loki")
