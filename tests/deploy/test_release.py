"""How a release ends is journalled and told, whatever ends it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from deploy import release
from deploy.intent import Options
from deploy.plan import Plan
from deploy.release import Notices, Summary, Work, _journalled, _probing
from deploy.session import Session
from ops.config import Environment
from ops.errors import ConfigError, Failed, NeedsPerson, Unreachable
from tests.fakes import Quiet, World, environment, fails_in

PLAN = Plan("deploy", "production", "v2-1", "v2", {"one": None}, backup="20260101T000000Z-abcdef")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bool]]:
    """What people are told; of the address `broken` it is said that it is."""
    found: list[tuple[str, str, bool]] = []

    def notify(urls: Any, title: str, body: str, failed: bool) -> list[str]:
        found.append((title, body, failed))
        return [f"{url.reveal()} is no address" for url in urls if url.reveal() == "broken"]

    monkeypatch.setattr("ops.notify.notify", notify)
    return found


def noticing(on: tuple[str, ...] = ("failure", "success")) -> Environment:
    known = environment()
    return known.model_copy(update={"notifications": known.notifications.model_copy(update={"urls": ("CHAT",), "on": on})})


def test_people_are_told_of_what_they_wanted_to_be_told_of(told: list[Any]) -> None:
    notices = Notices(noticing(("failure",)), {"CHAT": "ok"}, required=True)
    assert notices.send("it serves", "in 3 s", failed=False) == []
    assert notices.send("it failed", "at one", failed=True) == []
    assert told == [("it failed", "at one", True)]


def test_nobody_to_tell_is_fine_and_whom_it_did_not_reach_is_said(told: list[Any]) -> None:
    assert Notices(environment(), {}, required=True).send("it serves", "", failed=False) == []
    said = Notices(noticing(), {"CHAT": "broken"}, required=True).send("it serves", "", failed=False)
    assert said == ["notice not sent: broken is no address"]


def test_an_address_without_a_value_stops_a_deploy_before_it_begins_and_nothing_else(told: list[Any]) -> None:
    with pytest.raises(ConfigError, match="CHAT"):
        Notices(noticing(), {}, required=True)
    (said,) = Notices(noticing(), {}, required=False).send("rolled back", "", failed=False)
    assert said.startswith("notice not sent: ")
    assert "CHAT" in said
    assert told == []


@pytest.mark.parametrize(
    "error", [Failed("no room", where="one", why="a log that is nobody else's"), NeedsPerson("mixed", where="one")]
)
def test_a_failure_is_told_without_the_logs_it_quotes(monkeypatch: pytest.MonkeyPatch, told: list[Any], error: Failed) -> None:
    class Broken:
        def __init__(self, *_: Any, **__: Any) -> None:
            raise error

    monkeypatch.setattr(release, "Work", Broken)
    session = cast("Session", SimpleNamespace(env=noticing()))
    with pytest.raises(type(error)):
        release.release("deploy", session, Options(), {"CHAT": "ok"}, cast("Any", Quiet()), lambda plan, states: True)
    assert told == [("blog: deploy failed in production", f"one: {error.what}", True)]


def work(world: World) -> Work:
    return cast("Work", SimpleNamespace(servers=world.connect(), env=environment()))


def journalled(error: BaseException | None) -> tuple[Mapping[str, Any], ...]:
    """Return what the journal says of a deploy that ends so."""
    world = World("one")
    with _journalled(work(world), PLAN, "0123", Summary("deploy", "production", ""), time.monotonic()):
        if error:
            raise error
    return tuple(world.only.records())


def test_the_journal_has_a_begin_and_an_end() -> None:
    begin, end = journalled(None)
    assert (begin["event"], begin["backup"], begin["previous"]) == ("begin", "20260101T000000Z-abcdef", None)
    assert (end["event"], end["result"], end["operation"]) == ("end", "done", "0123")


@pytest.mark.parametrize(
    ("error", "told", "result"),
    [
        (Failed("no room"), "no room", "undone"),
        (NeedsPerson("mixed"), "mixed", "needs a person"),
        (KeyboardInterrupt(), "interrupted and undone", "undone"),
        (ZeroDivisionError("division by zero"), "failed and was undone", "undone"),
    ],
)
def test_whatever_ends_it_stands_in_the_journal_and_is_told(error: BaseException, told: str, result: str) -> None:
    world = World("one")
    kind = NeedsPerson if isinstance(error, NeedsPerson) else Failed
    journal = _journalled(work(world), PLAN, "0123", Summary("deploy", "production", ""), time.monotonic())
    with pytest.raises(kind, match=told) as caught, journal:
        raise error
    assert world.only.records()[-1]["result"] == result
    if isinstance(error, ZeroDivisionError):
        assert caught.value.why == "ZeroDivisionError: division by zero"


def test_a_journal_that_takes_no_end_is_remarked_on_and_hides_nothing() -> None:
    world = World("one")
    found = work(world)
    world.fault = fails_in("journal", 2)
    with _journalled(found, PLAN, "0123", Summary("deploy", "production", ""), time.monotonic()):
        pass
    (remark,) = found.servers["one"].remarks
    assert "the journal has no end of this" in remark


class Gone:
    """A server whose connection is lost while users are counted."""

    def probe(self, probe: object, interval: float) -> None:
        pass

    def probe_report(self, *, stop: bool) -> None:
        raise Unreachable("the connection was lost")


def test_a_connection_that_is_lost_while_users_are_counted_is_not_told_twice() -> None:
    summary = Summary("deploy", "production", "")
    there = cast("Work", SimpleNamespace(servers={"one": Gone()}, env=environment()))
    with _probing(there, PLAN, summary):
        pass
    assert summary.probes == {}
