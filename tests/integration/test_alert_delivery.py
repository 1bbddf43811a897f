"""Alerts that arrive: what a real Alertmanager tells real receivers, what it mutes, and what a drill says of it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from monitoring import silences
from monitoring.alertmanager import render
from monitoring.drill import drill
from monitoring.for_deploy import DeployWatch
from monitoring.live_alertmanager import Alertmanager
from ops.config import Monitoring
from ops.errors import ConfigError, Refused
from tests.integration.alerting import RUNBOOKS, Chain, Textfile, chain, settled

pytestmark = pytest.mark.integration
Labels = dict[str, str]
_apps = (f"app{number}" for number in count(1))

SAYS = {
    "summary": "web1: only 3% of /dev/sda1 is free <soon none>",
    "description": "Nothing can be written soon.",
    "action": "Look at what grows: du -xh / & sort.",
    "runbook": "DiskFull.md",
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with chain(tmp_path_factory.mktemp("chain"), "1s") as running:
        yield running


@pytest.fixture
def stack(running: Chain) -> Iterator[Chain]:
    """The stack, on which nothing of a test before fires or is silenced any more."""
    yield running
    alertmanager = Alertmanager(running.http)
    running.resolve(*(one["labels"] for one in alertmanager.alerts()))
    for silence in silences.listed(running.http):
        alertmanager.expire(silence.id)


@pytest.fixture
def app() -> str:
    """A name of its own for each test, and so a group of alerts of its own."""
    return next(_apps)


def alert(name: str, severity: str = "critical", /, **labels: str) -> Labels:
    return {"alertname": name, "severity": severity, "environment": "production", **labels}


def test_a_critical_alert_says_in_slack_what_it_is_what_to_do_and_how_to_silence_it(stack: Chain, app: str) -> None:
    stack.fire(alert("DiskFull", host="web1", app=app), **SAYS)
    (said,) = stack.web.first(lambda post: post.path == "/slack" and app in str(post.body)).body["attachments"]
    assert said["title"] == f"[CRITICAL] DiskFull of {app} on web1 (production)"
    assert said["color"] == "danger"
    assert "*web1: only 3% of /dev/sda1 is free &lt;soon none&gt;*" in said["text"]
    assert "*Do first:* Look at what grows: du -xh / &amp; sort." in said["text"]
    assert f"*Runbook:* {RUNBOOKS}/DiskFull.md\n" in said["text"]
    assert f"`inv monitoring.silence -e production --alert DiskFull --host web1 --app {app}`" in said["text"]
    form = f"http://localhost:7812/#/silences/new?filter=%7Balertname%3D%22DiskFull%22%2Chost%3D%22web1%22%2Capp%3D%22{app}%22%7D"
    assert f"<{form}|in Alertmanager>" in said["text"]


def test_it_comes_by_mail_too_encrypted_and_logged_in(stack: Chain, app: str) -> None:
    stack.fire(alert("DiskFull", host="web1", app=app), **SAYS)
    got = stack.mail.first(lambda mail: app in mail.subject)
    assert (got.encrypted, got.login) == (True, "tidegate correct horse")
    assert got.recipients == ("ops@example.com", "cto@example.com")
    assert got.subject == f"[CRITICAL] DiskFull of {app} on web1 (production)"
    text = got.part("plain")
    assert text.startswith("web1: only 3% of /dev/sda1 is free <soon none> (since 2")
    assert f"Do first: Look at what grows: du -xh / & sort.\nRunbook: {RUNBOOKS}/DiskFull.md\n" in text
    assert f"Silence: inv monitoring.silence -e production --alert DiskFull --host web1 --app {app}\n" in text
    assert "is free &lt;soon none&gt;" in got.part("html")


def test_an_alert_that_resolves_says_so(stack: Chain, app: str) -> None:
    labels = alert("DiskFull", host="web1", app=app)
    stack.fire(labels, **SAYS)
    stack.mail.first(lambda mail: app in mail.subject)
    stack.resolve(labels, **SAYS)
    got = stack.mail.first(lambda mail: app in mail.subject and "RESOLVED" in mail.subject)
    assert got.subject == f"[RESOLVED] DiskFull of {app} on web1 (production)"
    assert got.part("plain").strip() == f"Resolved: {SAYS['summary']}"
    post = stack.web.first(lambda post: post.path == "/slack" and f"[RESOLVED] DiskFull of {app}" in str(post.body))
    assert post.body["attachments"][0]["color"] == "good"


def test_alerts_of_one_name_and_app_come_as_one_message(stack: Chain, app: str) -> None:
    stack.fire(*(alert("DiskFull", host=f"web{number}", app=app) for number in range(12)), **SAYS)
    got = stack.mail.first(lambda mail: app in mail.subject)
    assert got.subject == f"[CRITICAL] DiskFull of {app} (production), 12 firing"
    assert got.part("plain").count(SAYS["summary"]) == 10
    assert "… and more" in got.part("plain")


def test_an_alert_of_somebodys_own_rule_is_told_by_its_name(stack: Chain, app: str) -> None:
    stack.fire({"alertname": "Own", "severity": "critical", "app": app})
    got = stack.mail.first(lambda mail: app in mail.subject)
    assert got.subject == f"[CRITICAL] Own of {app} (production)"
    assert re.fullmatch(r"Own \(since .{16} UTC\)\n\nSilence: .*\n    or, while .*\n", got.part("plain"))


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"slack": {"webhook": "A"}},
        {"email": {"server": "smtp.example.com:465", "sender": "a@example.com", "to": ["b@example.com"]}, "heartbeat": "B"},
    ],
)
def test_alertmanager_takes_a_configuration_with_as_little_as_there_can_be(running: Chain, told: dict[str, Any]) -> None:
    (text,) = (one.content for one in render(Monitoring.model_validate(told), "production") if one.path.endswith(".yml"))
    (running.folder / "little.yml").write_text(text)
    assert "SUCCESS" in running.amtool("check-config", "/etc/tidegate/little.yml")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ("severity=critical", "slack,email,webhook-pager"),
        ("severity=warning", "slack,webhook-pager"),
        ("severity=info", "webhook-pager,webhook-broken,webhook-absent"),
        ("severity=none", "nobody"),
        ("severity=page", "slack,webhook-pager"),  # of somebody's own rule: nothing falls through
        ("alertname=Watchdog severity=none", "heartbeat"),
        ("alertname=Watchdog severity=critical", "heartbeat"),
        ("alertname=TidegateDrill severity=info", "drill-slack,drill-email,drill-webhook-pager,drill-webhook-broken,drill-webhook-absent"),
    ],
)  # fmt: skip
def test_everybody_hears_of_the_severities_that_they_asked_for(running: Chain, labels: str, told: str) -> None:
    routed = running.amtool("config", "routes", "test", "--config.file=/etc/tidegate/alertmanager.yml", *labels.split())
    assert routed == told


def test_the_watchdog_goes_to_the_heartbeat_again_and_again_and_to_nobody_else(stack: Chain) -> None:
    before = len(stack.web.all())
    stack.fire(alert("Watchdog", "none"))
    stack.web.first(lambda post: post.path == "/beat" and post.body["notification_reason"] == "first notification")
    beats = [post for post in stack.web.all()[before:] if "Watchdog" in post.alerts]
    assert {post.path for post in beats} == {"/beat"}


WEB1 = {"host": "web1", "instance": "web1"}
# What fires; which of these are muted by which; all else is told.
ONE_CAUSE_ONE_PAGE = [
    pytest.param(
        [alert("HostDown", **WEB1), alert("TargetDown", "warning", job="node", **WEB1), alert("BackupStale", "warning", **WEB1),
         alert("ContainerMissing", container="x", **WEB1), alert("ProbeFailed", app="x", instance="https://x"),
         alert("ErrorBudgetBurn", app="x", window="1h"), alert("TargetDown", "warning", job="node", host="web2"), alert("Watchdog", "none")],
        {1: 0, 2: 0, 3: 0}, id="a server that is down",
    ),
    pytest.param(
        [alert("HostDown", **WEB1), alert("AppMetricsDown", "warning", app="x", **WEB1), alert("TidegateDrill", "info", **WEB1)],
        {1: 0}, id="a drill is told even then",
    ),
    pytest.param(
        [alert("ErrorBudgetBurn", app="x", window="1h"), alert("ErrorBudgetBurn", "warning", app="x", window="3d"),
         alert("ErrorBudgetBurn", "warning", app="y", window="3d"), alert("LatencyBudgetBurn", "warning", app="x", window="3d")],
        {1: 0}, id="the faster burn",
    ),
    pytest.param(
        [alert("DiskFull", host="web1", device="/dev/sda1"), alert("DiskWillFill", "warning", host="web1", device="/dev/sda1"),
         alert("DiskWillFill", "warning", host="web1", device="/dev/sdb1")],
        {1: 0}, id="a full disk",
    ),
    pytest.param(
        [alert("ProbeFailed", app="x", instance="https://x"), alert("EdgeDown", **WEB1),
         alert("ContainerMissing", container="tidegate-edge", **WEB1), alert("ContainerMissing", container="x-web", app="x", **WEB1),
         alert("ContainerMissing", container="y-web", app="y", **WEB1), alert("AppMetricsDown", "warning", app="x", **WEB1)],
        {1: 0, 2: 0, 3: 0, 5: 3}, id="users are not served",
    ),
    pytest.param(
        [alert("ContainerMissing", container="tidegate-edge", **WEB1), alert("EdgeDown", **WEB1), alert("EdgeDown", host="web2")],
        {1: 0}, id="an edge that is not there",
    ),
    pytest.param(
        [alert("CertificateExpired", app="x", instance="https://x"), alert("ProbeFailed", app="x", instance="https://x"),
         alert("ProbeFailed", app="x", instance="https://y")],
        {1: 0}, id="an expired certificate",
    ),
    pytest.param(
        [alert("ContainerMissing", container="x-web", app="x", **WEB1), alert("AppMetricsDown", "warning", app="x", **WEB1),
         alert("AppMetricsDown", "warning", app="x", host="web2"), alert("ContainerRestarting", "warning", container="x-worker", app="x", **WEB1)],
        {1: 0}, id="an app that is not there",
    ),
    pytest.param(
        [alert("PostgresDown", **WEB1), alert("ContainerUnhealthy", "warning", container="x-web", app="x", host="web2"),
         alert("LogErrorSpike", "warning", app="x", host="web2"), alert("ErrorBudgetBurn", app="x", window="1h")],
        {1: 0, 2: 0}, id="a database that is down",
    ),
    pytest.param(
        [alert("BackupFailed", "warning", app="x", **WEB1), alert("BackupStale", "warning", app="x", **WEB1),
         alert("BackupStale", "warning", app="x", host="web2"), alert("BackupTooSmall", "warning", app="x", **WEB1)],
        {1: 0}, id="backups fail",
    ),
    pytest.param(
        [alert("TargetDown", "warning", job="collector", **WEB1), alert("NoLogsIngested", "warning", host="web2"),
         alert("NoLogsIngested", "warning")],
        {1: 0, 2: 0}, id="nobody collects logs",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("alerts", "muted"), ONE_CAUSE_ONE_PAGE)
def test_one_cause_gives_one_page(stack: Chain, alerts: list[Labels], muted: dict[int, int]) -> None:
    stack.fire(*alerts)
    assert settled(lambda: causes(stack, alerts), muted) == muted


def causes(stack: Chain, alerts: list[Labels]) -> dict[int, int]:
    """Return by which alert each one is muted that is."""
    known = {one["fingerprint"]: one["labels"] for one in Alertmanager(stack.http).alerts()}
    by = {number: stack.status(labels)["inhibitedBy"] for number, labels in enumerate(alerts)}
    return {number: alerts.index(known[ids[0]]) for number, ids in by.items() if ids}


def test_what_is_muted_is_not_sent(stack: Chain, app: str) -> None:
    stack.fire(alert("ContainerMissing", host=app, app=app, container="x"), alert("AppMetricsDown", "warning", host=app, app=app))
    stack.web.first(lambda post: post.path == "/pager" and app in str(post.body))
    later = alert("ClockUnsynchronised", "warning", host=app)
    stack.fire(later)  # told a second after this, and so later than what was there before
    stack.web.first(lambda post: post.path == "/pager" and post.alerts == {"ClockUnsynchronised"} and app in str(post.body))
    names = {name for post in stack.web.all() if app in str(post.body) for name in post.alerts}
    assert names == {"ContainerMissing", "ClockUnsynchronised"}


def test_a_drill_reaches_everybody_and_leaves_nothing(stack: Chain) -> None:
    report = drill(stack.http, stack.textfile, ["slack", "email", "webhook-pager"], timeout=60, log=stack.log)
    assert report.ok, "\n".join(report.lines())
    assert [stage.name for stage in (*report.stages, *report.receivers)] == [
        "scraped", "firing", "in Alertmanager", "slack", "email", "webhook-pager",
    ]  # fmt: skip
    assert report.seconds < 20
    assert not stack.textfile.path.exists()
    post = stack.web.first(lambda post: post.path == "/pager" and report.id in str(post.body))
    (told,) = post.body["alerts"]
    assert post.body["receiver"] == "drill-webhook-pager"
    assert told["labels"] == {
        "alertname": "TidegateDrill", "environment": "production", "host": "web1", "id": report.id, "instance": "web1", "job": "node",
        "severity": "info",
    }  # fmt: skip
    assert told["annotations"]["summary"].startswith("A drill of web1, begun ")
    assert told["annotations"]["runbook"] == "TidegateDrill.md"
    assert stack.mail.first(lambda mail: "TidegateDrill" in mail.subject).subject == "[INFO] TidegateDrill on web1 (production)"


def test_a_drill_that_does_not_arrive_everywhere_fails_and_says_where_and_why(stack: Chain) -> None:
    report = drill(stack.http, stack.textfile, ["webhook-pager", "webhook-broken", "webhook-absent"], timeout=6, log=stack.log)
    assert not report.ok
    pager, broken, absent = report.receivers
    assert pager.seconds is not None
    assert (broken.seconds, absent.seconds) == (None, None)
    assert "times without success: unexpected status code 500: out of order" in broken.why
    assert "connect: connection refused" in absent.why
    assert "/broken" not in broken.why  # the path of a webhook is its secret
    assert not stack.textfile.path.exists()


def test_a_drill_that_is_silenced_says_by_which_silence(stack: Chain) -> None:
    silence = silences.add(stack.http, silences.matchers(host="web1"), timedelta(hours=1), "test", "")
    report = drill(stack.http, stack.textfile, ["webhook-pager"], timeout=4)
    assert report.receivers[0].why == f"silenced: inv monitoring.silence --expire {silence.id}"


def test_a_drill_of_receivers_that_alertmanager_does_not_know_is_refused(stack: Chain) -> None:
    with pytest.raises(Refused, match="alertmanager does not know webhook-new"):
        drill(stack.http, stack.textfile, ["slack", "webhook-new"])


def test_a_silence_is_listed_and_ends_when_it_is_told_to(stack: Chain, app: str) -> None:
    fires = alert("DiskFull", host="web1", app=app)
    stack.fire(fires, **SAYS)
    added = silences.add(
        stack.http, silences.matchers(alert="DiskFull,InodesLow", app=app), timedelta(hours=2), "me", "new disk comes"
    )
    assert silences.muted(stack.http, added) == [SAYS["summary"]]
    assert stack.status(fires)["silencedBy"] == [added.id]
    (listed,) = silences.listed(stack.http)
    assert (listed.id, listed.by, listed.comment, listed.state) == (added.id, "me", "new disk comes", "active")
    assert timedelta(minutes=119) < listed.ends - datetime.now(UTC) <= timedelta(hours=2)
    silences.expire(stack.http, added.id[:8])
    assert silences.listed(stack.http) == []
    assert settled(lambda: stack.status(fires)["silencedBy"], []) == []
    with pytest.raises(ConfigError, match="which silence"):
        silences.expire(stack.http, added.id)


SWAP = [alert(name, "warning", app="blog", host="web1") for name in ("ContainerMissing", "ContainerRestarting", "AppMetricsDown")]
NOT_OF_THE_SWAP = [
    alert("ContainerMissing", app="shop", host="web1"), alert("ContainerMissing", app="blog", host="web3"),
    alert("ContainerMissing", container="tidegate-edge", host="web1"), alert("TargetDown", "warning", host="web1", job="node"),
    alert("ErrorBudgetBurn", app="blog", window="1h"), alert("LatencyBudgetBurn", app="blog", window="1h"),
    alert("ProbeFailed", app="blog", instance="https://blog"), alert("ProbeSlow", "warning", app="blog", instance="https://blog"),
    alert("BackupFailed", "warning", app="blog", host="web1"), alert("DeployFailed", "warning", app="blog", host="web1"),
    alert("HostDown", host="web2"), alert("Watchdog", "none"),
]  # fmt: skip


def test_a_deploy_silences_the_containers_that_it_swaps_and_nothing_else(stack: Chain) -> None:
    remark = DeployWatch(stack.http).begin("blog", ["web1", "web2"], "20261123-1")
    (silence,) = silences.listed(stack.http)
    assert remark == f"alerts of blog's containers are silent until {silence.ends:%H:%M} UTC"
    assert silence.comment == "deploy of blog, release 20261123-1"
    stack.fire(*SWAP, *NOT_OF_THE_SWAP)
    assert [stack.status(labels)["silencedBy"] for labels in SWAP] == [[silence.id]] * len(SWAP)
    assert [stack.status(labels)["silencedBy"] for labels in NOT_OF_THE_SWAP] == [[]] * len(NOT_OF_THE_SWAP)


def test_its_silence_ends_by_itself_should_the_deploy_be_killed(stack: Chain) -> None:
    DeployWatch(stack.http).begin("blog", ["web1"], "1")
    (silence,) = silences.listed(stack.http)
    assert silence.ends - datetime.now(UTC) <= timedelta(minutes=15)


def test_its_silence_ends_two_minutes_after_a_deploy(stack: Chain) -> None:
    watch = DeployWatch(stack.http)
    watch.begin("blog", ["web1"], "1")
    (before,) = silences.listed(stack.http)
    assert watch.end(ok=True).startswith("alerts of its containers are told again from ")
    (after,) = silences.listed(stack.http)
    assert after.id == before.id
    assert timedelta(seconds=100) < after.ends - datetime.now(UTC) <= timedelta(minutes=2)


def test_its_silence_ends_at_once_when_a_deploy_failed(stack: Chain) -> None:
    watch = DeployWatch(stack.http)
    watch.begin("blog", ["web1"], "1")
    assert watch.end(ok=False) == ""
    assert silences.listed(stack.http) == []


@pytest.mark.slow
def test_with_the_intervals_of_production_an_alert_arrives_within_45_seconds(tmp_path_factory: pytest.TempPathFactory) -> None:
    with chain(tmp_path_factory.mktemp("patient"), "15s", patient=True) as stack:
        condition = Textfile(stack.textfile.path.with_name("condition.prom"))
        for number in range(3):
            began = time.time()
            condition.put(f'condition{{app="app{number}"}} 1\n')
            report = drill(stack.http, stack.textfile, ["slack", "email", "webhook-pager"], log=stack.log)
            print("\n".join(report.lines()))
            assert report.ok
            post = stack.web.first(lambda post, app=f"app{number}": post.path == "/pager" and app in str(post.body), 45)  # type: ignore[misc]
            print(f"{post.at - began:5.1f} s  from a condition to its page")
            assert max(post.at - began, report.seconds) <= 45
