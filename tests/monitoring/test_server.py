"""One server as the stack's commands ask it: through a real connection, with an engine that answers on a real socket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitoring import server
from monitoring.files import File
from monitoring.server import Server
from ops import link as links
from ops.errors import Failed, Refused
from ops.link import Link
from tests import an_engine
from tests.an_engine import framed
from tests.local_ssh import HOST, environment
from tests.monitoring.on_engine import container, install_forwarding_ssh

ME = os.getuid()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[an_engine.Engine]:
    with an_engine.engine(tmp_path) as found:
        monkeypatch.setattr(links, "ENGINE_SOCKET", str(found.socket_path))
        monkeypatch.setattr(server, "ENGINE_SOCKET", str(found.socket_path))
        yield found


@pytest.fixture
def one(engine: an_engine.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    install_forwarding_ssh(tmp_path, monkeypatch)
    monkeypatch.setattr(server, "FOLDER", str(tmp_path / "home/monitoring"))
    monkeypatch.setattr(server, "HOME", str(tmp_path / "home"))
    link = Link(environment(tmp_path), HOST)
    link.hello()  # the engine's socket is there now
    yield Server(link)
    link.close()


def test_files_are_placed_compared_and_read(one: Server) -> None:
    files = [File("gate/nginx.conf", "events {}", owner=ME), File("loki/loki.yaml", "a: 1\n", owner=ME)]
    assert one.differs(files)
    assert one.place(files) == {"gate", "loki"}
    assert not one.differs(files)
    assert one.place(files) == {"gate", "loki"}, "nobody has read them yet"
    one.all_read()
    assert one.place(files) == set()
    assert one.look(["gate/nginx.conf", "none"])["files"] == {"gate/nginx.conf": "events {}", "none": None}


def test_a_server_that_ends_up_with_other_files_is_a_failure(one: Server) -> None:
    with pytest.raises(Failed, match="did not take its files") as caught:
        one.place([File("a/b", "one", owner=ME), File("a/b", "other", owner=ME)])
    assert caught.value.why == "a/b"


def test_what_stands_in_the_way_of_files_is_told_with_what_to_do(one: Server, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/monitoring").write_text("no folder")
    with pytest.raises(Failed, match="cannot be written") as caught:
        one.place([File("a/b", "text", owner=ME)])
    assert "inv server.check -e test" in caught.value.fix


def test_where_the_lock_cannot_be_taken_the_server_is_to_be_made_ready(one: Server, tmp_path: Path) -> None:
    one.lock("monitoring.up")
    (tmp_path / "home/monitoring.lock").unlink()
    (tmp_path / "home").rmdir()
    (tmp_path / "home").write_text("no folder")
    with pytest.raises(Refused, match="cannot take the lock") as caught:
        one.lock("monitoring.up")
    assert caught.value.fix == "inv server.bootstrap -e test"


@pytest.mark.parametrize(
    ("script", "kind", "said"),
    [
        ("exit 1", Failed, "it said nothing"),
        ("echo 'sudo: a password is required' >&2; exit 1", Refused, "sudo: a password is required"),
        ("echo 'SyntaxError' >&2; exit 1", Failed, "SyntaxError"),
    ],
)
def test_a_program_that_does_not_run_there_is_told_with_its_words(
    one: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, kind: type[Exception], said: str
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(server, "PYTHON", str(program))
    with pytest.raises(kind) as caught:
        one.all_read()
    assert caught.value.why == said  # type: ignore[attr-defined]


def test_without_that_program_or_root_it_is_said_what_to_write_there(one: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PYTHON", "/nowhere/python3")
    with pytest.raises(Refused, match="we cannot become root there") as caught:
        one.all_read()
    assert "/etc/sudoers.d/tidegate" in caught.value.fix


def test_volumes_are_made_and_given_to_their_services_users(one: Server, engine: an_engine.Engine, tmp_path: Path) -> None:
    made: list[Any] = []
    (tmp_path / "volume").mkdir()

    def create(body: Any) -> dict[str, Any]:
        made.append((body["Name"], body["Labels"]))
        return {"Mountpoint": str(tmp_path / "volume")}

    engine.answers["POST /volumes/create"] = create
    one.own({"grafana": ME})
    assert made == [("grafana", {server.LABEL_VOLUME: "true"})]
    engine.answers["GET /volumes"] = {"Volumes": [{"Name": "loki"}, {"Name": "grafana"}]}
    assert one.volumes() == ["grafana", "loki"]
    engine.answers["GET /volumes"] = {"Volumes": None}
    assert one.volumes() == []


def test_of_containers_that_do_not_run_or_are_ill_the_last_words_are_told(one: Server, engine: an_engine.Engine) -> None:
    engine.answers["GET /containers/json"] = [
        container("loki", "exited", "Exited (1) 2 seconds ago"),
        container("gate", "running", "Up 2 minutes"),
        container("grafana", "running", "Up 2 minutes (unhealthy)"),
    ]
    for name, words in {"loki": "bad configuration\n", "grafana": ""}.items():
        engine.answers[f"GET /containers/{name}-id/logs"] = framed(words)
        engine.answers[f"GET /containers/{name}-id/json"] = {"Config": {"Tty": False}}
    assert one.running() == {"gate": "gate-id", "grafana": "grafana-id"}
    said = one.crashed()
    assert "loki (Exited (1) 2 seconds ago), its last words:\n    bad configuration" in said
    assert "grafana (Up 2 minutes (unhealthy)), its last words:\n    it said nothing" in said
    assert "gate" not in said
    engine.answers["GET /containers/json"] = [container("gate", "running", "Up 2 minutes")]
    assert one.crashed() == ""
