"""The public address, asked as a user's browser would, by a real server that answers as a test says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from threading import Thread

import pytest

from deploy import public
from deploy.edge import public_proof
from deploy.model import Release
from deploy.steps import Verify
from ops.config import HostAddress
from ops.errors import Failed
from tests.fakes import FakeServer, World, environment
from tests.monitoring.a_stack import Answer, Stack

RELEASE = Release(
    "v1", "v1", "blue", "blog:v1", "c", "h", "e", 3000, "10.0.0.1", ("web",), "", "v1-abc", "now", "ann", domains=("a.b",)
)
PROOF = public_proof("v1-abc")


@pytest.fixture
def edge() -> Iterator[Stack]:
    with Stack() as found:
        Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        found.answers |= {PROOF: "v1", "/health": "well"}
        yield found
        found.shutdown()


def host(edge: Stack) -> HostAddress:
    return HostAddress(address="one", url=f"http://127.0.0.1:{edge.server_port}")


def test_it_answers_where_the_health_path_does_and_not_where_nobody_listens(edge: Stack) -> None:
    env = environment()
    assert public.answers(env, host(edge))
    edge.answers["/health"] = (503, "no database")
    assert not public.answers(env, host(edge))
    assert not public.answers(env, HostAddress(address="one", url="http://127.0.0.1:1"))


def test_it_is_asked_again_until_the_release_answers(edge: Stack) -> None:
    answers = iter(["v0", "v1", "v1"])
    edge.answers[PROOF] = lambda: next(answers)
    assert public.verify(host(edge), RELEASE) == f"http://127.0.0.1:{edge.server_port}"


@pytest.mark.parametrize(
    ("path", "answer", "why"),
    [
        (PROOF, "v0", "it answered 200 'v0' where the new release should"),
        ("/health", (503, "no database"), "/health answered 503 'no database'"),
    ],
)
def test_what_it_answers_instead_is_told_once_patience_is_over(
    edge: Stack, monkeypatch: pytest.MonkeyPatch, path: str, answer: Answer, why: str
) -> None:
    monkeypatch.setattr(public, "PATIENCE", 0.0)
    edge.answers[path] = answer
    with pytest.raises(Failed, match="does not answer with v1") as caught:
        public.verify(host(edge), RELEASE)
    assert (caught.value.where, caught.value.why) == ("one", why)
    assert "DNS" in caught.value.fix


def test_one_that_nobody_answers_at_is_told_in_the_systems_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public, "PATIENCE", 0.0)
    with pytest.raises(Failed) as caught:
        public.verify(HostAddress(address="one", url="http://127.0.0.1:1"), RELEASE)
    assert "refused" in caught.value.why


def test_by_https_the_certificate_has_to_be_good(edge: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public, "PATIENCE", 0.0)
    there = HostAddress(address="one", url=f"https://127.0.0.1:{edge.server_port}")
    with pytest.raises(Failed) as caught:
        public.verify(there, replace(RELEASE, https=True))
    assert "SSL" in caught.value.why or "ssl" in caught.value.why


def test_where_it_was_not_reachable_before_either_a_failure_is_only_remarked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(FakeServer):
        def verify_public(self, release: Release) -> str:
            raise Failed("nobody answers", why="no route")

    world = World()
    server = Away(world.only, world)
    Verify(RELEASE, required=False).apply(server)
    assert server.remarks == ["one: nobody answers (no route); it was not reachable before either, so this does not count"]
    with pytest.raises(Failed, match="nobody answers"):
        Verify(RELEASE, required=True).apply(server)
