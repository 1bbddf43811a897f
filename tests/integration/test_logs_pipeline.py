"""Logs from containers to Loki: nothing is lost on the way, and they are found by what they say."""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from monitoring import logs
from monitoring.logs import Line
from tests.integration.logs_stack import HOST, Http, Lab, image, lab, numbers, until

pytestmark = pytest.mark.integration

LINES = 100_000
HALF = LINES // 2
PAUSE = HALF + 30_000  # where the new container waits until the collector, back again, has read that far
WAIT = """trap 'go=1' USR1; until [ "$go" ]; do sleep 0.1; done; """
REPORT = """echo '{"level": "ERROR", "msg": "no stock"}'; exec sleep 600"""
TRACEBACK = """Traceback (most recent call last):
  File "/app/shop.py", line 7, in pay
    raise PaymentError("no money")

The above exception was the direct cause of the following exception:
shop.errors.PaymentError: no money"""


@dataclass
class Story:
    """What became of the lines."""

    loki: Http
    app: str
    since: int
    lines: list[Line]


@pytest.fixture(scope="module", params=["promtail", "alloy"])
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A swap, while which the collector is stopped, the old container writes its last lines and the engine rotates."""
    image(request.param)  # skips before anything is started
    with lab(tmp_path_factory.mktemp("logs"), uuid.uuid4().hex[:8]) as known:
        since = time.time_ns()
        loki = known.loki()
        _swap(known, loki, request.param)
        until(lambda: _read(loki, known.app, "no stock"), "the new one's last words are in Loki")
        query = logs.question(known.app, "")
        yield Story(loki, known.app, since, logs.read(loki, query, since, time.time_ns(), 2 * LINES))


def _swap(known: Lab, loki: Http, kind: str) -> None:
    collector = known.collector(kind)
    old = known.writer("r1", "blue", numbers(0, HALF) + f"printf '%s\\n' '{TRACEBACK}' >&2; echo goodbye", kind)
    until(lambda: _written(old) > HALF // 4, "the old container writes")
    new = known.writer("r2", "green", numbers(HALF, PAUSE) + WAIT + numbers(PAUSE, LINES) + REPORT, kind)
    until(lambda: _written(new) > HALF + 6000, "the new one writes too")
    collector.stop(timeout=10)
    old.stop(timeout=10)  # it still has much to say
    until(lambda: _written(new) == PAUSE - 1, "the engine rotated the new one's log several times while nobody read it")
    (known.root / "var-log/syslog").write_text("the disk is tired\n")
    collector.start()
    # An engine before 23 skips a file that it rotates while it gives out older ones: followLogs begins to watch for
    # rotation after them. With files of 10 MB instead of 1 that takes an app of several MB a second.
    until(lambda: _read(loki, known.app, f"line {PAUSE - 1:06d}"), "the collector has caught up")
    until(lambda: _read(loki, known.app, "Traceback") and _read(loki, known.app, "goodbye"), "so are the old one's last words")
    known.remove(old)
    new.kill("USR1")


def _read(loki: Http, app: str, text: str) -> bool:
    now = time.time_ns()
    return bool(logs.read(loki, logs.question(app, text), now - 300 * 10**9, now, 1))


def _written(container: object) -> int:
    """Return the number of the last line that a container wrote."""
    found = re.findall(rb"line (\d+)", container.logs(tail=3))  # type: ignore[attr-defined]
    return int(found[-1]) if found else -1


def test_no_line_is_lost_in_a_swap_a_restart_of_the_collector_and_log_rotation(story: Story) -> None:
    found = Counter(int(match[1]) for line in story.lines if (match := re.match(r"line (\d+),", line.text)))
    lost = sorted(set(range(LINES)) - set(found))
    twice = sum(found.values()) - len(found)
    counted = story.loki.value(f'sum(count_over_time({{app="{story.app}"}} |~ "^line [0-9]{{6}}," [15m]))')
    print(f"lost {len(lost)} of {LINES}, given twice {twice}, sent twice {counted - LINES:.0f}")
    assert not lost, f"{len(lost)} lines lost: {lost[:10]} …"
    assert twice <= LINES // 100


def test_lines_have_few_labels_that_say_whose_they_are(story: Story) -> None:
    streams = {tuple(sorted(stream["stream"].items())) for stream in _streams(story)}
    common = {"app": story.app, "container": f"{story.app}-web", "host": HOST, "job": "containers", "process": "web"}
    expected = [common | {"release": "r1", "slot": "blue"}, common | {"release": "r2", "slot": "green"}]
    assert sorted(streams) == sorted(tuple(sorted(one.items())) for one in expected)


def _streams(story: Story) -> list[dict[str, dict[str, str]]]:
    found = story.loki.get("/loki/api/v1/series", **{"match[]": f'{{app="{story.app}"}}', "start": story.since})["data"]
    return [{"stream": one} for one in found]


def test_a_traceback_is_one_entry(story: Story) -> None:
    (entry,) = [line for line in story.lines if "Traceback" in line.text]
    assert entry.text == TRACEBACK
    assert entry.labels["stream"] == "stderr"


def test_a_json_lines_level_can_be_asked_for(story: Story) -> None:
    (entry,) = logs.read(story.loki, f'{{app="{story.app}"}} | level="error"', story.since, time.time_ns(), 10)
    assert "no stock" in entry.text


def test_the_hosts_own_logs_are_there_too(story: Story) -> None:
    (entry,) = logs.read(story.loki, '{job="host"}', story.since, time.time_ns(), 10)
    assert (entry.text, entry.labels["host"], entry.labels["filename"]) == ("the disk is tired", HOST, "/var/log/host/syslog")
