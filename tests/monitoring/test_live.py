"""Asking the stack over the connection: an answer, none in time, and nobody who listens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from monitoring import live
from monitoring.live import PORTS, Http, Prometheus, watching
from ops.errors import ConfigError, Refused, Unreachable
from ops.link import Link
from tests.local_ssh import environment, install_ssh
from tests.monitoring.a_stack import Stack, link, owned, stack


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    with stack(monkeypatch) as found:
        yield found


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    with link(tmp_path, monkeypatch) as found:
        yield found


def test_an_answer_is_passed_on_with_its_status(line: Link, server: Stack) -> None:
    server.answers["/ready"] = (503, "not yet")
    assert Http(line).ask("GET", PORTS["loki"], "/ready") == (503, "not yet")


def test_a_question_that_has_a_mistake_is_the_mistake_of_whoever_asks(line: Link, server: Stack) -> None:
    server.answers["/api/v1/query"] = (400, '{"status": "error", "error": "parse error"}')
    with pytest.raises(ConfigError, match="400: parse error"):
        Prometheus(Http(line)).query("up{")


def test_where_nothing_listens_it_says_which_service_and_what_to_do(
    line: Link, server: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PORTS, "prometheus", 1)
    with pytest.raises(Refused, match="prometheus does not answer") as caught:
        Prometheus(Http(line)).query("up")
    assert "inv monitoring.status" in caught.value.fix


def test_a_line_that_is_silent_is_not_waited_for_for_ever(line: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's own limit is of no use where its answer does not come."""
    monkeypatch.setattr(live, "_LINE", 0.1)
    monkeypatch.setattr(line, "send", lambda *_, **__: Future())
    began = time.monotonic()
    with pytest.raises(Unreachable, match="no answer") as caught:
        Http(line).ask("GET", PORTS["prometheus"], "/", timeout=0.1)
    assert time.monotonic() - began < 5
    assert (caught.value.exit_code, caught.value.where) == (3, line.name)


def test_the_stack_of_the_environment_is_asked(tmp_path: Path, server: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    install_ssh(tmp_path, monkeypatch)
    owned(tmp_path, monkeypatch)
    server.answers["/ready"] = "yes"
    with watching(environment(tmp_path)) as http:
        assert http.ask("GET", PORTS["loki"], "/ready") == (200, "yes")


@pytest.mark.parametrize(("app", "name"), [("blog", "production"), ("shop", "test")])
def test_the_stack_of_another_environment_or_app_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: str, name: str
) -> None:
    install_ssh(tmp_path, monkeypatch)
    owned(tmp_path, monkeypatch, app, name)
    with pytest.raises(Refused, match=f"the stack there watches {app} in {name}"), watching(environment(tmp_path)):
        pytest.fail("it was let in")


def test_where_there_is_no_stack_it_says_how_to_have_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_ssh(tmp_path, monkeypatch)
    monkeypatch.setattr(live, "FOLDER", str(tmp_path))
    with pytest.raises(Refused, match="test is not watched") as caught, watching(environment(tmp_path)):
        pytest.fail("there is none")
    assert caught.value.fix == "inv monitoring.up -e test"
