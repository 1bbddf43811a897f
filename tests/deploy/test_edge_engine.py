"""The edge nginx made ready on a server whose engine has a memory: what is right is left alone, what is not is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import edge, edge_setup
from deploy.docker_server import DockerServer
from deploy.inspect import connected
from ops.errors import Failed, Refused
from ops.link import Link
from ops.names import EDGE, NETWORK
from tests.deploy import a_server
from tests.deploy.a_server import Here


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    with a_server.server(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def line(here: Here) -> Iterator[tuple[Link, DockerServer]]:
    with connected(here.env, here.env.hosts[0]) as found:
        yield found


def ensure(here: Here, line: tuple[Link, DockerServer]) -> list[str]:
    """Return what is said to be done."""
    said: list[str] = []
    link, server = line

    def receive(image: str) -> None:
        here.engine.add_image(image)

    edge_setup.ensure_edge(link, server.engine, receive, said.append)
    return said


def test_a_bare_server_gets_network_image_files_and_container(
    here: Here, line: tuple[Link, DockerServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    here.engine.boxes.clear()
    here.engine.networks.clear()
    monkeypatch.setattr(edge_setup, "_ports_are_free", lambda link: None)
    assert ensure(here, line) == [f"create the network {NETWORK} (10.213.0.0/20)", "ship nginx:1.30", "create the edge nginx"]
    made = here.engine.boxes[EDGE]
    assert made.status == "running"
    assert made.body["HostConfig"]["Binds"] == [f"{here.home}/edge:{edge.MOUNT}:ro"]
    assert made.body["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert made.body["NetworkingConfig"]["EndpointsConfig"][NETWORK]["IPAMConfig"]["IPv4Address"] == "10.213.0.2"
    assert (here.home / "edge/nginx.conf").read_text() == edge.main_file()
    assert ensure(here, line) == []


def test_a_stopped_one_is_started_and_a_new_main_file_is_read_at_once(here: Here, line: tuple[Link, DockerServer]) -> None:
    here.engine.add_image("nginx:1.30")
    here.engine.boxes[EDGE].status = "exited"
    assert ensure(here, line) == ["start the edge nginx"]
    assert here.engine.boxes[EDGE].status == "running"
    (here.home / "edge/nginx.conf").write_text("events {}\n")
    assert ensure(here, line) == ["reload the edge nginx with its new main file"]
    assert here.engine.asked[-1] == f"POST /containers/{EDGE}/kill"


def test_where_something_else_has_its_ports_nothing_is_created(here: Here, line: tuple[Link, DockerServer]) -> None:
    here.engine.boxes.clear()
    with pytest.raises(Refused, match=f"something else listens on port .*{here.edge.server_port}") as caught:
        ensure(here, line)
    assert (caught.value.where, caught.value.why) == ("deploy@server.invalid", "the edge nginx needs 80 and 443")
    assert here.engine.boxes == {}


def test_where_every_network_of_ours_is_somebody_elses_a_command_for_another_is_given(
    here: Here, line: tuple[Link, DockerServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    here.engine.networks.clear()
    call = Link.call

    def everywhere(self: Link, op: str, **arguments: Any) -> Any:
        return {"routes": ["0.0.0.0/1", "128.0.0.0/1"]} if op == "facts" else call(self, op, **arguments)

    monkeypatch.setattr(Link, "call", everywhere)
    with pytest.raises(Refused, match=r"10\.213\.0\.0/20, .* are all in use") as caught:
        ensure(here, line)
    assert f"docker network create --subnet A.B.C.0/20 --ip-range A.B.D.0/21 {NETWORK}" in caught.value.fix


def test_one_that_does_not_answer_is_told_with_its_last_words(
    here: Here, line: tuple[Link, DockerServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    here.engine.add_image("nginx:1.30")
    here.engine.boxes[EDGE].words = "nginx: [emerg] no such directive\n"
    call = Link.call
    monkeypatch.setattr(Link, "call", lambda self, op, **found: op != "answers" and call(self, op, **found))
    with pytest.raises(Failed, match="the edge nginx does not answer") as caught:
        ensure(here, line)
    assert "[emerg] no such directive" in caught.value.why
