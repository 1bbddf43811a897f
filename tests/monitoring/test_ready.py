"""Waiting until what was brought up works: what is waited for, what is told of it, and when waiting is of no use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from monitoring import ready
from monitoring.inventory import inventory
from monitoring.ready import _silent, await_targets, reload
from ops.errors import Failed, Refused
from ops.link import Link
from tests.monitoring.a_stack import Said, Stack, link, stack, target, targets
from tests.monitoring.watched import HOST, ONE, TWO, environment

KNOWN = inventory(environment(HOST, monitoring={"without": ["cadvisor", "loki"]}))
NAME = "203.0.113.10"
ALL = [target("node", NAME), target("edge", NAME), target("prometheus", NAME)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setattr(ready, "PAUSE", 0.01)
    with stack(monkeypatch) as found:
        yield found


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    with link(tmp_path, monkeypatch) as found:
        yield found


@pytest.mark.parametrize(
    ("seen", "silent"),
    [
        (ALL, []),
        ([*ALL, target("probe", "http://x", "refused"), target("app", NAME, "refused")], []),
        ([], [f"edge of {NAME}: not known to Prometheus yet", f"node of {NAME}: not known to Prometheus yet"]),
        (ALL[1:], [f"node of {NAME}: not known to Prometheus yet"]),
        ([*ALL[1:], target("node", NAME, "connection refused")], [f"node of {NAME}: connection refused"]),
        ([*ALL[1:], target("node", NAME, health="unknown")], [f"node of {NAME}: not asked yet"]),
        ([*ALL, target("grafana", "", "refused")], ["grafana of : refused"]),
        ([*ALL[1:], target("node", "elsewhere")], [f"node of {NAME}: not known to Prometheus yet"]),
    ],
)
def test_everything_that_is_watched_has_to_answer_but_for_what_need_not_be_there_yet(
    seen: list[dict[str, Any]], silent: list[str]
) -> None:
    assert _silent(seen, KNOWN) == silent


def test_it_is_waited_until_everything_answers_and_told_how_much_lacks(line: Link, server: Stack) -> None:
    answers: Iterator[Said] = iter([(503, "Service Unavailable"), targets(), targets(*ALL[1:]), targets(*ALL)])
    server.answers["/api/v1/targets"] = lambda: next(answers)
    said: list[str] = []
    assert await_targets(line, KNOWN, 20, said.append, str) == 3
    assert said == ["waiting for 2 targets", "waiting for 1 target"]
    assert set(server.asked) == {"/api/v1/targets?state=active"}


def test_of_one_server_only_its_own_targets_are_waited_for(line: Link, server: Stack) -> None:
    """An upgrade changes one server after the other: another that is ill is no reason to put this one back."""
    pair = inventory(environment(ONE, TWO, monitoring={"without": ["cadvisor", "loki"]}))
    other = [target("node", "203.0.113.11:2222", "refused"), target("grafana", "", "refused")]
    server.answers["/api/v1/targets"] = targets(*ALL, *other)
    assert await_targets(line, pair, 5, lambda what: None, str, NAME) == 3
    with pytest.raises(Failed, match=r"203\.0\.113\.11:2222: refused"):
        await_targets(line, pair, 0.05, lambda what: None, str)


def test_what_never_answers_is_named_with_the_reason(line: Link, server: Stack) -> None:
    server.answers["/api/v1/targets"] = targets(*ALL[1:], target("node", NAME, "connection refused"))
    with pytest.raises(Failed, match=f"node of {NAME}: connection refused"):
        await_targets(line, KNOWN, 0.05, lambda what: None, str)


def test_waiting_ends_where_a_container_does_not_stay_up(line: Link, server: Stack) -> None:
    server.answers["/api/v1/targets"] = targets()
    with pytest.raises(Failed, match="loki: bad field"):
        await_targets(line, KNOWN, 60, lambda what: None, lambda: "loki: bad field")


def figures(service: str, *, good: bool, when: float) -> str:
    prefix = f"{service}_config_last_reload_"
    return f"# TYPE x gauge\n{prefix}successful {int(good)}\n{prefix}success_timestamp_seconds {when!r}\nother 1\n"


def after(server: Stack, service: str, before: tuple[bool, float], *then: tuple[bool, float]) -> Callable[[], None]:
    """Return a signal after which a service says one thing after the other."""
    server.answers["/metrics"] = figures(service, good=before[0], when=before[1])
    answers = iter(then)

    def signal() -> None:
        last = [before]

        def answer() -> str:
            last[0] = next(answers, last[0])
            return figures(service, good=last[0][0], when=last[0][1])

        server.answers["/metrics"] = answer

    return signal


@pytest.mark.parametrize("service", ["prometheus", "alertmanager"])
def test_files_are_read_anew_once_a_later_time_of_success_is_told(line: Link, server: Stack, service: str) -> None:
    reload(line, service, after(server, service, (True, 1.7637e9), (True, 1.7637e9), (True, 1.7637e9 + 0.5)))
    assert len(server.asked) == 3


def test_files_that_are_refused_are_told_at_once(line: Link, server: Stack) -> None:
    with pytest.raises(Failed, match="did not take its changed files") as caught:
        reload(line, "prometheus", after(server, "prometheus", (True, 5.0), (True, 5.0), (False, 5.0)))
    assert "docker logs tidegate-monitoring-prometheus-1" in caught.value.fix


def test_an_earlier_failure_is_not_taken_for_this_one(line: Link, server: Stack) -> None:
    reload(line, "prometheus", after(server, "prometheus", (False, 5.0), (False, 5.0), (False, 5.0), (True, 6.0)))


def test_a_service_that_never_reads_them_is_not_waited_for_for_ever(
    line: Link, server: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "RELOAD_SECONDS", 0.05)
    with pytest.raises(Failed, match="did not take"):
        reload(line, "prometheus", after(server, "prometheus", (True, 5.0)))


def test_a_service_that_tells_no_figures_is_not_signalled(line: Link, server: Stack) -> None:
    signals: list[str] = []
    server.answers["/metrics"] = (502, "Bad Gateway")
    with pytest.raises(Refused, match="alertmanager tells no figures"):
        reload(line, "alertmanager", lambda: signals.append("HUP"))
    assert signals == []
