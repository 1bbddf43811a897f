"""This machine's engine: found where it answers, started where it may be, and explained where it does not start."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from ops import local_engine
from ops.errors import Refused
from tests import an_engine
from tests.monitoring.a_stack import Stack
from tests.programs import Programs

# The engine that was started is to outlive whoever started it.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[an_engine.Engine]:
    with an_engine.engine(tmp_path) as found:
        yield found


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Programs]:
    """Programs beside an engine whose socket is not there before one of them starts it."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(local_engine, "engine_address", lambda: f"unix://{tmp_path}/docker.sock")
    monkeypatch.setattr(local_engine, "_SOCKET", tmp_path / "docker.sock")
    monkeypatch.setattr(local_engine, "LOG", tmp_path / "dockerd.log")
    monkeypatch.setattr(local_engine, "can_install", lambda: True)
    monkeypatch.setattr(local_engine, "_START_SECONDS", 5.0)
    monkeypatch.setattr(local_engine, "forget_dead_engine", lambda: None)
    monkeypatch.setattr("ops.this_machine.tempfile.tempdir", str(tmp_path))
    found = Programs(tmp_path, monkeypatch)
    for name in ("iptables", "ssh-keygen"):
        found.add(name)
    for name in ("dockerd", "systemctl"):
        found.add(name, f"ln -s {tmp_path}/engine.sock {tmp_path}/docker.sock")
    yield found
    gc.collect()


def test_an_engine_answers_only_if_it_is_well(engine: an_engine.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{engine.socket_path}")
    assert local_engine.answers()
    engine.answers["GET /_ping"] = 500
    assert not local_engine.answers()


def test_one_on_another_machine_is_asked_over_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stack() as other:
        Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{other.server_port}")
        other.answers = {"/version": '{"ApiVersion": "1.44"}', "/v1.44/_ping": "OK"}
        assert local_engine.answers()
        other.answers["/v1.44/_ping"] = (500, "broken")
        assert not local_engine.answers()
        other.shutdown()


def test_one_that_nobody_reaches_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{closed.getsockname()[1]}")
    assert not local_engine.answers()
    with pytest.raises(Refused, match="does not answer"):
        local_engine.ensure(print)


def test_it_is_started_once_and_then_left_alone(programs: Programs, engine: an_engine.Engine) -> None:
    said: list[str] = []
    for _ in range(2):
        local_engine.ensure(said.append)
    assert said == ["starting this machine's Docker engine"]
    assert len(programs.called) == 1


def test_one_that_its_package_has_started_is_not_started_again(
    programs: Programs, engine: an_engine.Engine, tmp_path: Path
) -> None:
    (tmp_path / "docker.sock").symlink_to(engine.socket_path)
    local_engine._start(pytest.fail)
    assert programs.called == []


def test_systemd_starts_it_now_and_ever_after(programs: Programs, engine: an_engine.Engine) -> None:
    local_engine._start_by_systemd()
    assert programs.called == ["systemctl enable --now docker"]
    assert local_engine.answers()


def test_what_systemd_says_against_it_is_told(programs: Programs) -> None:
    programs.add("systemctl", "echo 'Job for docker.service failed' >&2; exit 1")
    with pytest.raises(Refused, match="does not start") as caught:
        local_engine._start_by_systemd()
    assert (caught.value.why, "journalctl" in caught.value.fix) == ("Job for docker.service failed", True)


def test_without_systemd_we_start_it_ourselves_and_tell_its_log_where_it_ends(
    programs: Programs, engine: an_engine.Engine, tmp_path: Path
) -> None:
    programs.add("dockerd", "echo 'no-such-option: unknown' >&2; exit 1")
    with pytest.raises(Refused, match="does not start") as caught:
        local_engine._start_by_ourselves()
    assert (caught.value.where, caught.value.why) == (f"{tmp_path}/dockerd.log", "no-such-option: unknown")
    programs.add("dockerd", f"ln -s {engine.socket_path} {tmp_path}/docker.sock")
    local_engine._start_by_ourselves()
    assert local_engine.answers()


def test_one_that_does_not_come_up_in_time_is_ended(programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local_engine, "_START_SECONDS", 0.3)
    programs.add("dockerd", f"trap 'echo ended > {tmp_path}/told; exit' TERM; echo hangs; while :; do sleep 0.02; done")
    with pytest.raises(Refused, match="does not start") as caught:
        local_engine._start_by_ourselves()
    assert caught.value.why == "hangs"


def test_a_user_who_may_not_use_it_is_told_how_to(programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "docker.sock").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(Refused, match="may not use the Docker engine") as caught:
        local_engine.ensure(print)
    assert "usermod -aG docker" in caught.value.fix


def test_where_we_cannot_install_one_it_is_said(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_engine, "can_install", lambda: False)
    with pytest.raises(Refused, match="no Docker engine answers on this machine"):
        local_engine.ensure(print)
    assert programs.called == []
