"""Grafana put on the edge of a server that is this machine, and taken away again: staged, tested, switched, proven."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitoring import publishing
from monitoring.inventory import Inventory, inventory
from monitoring.public_grafana import APPS, HOST, NAME, Site
from monitoring.publishing import settle
from monitoring.server import Server
from ops.errors import Failed, NeedsPerson, Refused
from ops.link import Link
from ops.names import EDGE
from ops.secret import Secret
from tests.deploy import a_server
from tests.deploy.a_server import Here

SITE = Site("test", "watch.example.com", Secret("chain and key\n"))
OTHER = Site("test", "grafana.example.com", Secret("another chain and key\n"))
MAIN = f"events {{}}\nhttp {{ {APPS} }}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    with a_server.server(tmp_path, monkeypatch) as found:
        edge = found.home / "edge"
        (edge / "nginx.conf").write_text(MAIN)
        for name, path in {"_LIVE": f"apps/{NAME}.conf", "_STAGED": f"staged/{NAME}.conf", "_TEST": f"staged/{NAME}.test",
                           "_BACK": f"staged/{NAME}.conf.back"}.items():  # fmt: skip
            monkeypatch.setattr(publishing, name, str(edge / path))
        monkeypatch.setattr(publishing, "EDGE_HOME", str(edge))
        monkeypatch.setattr(publishing, "_CHECK", {"address": "127.0.0.1", "port": found.edge.server_port, "host": HOST})
        monkeypatch.setattr(publishing, "SWITCH_SECONDS", 0.3)
        yield found


@pytest.fixture
def server(here: Here) -> Iterator[Server]:
    link = Link(here.env, here.env.hosts[0])
    yield Server(link)
    link.close()


def settled(server: Server, wanted: Site | None) -> list[str]:
    """Return what is said to be done."""
    said: list[str] = []
    settle(server, wanted, said.append)
    return said


def files(here: Here) -> dict[str, str]:
    """Return what is on the edge."""
    folder = here.home / "edge"
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "nginx.conf"
    }


def test_it_is_served_with_its_certificate_once_and_then_left_alone(here: Here, server: Server) -> None:
    assert settled(server, SITE) == ["the edge serves Grafana on watch.example.com"]
    assert files(here) == {f"apps/{NAME}.conf": SITE.text, f"tls/{SITE.pem}": "chain and key\n"}
    assert (here.home / "edge/tls" / SITE.pem).stat().st_mode & 0o777 == 0o600
    assert settled(server, SITE) == []
    assert settled(server, OTHER) == ["the edge serves Grafana on grafana.example.com"]
    assert files(here) == {f"apps/{NAME}.conf": OTHER.text, f"tls/{OTHER.pem}": "another chain and key\n"}


def test_it_is_taken_away_with_its_certificate_also_where_nginx_does_not_run(here: Here, server: Server) -> None:
    for status in ("running", "exited"):
        settled(server, SITE)
        here.engine.boxes[EDGE].status = status
        if status == "exited":
            here.edge.heads = []
        assert settled(server, None) == ["the edge serves Grafana no more"]
        assert files(here) == {}
        assert settled(server, None) == []


def test_a_file_that_nginx_refuses_changes_nothing_and_its_words_are_told(here: Here, server: Server) -> None:
    settled(server, SITE)
    before = files(here)
    here.engine.execs_said = lambda words: (1, 'unknown directive "gizp"')
    with pytest.raises(Failed, match="nginx refuses Grafana's file") as caught:
        settled(server, OTHER)
    assert caught.value.why == 'unknown directive "gizp"'
    assert "nothing was changed on the edge" in caught.value.fix
    assert files(here) == before


def deaf(here: Here, *, after: int) -> None:
    """Have nginx take up no files after it was told so often to read them."""
    told = iter(range(100))

    def reload() -> None:
        if next(told) not in range(after, after + 1):
            here.edge.reload()

    here.engine.hup = reload


def test_one_that_nginx_does_not_take_up_is_replaced_by_the_former(here: Here, server: Server) -> None:
    settled(server, SITE)
    deaf(here, after=0)
    with pytest.raises(Failed, match="nginx did not take up Grafana's file; the former one is back") as caught:
        settled(server, OTHER)
    assert caught.value.why == f"it answers: {SITE.generation}"
    assert files(here)[f"apps/{NAME}.conf"] == SITE.text
    assert settled(server, SITE) == []


def test_the_first_one_that_nginx_does_not_take_up_is_taken_away(here: Here, server: Server) -> None:
    here.edge.answer = lambda path: (404, "nothing here")  # type: ignore[method-assign]
    with pytest.raises(Failed, match="did not take up"):
        settled(server, SITE)
    assert f"apps/{NAME}.conf" not in files(here)


def test_an_nginx_that_takes_up_neither_calls_for_a_person(here: Here, server: Server) -> None:
    settled(server, SITE)
    here.engine.hup = lambda: None
    here.edge.heads = [{"generation": "something else", "release": "x"}]
    with pytest.raises(NeedsPerson, match="neither Grafana's new file nor the former") as caught:
        settled(server, OTHER)
    assert f"docker kill -s HUP {EDGE}" in caught.value.fix
    assert files(here)[f"apps/{NAME}.conf"] == SITE.text


def test_an_nginx_that_serves_it_on_without_its_file_is_told(here: Here, server: Server) -> None:
    settled(server, SITE)
    here.engine.hup = lambda: None
    with pytest.raises(Failed, match="nginx still serves Grafana, though its file is gone") as caught:
        settled(server, None)
    assert caught.value.why == f"it answers: {SITE.generation}"


def test_what_the_server_cannot_do_is_told_in_its_words(here: Here, server: Server) -> None:
    here.engine.answers[f"POST /containers/{EDGE}/exec"] = (500, "no such runtime")
    with pytest.raises(Failed, match="the edge did not take Grafana's file") as caught:
        settled(server, SITE)
    assert "no such runtime" in caught.value.why
    assert caught.value.where == "deploy@server.invalid"


def test_an_edge_that_does_not_run_or_serves_that_domain_for_an_app_is_refused_before_anything_changes(
    here: Here, server: Server
) -> None:
    publishing._require_edge(server, SITE, "test")
    (here.home / "edge/apps/shop.conf").write_text('# tidegate {"app": "shop", "domains": ["watch.example.com"]}\n')
    with pytest.raises(Refused, match=r"watch\.example\.com belongs to the app shop there") as caught:
        publishing._require_edge(server, SITE, "test")
    assert caught.value.fix == "give Grafana a domain of its own"
    here.engine.boxes[EDGE].status = "exited"
    with pytest.raises(Refused, match="the edge nginx does not run") as caught:
        publishing._require_edge(server, SITE, "test")
    assert caught.value.fix == "inv server.bootstrap -e test"


def test_an_environment_without_a_public_grafana_wants_nothing_of_the_edge(here: Here) -> None:
    known: Inventory = inventory(here.env)
    nothing: dict[str, Any] = {}
    assert publishing.prepare(here.env, known, [_Host(known)], nothing) is None  # type: ignore[list-item]


class _Host:
    """A server that nobody looks at."""

    def __init__(self, known: Inventory) -> None:
        self.watched = known.watcher
        self.server = None
