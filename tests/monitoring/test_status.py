"""How the stack stands, in words and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from monitoring import status
from monitoring.alerts import Matcher, Silence
from monitoring.live import Http, Prometheus
from monitoring.server import Server
from monitoring.show import silence_document
from monitoring.show import silences as show_silences
from monitoring.status import Container, Status, _alert, _asked, _containers, _silent, look, show
from ops.config import Environment, Monitoring
from ops.config_monitoring import Part
from ops.console import Console
from ops.link import Link
from tests.local_ssh import environment as local
from tests.local_ssh import install_ssh
from tests.monitoring.a_stack import Stack, link, stack, target, targets

GOOD = Container("one", "prometheus", "prom/prometheus:v3", "Up 3 hours (healthy)", "healthy", ok=True)
WATCHDOG = {"alert": "Watchdog", "severity": "none", "summary": "alerting works", "since": "2026-11-23T14:00:00Z", "muted": ""}
DISK = {"alert": "DiskFull", "severity": "critical", "summary": "one: / is full", "since": "2026-11-23T14:00:00Z", "muted": ""}
FINE = Status((GOOD,), (), 12, (WATCHDOG,), (), ())


class Listed(Server):
    """A server whose engine lists these containers."""

    def __init__(self, found: list[dict[str, Any]]) -> None:
        self.name = "one"
        self._found = found

    def containers(self) -> list[dict[str, Any]]:
        return self._found


def listed(service: str, state: str = "running", told: str = "Up 2 hours") -> dict[str, Any]:
    return {"Labels": {"com.docker.compose.service": service}, "State": state, "Status": told, "Image": f"{service}:1"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    with stack(monkeypatch) as found:
        yield found


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    with link(tmp_path, monkeypatch) as found:
        yield found


@pytest.mark.parametrize(
    ("found", "state", "health", "ok"),
    [
        ([listed("loki")], "Up 2 hours", "", True),
        ([listed("loki", told="Up 2 hours (healthy)")], "Up 2 hours (healthy)", "healthy", True),
        ([listed("loki", told="Up 2 hours (unhealthy)")], "Up 2 hours (unhealthy)", "unhealthy", False),
        ([listed("loki", told="Up 2 seconds (health: starting)")], "Up 2 seconds (health: starting)", "starting", False),
        ([listed("loki", "restarting", "Restarting (1) 4 seconds ago")], "Restarting (1) 4 seconds ago", "", False),
        ([listed("loki", "exited", "Exited (0) 2 days ago")], "Exited (0) 2 days ago", "", False),
        ([], "missing", "", False),
    ],
)
def test_a_service_is_well_where_it_runs_and_does_not_say_otherwise(
    found: list[dict[str, Any]], state: str, health: str, ok: bool
) -> None:
    (one,) = _containers(Listed(found), ["loki"])
    assert (one.service, one.state, one.health, one.ok) == ("loki", state, health, ok)


def test_what_runs_without_being_wanted_is_shown_too() -> None:
    assert [one.service for one in _containers(Listed([listed("promtail")]), ["alloy"])] == ["alloy", "promtail"]


@pytest.mark.parametrize(
    ("state", "ok"),
    [
        (FINE, True),
        (replace(FINE, alerts=(DISK,)), True),
        (replace(FINE, containers=()), False),
        (replace(FINE, containers=(GOOD, replace(GOOD, ok=False))), False),
        (replace(FINE, silent_targets=("node of one: refused",)), False),
        (replace(FINE, unknown=("loki does not answer",)), False),
    ],
)
def test_the_stack_is_well_where_all_of_it_works_whatever_it_warns_of(state: Status, ok: bool) -> None:
    assert state.ok == ok
    assert json.loads(json.dumps(state.document()))["ok"] == ok


def test_what_cannot_be_asked_is_said_and_the_rest_is_asked_all_the_same(line: Link, server: Stack) -> None:
    server.answers["/api/v1/targets"] = targets(target("node", "one"), target("edge", "one", "no route"))
    server.answers["/api/v1/query"] = (503, '{"status": "error", "error": "overloaded"}')
    unknown: list[str] = []
    http = Http(line)
    seen = _asked(http, unknown, lambda http: Prometheus(http).get("/api/v1/targets", state="active")["activeTargets"])
    assert list(_silent(seen)) == ["edge of one: no route"]
    assert _asked(http, unknown, lambda http: Prometheus(http).query("up")) == ()
    assert unknown == ["prometheus refuses the question: 503: overloaded"]


def test_where_nothing_listens_it_is_said_of_which_service(line: Link, server: Stack) -> None:
    server.server_close()
    unknown: list[str] = []
    assert _asked(Http(line), unknown, lambda http: Prometheus(http).query("up")) == ()
    assert "does not answer: " in unknown[0]


@pytest.fixture
def one(tmp_path: Path, line: Link, server: Stack, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment whose one server answers, with nothing wrong on it but that no alert is there."""
    found = Listed([listed(name) for name in ("prometheus", "alertmanager", "gate", "node")])
    found.link = line
    monkeypatch.setattr(status, "_server", lambda *_: found)
    server.answers |= {"/api/v1/targets": targets(target("node", "one")), "/api/v2/alerts": "[]", "/api/v2/silences": "[]"}
    return local(tmp_path).model_copy(update={"monitoring": Monitoring(without=LEAN)})


