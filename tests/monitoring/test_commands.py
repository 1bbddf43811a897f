"""What comes of monitoring commands: what is said, what is printed for programs, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from monitoring import drilling, reading
from monitoring.drilling import DrillFile, drill_of
from monitoring.inventory import inventory
from monitoring.live import Http
from monitoring.reading import read
from monitoring.show import add_silence, came_up, up_document
from monitoring.up import Done, _passed_on, _remarks
from ops.config import Environment, Monitoring
from ops.console import Console
from ops.errors import ConfigError, Locked, Refused
from ops.link import Link
from ops.secret import Secret
from tests.local_ssh import HOST, install_ssh
from tests.local_ssh import environment as local
from tests.monitoring.a_stack import Said, Stack, link, owned, stack
from tests.monitoring.watched import environment

DONE = Done("production", {"203.0.113.10": ["gate", "prometheus"]}, 12, 3.5, Secret("hunter2"), ["nobody is told of alerts"])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    with stack(monkeypatch) as found:
        yield found


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    with link(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment whose server is this machine, and has its stack."""
    install_ssh(tmp_path, monkeypatch)
    owned(tmp_path, monkeypatch)
    return local(tmp_path)


def test_an_environment_that_is_watched_says_by_what_and_the_password_once(capsys: pytest.CaptureFixture[str]) -> None:
    came_up(Console(), DONE)
    shown = capsys.readouterr().out
    for word in ("gate, prometheus", "! nobody is told of alerts", "password hunter2", "12 targets answer", "monitoring.drill"):
        assert word in shown


def test_programs_get_no_password_but_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    came_up(Console(as_json=True), DONE)
    shown = capsys.readouterr()
    assert "password in /srv/tidegate/monitoring/grafana/secrets/" in shown.err
    assert "hunter2" not in shown.out + shown.err
    document = up_document(DONE)
    assert "hunter2" not in json.dumps(document)
    assert document["services"] == {"203.0.113.10": ["gate", "prometheus"]}
    assert set(document) == {"environment", "services", "targets", "seconds", "remarks"}


@pytest.mark.parametrize(
    ("monitoring", "app", "said"),
    [
        ({}, {}, ["nobody is told", "nobody notices", "errors and slow answers"]),
        ({"slack": {"webhook": "S"}, "heartbeat": "B"}, {"metrics": {}}, []),
        ({"webhooks": {"pager": {"url": "P"}}, "heartbeat": "B"}, {"metrics": {}}, []),
        ({"slack": {"webhook": "S"}, "heartbeat": "B", "without": ["loki"]}, {"metrics": {}}, ["left out: collector, loki"]),
    ],
)
def test_what_a_stack_lacks_is_remarked_on(monitoring: Any, app: Any, said: list[str]) -> None:
    env = environment(app=app, monitoring=monitoring)
    found = list(_remarks(env, inventory(env)))
    assert len(found) == len(said)
    assert all(word in remark for word, remark in zip(said, found, strict=True))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Container tidegate-monitoring-prometheus-1 Creating", []),
        ("Container tidegate-monitoring-prometheus-1 Healthy", ["prometheus Healthy"]),
        ("Container tidegate-monitoring-edge-exporter-1 Started", ["edge-exporter Started"]),
        ("Container tidegate-monitoring-loki-1 Error", ["loki Error"]),
    ],
)
def test_of_composes_words_those_are_passed_on_that_are_news(said: str, shown: list[str]) -> None:
    found: list[str] = []
    _passed_on("one", said, lambda server, what: found.append(what))
    assert found == shown


def test_the_drills_file_is_put_for_everybody_to_read_and_removed(
    line: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drilling, "METRICS", str(tmp_path))
    drill, file = DrillFile(Http(line)), tmp_path / "drill.prom"
    for _ in range(2):
        drill.put("tidegate_drill 1\n")
        assert (file.read_text(), file.stat().st_mode & 0o777) == ("tidegate_drill 1\n", 0o644)
    for _ in range(2):
        drill.remove()
        assert not file.exists()


