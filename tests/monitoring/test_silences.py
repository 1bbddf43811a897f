"""Silences: what may be silenced, and what a deploy does where the monitoring does not answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from monitoring import for_deploy, silences
from monitoring.alerts import OF_A_SWAP, Matcher, Silence, silence
from monitoring.for_deploy import BUDGET, DeployWatch
from monitoring.live import PORTS, Http
from monitoring.silences import add, expire, matchers, one_of
from ops.errors import ConfigError, Refused, Unreachable
from ops.link import Link

NOW = {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, "1795442400"]}]}}
HOUR = timedelta(hours=1)


class There:
    """The line to a server that has an Alertmanager, in whatever state, or none."""

    def __init__(self, alertmanager: str | None) -> None:
        self._state = alertmanager

    def send(self, op: str, **arguments: object) -> Future[str | None]:
        assert (op, arguments) == ("state_of", {"container": "tidegate-monitoring-alertmanager-1"})
        answer: Future[str | None] = Future()
        answer.set_result(self._state)
        return answer


class Scripted(Http):
    """A stack whose clock works, and whose Alertmanager does as it is told here."""

    def __init__(self, alertmanager: Callable[[str, float], tuple[int, str]], state: str | None = "running") -> None:
        self.name = "web1"
        self.link = cast("Link", There(state))
        self.asked: list[str] = []
        self._alertmanager = alertmanager

    def ask(self, method: str, port: int, path: str, body: str | None = None, timeout: float = 10.0) -> tuple[int, str]:
        self.asked.append(f"{method} {path}")
        return (200, json.dumps(NOW)) if port == PORTS["prometheus"] else self._alertmanager(method, timeout)


def dead(method: str, timeout: float) -> tuple[int, str]:
    raise Refused("alertmanager does not answer", where="web1", why="Connection refused")


def silent(method: str, timeout: float) -> tuple[int, str]:
    time.sleep(timeout)
    raise Refused("alertmanager does not answer", where="web1", why="timed out")


def test_matchers_are_of_names_in_full_several_with_commas() -> None:
    assert [str(one) for one in matchers("DiskFull", "203.0.113.10,[2001:db8::1]:22", "blog")] == [
        'alertname="DiskFull"', r'host=~"203\.0\.113\.10|\[2001:db8::1\]:22"', 'app="blog"',
    ]  # fmt: skip


@pytest.mark.parametrize("value", ["a.b", "[::1]:22", "x|y", "a+b$", "deploy@h"])
def test_a_value_among_several_matches_itself_and_nothing_else(value: str) -> None:
    matcher = one_of("host", [value, "other"])
    assert matcher.matches({"host": value})
    assert matcher.matches({"host": "other"})
    assert not matcher.matches({"host": "axb"})


def test_a_label_that_is_missing_is_empty() -> None:
    assert Matcher("app", "").matches({})
    assert Matcher("app", "blog", equal=False).matches({})
    assert not Matcher("app", ".+", pattern=True).matches({})


def test_a_silence_comes_back_from_alertmanager_as_it_went() -> None:
    moment = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
    known = Silence(matchers("A,B", "h"), moment, moment + HOUR, "me", "why", "some-id", "active")
    assert silence({**known.document(), "status": {"state": "active"}}) == known


@pytest.mark.parametrize("lasts", [timedelta(), timedelta(hours=-1), silences.LONGEST + HOUR])
def test_a_silence_without_an_end_that_comes_is_refused(lasts: timedelta) -> None:
    with pytest.raises(ConfigError, match="a silence has to end"):
        add(Scripted(dead), matchers("DiskFull"), lasts, "me", "")


def test_a_silence_of_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match="a silence of everything"):
        add(Scripted(dead), (), HOUR, "me", "")


@pytest.mark.parametrize("about", [matchers("Watchdog"), matchers("DiskFull,Watchdog"), (Matcher("severity", "none"),)])
def test_the_watchdog_is_not_silenced(about: tuple[Matcher, ...]) -> None:
    with pytest.raises(Refused, match="the Watchdog is not silenced"):
        add(Scripted(dead), about, HOUR, "me", "")


def test_a_silence_is_not_ended_by_an_empty_id() -> None:
    with pytest.raises(ConfigError, match="which silence"):
        expire(Scripted(lambda *_: (200, "[]")), "")


def test_a_deploy_goes_on_where_the_monitoring_does_not_answer() -> None:
    watch = DeployWatch(Scripted(dead))
    remark = watch.begin("blog", ["web1"], "1")
    assert remark == "alerts of blog's containers are not silenced: alertmanager does not answer (Connection refused)"
    assert watch.end(ok=True) == ""


def test_a_deploy_of_what_nobody_watches_says_nothing_of_it() -> None:
    http = Scripted(dead, state=None)
    watch = DeployWatch(http)
    assert (watch.begin("blog", ["web1"], "1"), watch.end(ok=True), http.asked) == ("", "", [])


def test_a_deploy_says_that_the_stack_which_is_there_is_dead() -> None:
    assert "are not silenced" in DeployWatch(Scripted(dead, state="exited")).begin("blog", ["web1"], "1")


def test_a_deploy_goes_on_where_the_line_does_not_say_whether_there_is_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(for_deploy, "BUDGET", 0.05)
    http = Scripted(dead)
    monkeypatch.setattr(http.link, "send", lambda *_, **__: Future())
    assert "are not silenced: no answer within 0.05 s" in DeployWatch(http).begin("blog", ["web1"], "1")


def test_a_deploy_waits_no_longer_for_it_than_its_budget() -> None:
    began = time.monotonic()
    assert "are not silenced" in DeployWatch(Scripted(silent)).begin("blog", ["web1"], "1")
    assert time.monotonic() - began < BUDGET + 0.5


@pytest.mark.parametrize("answer", [(500, "broken"), (200, "<html>"), (200, "[]"), (200, "{}")])
def test_a_deploy_goes_on_whatever_it_answers(answer: tuple[int, str]) -> None:
    assert "are not silenced: " in DeployWatch(Scripted(lambda *_: answer)).begin("blog", ["web1"], "1")


def test_a_deploy_goes_on_when_the_line_is_lost() -> None:
    def lost(method: str, timeout: float) -> tuple[int, str]:
        raise Unreachable("the connection was lost", where="web1")

    assert "the connection was lost" in DeployWatch(Scripted(lost)).begin("blog", ["web1"], "1")


def test_the_silence_of_a_deploy_that_was_killed_ends_where_the_next_one_begins_and_no_other_does() -> None:
    moment = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
    about = (one_of("app", ["blog"]), one_of("host", ["web1"]), one_of("alertname", OF_A_SWAP))
    known = [
        Silence(about, moment, moment + HOUR, "me", "killed", "left", "active"),
        Silence(about, moment, moment + HOUR, "me", "over", "over", "expired"),
        Silence(about[1:], moment, moment + HOUR, "me", "somebody's", "wider", "active"),
    ]
    listed = [{**one.document(), "id": one.id, "status": {"state": one.state}} for one in known]
    answers = {"GET": json.dumps(listed), "POST": '{"silenceID": "an-id"}', "DELETE": ""}
    http = Scripted(lambda method, _: (200, answers[method]))
    assert "are silent until" in DeployWatch(http).begin("blog", ["deploy@web1"], "1")
    assert [one for one in http.asked if one.startswith("DELETE")] == ["DELETE /api/v2/silence/left"]


def test_a_silence_that_cannot_be_shortened_is_said_to_end_by_itself() -> None:
    alive = [(200, "[]"), (200, '{"silenceID": "an-id"}')]

    def takes_it_and_dies(method: str, timeout: float) -> tuple[int, str]:
        return alive.pop(0) if alive else dead(method, timeout)

    watch = DeployWatch(Scripted(takes_it_and_dies))
    watch.begin("blog", ["web1"], "1")
    assert watch.end(ok=True).startswith("the silence of this deploy ends only at 14:")