LEAN: tuple[Part, ...] = ("grafana", "loki", "cadvisor", "blackbox", "edge")


def vector(*values: float) -> str:
    result = [{"metric": {}, "value": [0, str(value)]} for value in values]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


def test_a_watchdog_that_does_not_arrive_is_told_for_nothing_else_would_be(one: Environment, server: Stack) -> None:
    server.answers["/api/v1/query"] = vector(400.0)
    (unknown,) = look(one).unknown
    assert "Watchdog does not reach Alertmanager" in unknown
    assert not look(one).ok
    firing = {"labels": {"alertname": "Watchdog"}, "annotations": {}, "startsAt": "2026-11-23T14:00:00Z",
              "status": {"silencedBy": [], "inhibitedBy": []}}  # fmt: skip
    server.answers["/api/v2/alerts"] = json.dumps([firing])
    assert (look(one).unknown, look(one).ok) == ((), True)


def test_a_prometheus_that_has_just_started_has_had_no_time_for_it(one: Environment, server: Stack) -> None:
    server.answers["/api/v1/query"] = vector()  # of 15 s: it has not even scraped itself
    assert (look(one).unknown, look(one).ok) == ((), True)
    (asked,) = {path for path in server.asked if path.startswith("/api/v1/query")}
    assert "process_start_time_seconds" in asked
    assert asked.endswith("+%3E+180")


def test_an_alertmanager_that_does_not_answer_is_told_once(one: Environment, server: Stack) -> None:
    server.answers |= {"/api/v1/query": vector(), "/api/v2/alerts": (500, "broken"), "/api/v2/silences": "[]"}
    assert look(one).unknown == ("alertmanager refuses the question: 500: broken",)


def test_a_server_that_does_not_answer_is_told_and_is_no_reason_to_tell_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_ssh(tmp_path, monkeypatch)("echo 'No route to host' >&2; exit 255")
    seen = look(local(tmp_path))
    assert (seen.ok, seen.containers, seen.targets) == (False, (), 0)
    (unknown,) = seen.unknown
    assert unknown.startswith("deploy@server.invalid: ")
    assert "No route to host" in unknown


@pytest.mark.parametrize(
    ("silenced", "inhibited", "muted"),
    [([], [], ""), (["id"], [], "silenced"), ([], ["id"], "muted"), (["a"], ["b"], "silenced")],
)
def test_an_alert_says_whether_anybody_is_told_of_it(silenced: list[str], inhibited: list[str], muted: str) -> None:
    found = {
        "labels": {"alertname": "DiskFull", "severity": "critical"}, "annotations": {"summary": "one: / is full"},
        "startsAt": "2026-11-23T14:00:00.123Z", "status": {"silencedBy": silenced, "inhibitedBy": inhibited},
    }  # fmt: skip
    assert _alert(found) == {**DISK, "muted": muted}
    assert _alert({**found, "labels": {"alertname": "x"}, "annotations": {}})["summary"] == ""


@pytest.mark.parametrize(
    ("state", "said", "unsaid"),
    [
        (FINE, ["✓", "12 of 12 targets answer", "no alert fires"], ["Watchdog"]),
        (replace(FINE, alerts=()), ["nothing would be told"], []),
        (replace(FINE, alerts=(WATCHDOG, DISK)), ["DiskFull", "one: / is full", "critical"], ["no alert fires", "Watchdog"]),
        (replace(FINE, alerts=({**DISK, "muted": "silenced"},)), ["silenced"], []),
        (replace(FINE, silent_targets=("node of one: refused",)), ["11 of 12 targets answer", "✗ node of one: refused"], []),
        (replace(FINE, silences=('alertname="x" until 2026-11-23 16:00 UTC',)), ['silence: alertname="x" until'], []),
        (replace(FINE, unknown=("alertmanager does not answer: refused",), alerts=()), ["✗ alertmanager does not answer"], []),
    ],
)
def test_it_is_shown_in_words(state: Status, said: list[str], unsaid: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    show(Console(), state)
    shown = capsys.readouterr().out
    assert [word for word in said if word not in shown] == []
    assert [word for word in unsaid if word in shown] == []


def test_a_silence_is_shown_with_its_end_and_who_wanted_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    moment = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
    about = (Matcher("alertname", "DiskFull"), Matcher("host", "a|b", pattern=True))
    one = Silence(about, moment, moment, "ann", "disk comes", "0123456789")
    show_silences(Console(), [one])
    shown = capsys.readouterr().out
    for word in ("01234567 ", 'alertname="DiskFull", host=~"a|b"', "2026-11-23 14:00 UTC", "ann", "disk comes"):
        assert word in shown
    assert silence_document(one) == {
        "id": "0123456789", "about": ['alertname="DiskFull"', 'host=~"a|b"'], "ends": "2026-11-23T14:00:00+00:00", "by": "ann",
        "comment": "disk comes",
    }  # fmt: skip