def test_without_anybody_to_tell_there_is_no_drill(env: Environment, server: Stack) -> None:
    server.answers["/api/v2/receivers"] = "[]"
    with pytest.raises(Refused, match="nobody is told of alerts"):
        drill_of(env, 1.0)


def test_a_drill_is_refused_while_somebody_works_on_the_stack_and_asks_nothing(
    env: Environment, server: Stack, tmp_path: Path
) -> None:
    other = Link(env, HOST)
    try:
        other.call(
            "lock", path=str(tmp_path / "monitoring.lock"), holder={"what": "monitoring.up", "who": "ann", "since": "noon"}
        )
        with pytest.raises(Locked, match=r"monitoring\.up"):
            drill_of(env, 1.0)
    finally:
        other.close()
    assert server.asked == []


def test_how_long_a_silence_lasts_is_said_in_units(line: Link) -> None:
    for lasts in ("", "2", "2 hours", "tomorrow", "-1h"):
        with pytest.raises(ConfigError, match="how long is the silence") as caught:
            add_silence(Console(), Http(line), (), lasts, "")
        assert caught.value.fix == "--for 2h"


def test_logs_that_are_not_collected_are_not_asked_for(tmp_path: Path) -> None:
    env = local(tmp_path).model_copy(update={"monitoring": Monitoring(without=("loki",))})
    with pytest.raises(Refused, match="logs are not collected"):
        read(Console(), env, "", "1h", 10, follow=False)


def test_since_when_is_said_in_units(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="since when"):
        read(Console(), local(tmp_path), "", "yesterday", 10, follow=False)


def logged(*lines: tuple[int, str]) -> str:
    values = [[str(time), text] for time, text in lines]
    streams = [{"stream": {"container": "blog-web"}, "values": values}]
    return json.dumps({"status": "success", "data": {"resultType": "streams", "result": streams}})


def test_lines_are_printed_the_oldest_first(env: Environment, server: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    now = round(datetime.now(UTC).timestamp() * 1e9)
    server.answers["/loki/api/v1/query_range"] = logged((now - 1, "second"), (now - 2, "first"))
    read(Console(), env, "", "1h", 10, follow=False)
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["first", "second"]
    assert "query=%7Bapp%3D%22blog%22%7D" in server.asked[0]


def test_for_programs_each_line_is_a_document_of_its_own_and_there_is_nothing_else(
    env: Environment, server: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    now = round(datetime.now(UTC).timestamp() * 1e9)
    server.answers["/loki/api/v1/query_range"] = logged((now - 2, "first\nof two"), (now - 1, "\x1b[31msecond"))
    read(Console(as_json=True), env, "", "1h", 10, follow=False)
    shown = capsys.readouterr()
    assert [json.loads(line) for line in shown.out.splitlines()] == [
        {"time": now - 2, "labels": {"container": "blog-web"}, "line": "first\nof two"},
        {"time": now - 1, "labels": {"container": "blog-web"}, "line": "\x1b[31msecond"},
    ]
    assert "\x1b" not in shown.out
    assert shown.err == ""


def test_where_there_are_none_it_is_said(env: Environment, server: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers["/loki/api/v1/query_range"] = logged()
    read(Console(), env, "oom", "2h", 10, follow=False)
    assert capsys.readouterr().out == 'nothing for {app="blog"} |= "oom" in the last 2h\n'


def test_lines_that_come_later_are_followed_until_somebody_ends_it(
    env: Environment, server: Stack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = round(datetime.now(UTC).timestamp() * 1e9)
    answers: Iterator[Said] = iter([logged((now, "before")), logged((now + 1, "after")), (500, "ended")])
    server.answers["/loki/api/v1/query_range"] = lambda: next(answers)
    monkeypatch.setattr(reading, "PAUSE", 0.01)
    with pytest.raises(Exception, match="loki refuses the question"):
        read(Console(), env, "", "1h", 10, follow=True)
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["before", "after"]
