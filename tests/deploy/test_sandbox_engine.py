"""Sandbox servers on an engine that refuses, is late or has forgotten them: a real socket, and what it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ops.engine  # noqa: F401  # it loads the SDK
from deploy import sandbox_server
from deploy.sandbox_server import PortTaken, Recipe, admit, create, facts, revive, wait_ready
from ops.engine import EngineError
from ops.errors import Failed
from ops.this_machine import local_client
from tests import an_engine
from tests.an_engine import framed

RECIPE = Recipe("tidegate-abc123", "tidegate/sandbox:server-x", (("dev.tidegate.sandbox", "abc123-sandbox"),))
PORTS = (20022, 20080, 20443)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[an_engine.Engine]:
    with an_engine.engine(tmp_path) as found:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{found.socket_path}")
        monkeypatch.setattr(sandbox_server, "bounding_set", lambda: (1 << 41) - 1)
        found.answers |= {
            "POST /volumes/create": {"Name": "v"}, "POST /containers/create": {"Id": "c1"}, "POST /containers/c1/start": b"",
            "DELETE /containers/c1": b"",
        }  # fmt: skip
        yield found


def test_a_server_has_the_widest_rights_that_the_engine_gives(engine: an_engine.Engine) -> None:
    privileged: list[bool] = []

    def make(body: Any) -> Any:
        privileged.append(body["HostConfig"].get("Privileged", False))
        return 403 if privileged[-1] else {"Id": "c1"}

    engine.answers["POST /containers/create"] = make
    assert create(local_client(), RECIPE, 0, PORTS) == "c1"
    assert privileged == [True, False]


@pytest.mark.parametrize(
    "words", ["Bind for 127.0.0.1:20022 failed: port is already allocated", "listen: address already in use"]
)
def test_a_port_that_somebody_took_meanwhile_is_told_as_such_and_nothing_is_left(engine: an_engine.Engine, words: str) -> None:
    engine.fails("POST /containers/c1/start", 500, words)
    with pytest.raises(PortTaken, match="a port of the sandbox is taken"):
        create(local_client(), RECIPE, 0, PORTS)
    assert engine.asked[-1] == "DELETE /containers/c1"


def test_other_trouble_of_the_engine_is_told_as_it_is(engine: an_engine.Engine) -> None:
    engine.answers["POST /containers/c1/start"] = 500
    with pytest.raises(EngineError):
        create(local_client(), RECIPE, 0, PORTS)


def test_a_key_is_let_in(engine: an_engine.Engine) -> None:
    engine.answers["PUT /containers/c1/archive"] = b""
    admit(local_client(), "c1", "ssh-ed25519 AAAA deploy")
    assert b"ssh-ed25519 AAAA deploy" in engine.bodies["PUT /containers/c1/archive"]


@pytest.mark.parametrize(("state", "asked"), [("paused", "unpause"), ("exited", "start"), ("created", "start"), ("running", "")])
def test_whatever_state_a_server_was_left_in_it_runs_again(engine: an_engine.Engine, state: str, asked: str) -> None:
    engine.answers["POST /containers/c1/unpause"] = b""
    client = local_client()
    before = len(engine.asked)
    revive(client, "c1", state)
    assert engine.asked[before:] == ([f"POST /containers/c1/{asked}"] if asked else [])


def test_one_that_does_not_come_up_tells_its_last_words(engine: an_engine.Engine) -> None:
    engine.execs("c1", lambda command: (1, "key ssh-ed25519 AAAA\n"))
    engine.answers |= {
        "GET /containers/c1/json": {"Config": {"Tty": False}},
        "GET /containers/c1/logs": framed("dockerd: no iptables\n"),
    }
    with pytest.raises(Failed, match="a sandbox server did not come up") as caught:
        wait_ready(local_client(), "c1")
    assert "dockerd: no iptables" in caught.value.why
    assert caught.value.fix == "inv sandbox.down, then inv sandbox.up"


def test_one_that_is_gone_is_told_too(engine: an_engine.Engine) -> None:
    with pytest.raises(Failed, match="did not come up") as caught:
        wait_ready(local_client(), "c1")
    assert "refused with 404" in caught.value.why
    assert facts(local_client(), "c1", 1).get("engine") is None
