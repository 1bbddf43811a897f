"""What a drill reports; the drill itself is in tests/integration/test_alert_delivery.py."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

import pytest

from monitoring.drill import Report, Stage, drill
from monitoring.live import PORTS, Http
from monitoring.live_alertmanager import Tally, tallies
from ops.errors import Refused

METRICS = """\
# HELP alertmanager_notification_requests_total The total number of attempted notification requests.
# TYPE alertmanager_notification_requests_total counter
alertmanager_notification_requests_total{integration="slack",receiver_name="drill-slack"} 5
alertmanager_notification_requests_failed_total{integration="slack",receiver_name="drill-slack"} 2
alertmanager_notifications_total{integration="slack",receiver_name="drill-slack"} 4
alertmanager_notifications_failed_total{integration="slack",reason="clientError",receiver_name="drill-slack"} 1
alertmanager_notifications_failed_total{integration="slack",reason="other",receiver_name="drill-slack"} 0
alertmanager_notification_requests_total{integration="webhook",receiver_name="odd \\" name"} 1e+06
alertmanager_notification_latency_seconds_sum{integration="slack",receiver_name="drill-slack"} 0.1
alertmanager_alerts{state="active"} 3
"""


@dataclass
class Folder:
    """The textfile, as it was written and whether it is there."""

    texts: list[str] = field(default_factory=list)
    there: bool = False

    def put(self, text: str) -> None:
        self.texts.append(text)
        self.there = True

    def remove(self) -> None:
        self.there = False


class Deaf(Http):
    """A stack that is up and never sees anything: what Prometheus is asked for, it has not, but for the time."""

    def __init__(self, receivers: list[str]) -> None:
        self.name = "web1"
        self._receivers = receivers

    def ask(self, method: str, port: int, path: str, body: str | None = None, timeout: float = 10.0) -> tuple[int, str]:
        if port == PORTS["prometheus"]:
            found = [{"metric": {}, "value": [0, "1795442400"]}] if "vector%28time" in path else []
            return 200, json.dumps({"status": "success", "data": {"result": found}})
        return 200, json.dumps([{"name": name} for name in self._receivers]) if "receivers" in path else METRICS


def test_what_a_receiver_took_is_what_was_tried_and_did_not_fail() -> None:
    found = tallies(METRICS)
    assert found["drill-slack"] == Tally(tried=5, failed=2, given_up={"clientError": 1, "other": 0})
    assert found["drill-slack"].delivered == 3
    assert found['odd \\" name'].tried == 1_000_000
    assert found["never heard of"] == Tally()


def test_a_drill_that_gets_stuck_says_where_and_leaves_nothing() -> None:
    folder = Folder()
    report = drill(Deaf(["drill-slack"]), folder, ["slack"], timeout=0)
    assert report.stages == (Stage("scraped", None, "the node exporter is not scraped, or does not read its folder"),)
    assert not report.ok
    assert folder.texts[0].endswith(f'tidegate_drill_started_timestamp_seconds{{id="{report.id}"}} 1795442400\n')
    assert not folder.there


def test_a_drill_that_is_interrupted_leaves_nothing() -> None:
    class Interrupted(Deaf):
        def ask(self, method: str, port: int, path: str, body: str | None = None, timeout: float = 10.0) -> tuple[int, str]:
            if "drill_started" in path:
                raise KeyboardInterrupt
            return super().ask(method, port, path, body, timeout)

    folder = Folder()
    with pytest.raises(KeyboardInterrupt):
        drill(Interrupted(["drill-slack"]), folder, ["slack"])
    assert folder.texts
    assert not folder.there


class Muted(Deaf):
    """A stack on which the alert fires and is told to nobody."""

    def __init__(self, **status: list[str]) -> None:
        super().__init__(["drill-slack"])
        self._alert = {"status": {"silencedBy": [], "inhibitedBy": [], **status}}

    def ask(self, method: str, port: int, path: str, body: str | None = None, timeout: float = 10.0) -> tuple[int, str]:
        if "/alerts" in path:
            return 200, json.dumps([self._alert])
        if port == PORTS["prometheus"]:
            return 200, json.dumps({"status": "success", "data": {"result": [{"metric": {}, "value": [0, "1795442400"]}]}})
        return super().ask(method, port, path, body, timeout)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ({"silencedBy": ["an-id"]}, "silenced: inv monitoring.silence --expire an-id"),
        ({"inhibitedBy": ["another"]}, "muted by another alert (another)"),
    ],
)
def test_a_drill_that_is_muted_ends_at_once_and_says_by_what(status: dict[str, list[str]], why: str) -> None:
    folder, began = Folder(), time.monotonic()
    report = drill(Muted(**status), folder, ["slack"], timeout=60)
    assert time.monotonic() - began < 10
    assert (report.ok, report.receivers) == (False, (Stage("slack", None, why),))
    assert not folder.there


def test_a_drill_without_anybody_to_tell_is_refused_before_anything() -> None:
    folder = Folder()
    with pytest.raises(Refused, match="nobody is told of alerts"):
        drill(Deaf([]), folder, [])
    assert folder.texts == []


def test_a_report_is_good_only_when_everybody_has_it() -> None:
    stages = (Stage("scraped", 3.0), Stage("firing", 9.5), Stage("in Alertmanager", 10.0))
    assert not Report("x", stages).ok
    assert not Report("x", stages, (Stage("slack", 10.5), Stage("email", None, "refused"))).ok
    good = Report("x", stages, (Stage("slack", 10.5), Stage("email", 11.0)))
    assert (good.ok, good.seconds) == (True, 11.0)
    assert json.loads(json.dumps(good.document()))["receivers"][0] == {"name": "slack", "seconds": 10.5, "why": ""}


def test_a_report_in_words_has_a_line_for_each_step() -> None:
    report = Report("x", (Stage("scraped", 3.0),), (Stage("slack", 10.5), Stage("email", None, "tried 3 times without success")))
    assert list(report.lines()) == ["  3.0 s  scraped", " 10.5 s  slack", "  never  email: tried 3 times without success"]
