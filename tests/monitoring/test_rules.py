"""The alert rules are whole: each says what to do, has its page, and is tried where it fires, where not, and where it ends."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.prometheus import NEEDS
from tests.docs.documents import ROOT, table_rows
from tests.docs.test_commands import assert_parses

RULES = ROOT / "monitoring" / "rules"
RUNBOOKS = ROOT / "docs" / "runbooks"
SEVERITIES = {"critical", "warning", "info", "none"}
FILES = sorted([*RULES.glob("*.yml"), *RULES.glob("loki/*.yml")])
ALWAYS = {"Watchdog"}  # has no quiet moment
# What is so or not so: there is no figure to tell.
YES_OR_NO = ALWAYS | {
    "TargetDown", "JobAbsent", "PrometheusReloadFailed", "AlertmanagerReloadFailed", "NoAlertmanager", "HostDown",
    "FilesystemReadOnly", "TextfileError", "ContainerMissing", "ContainerUnhealthy", "EdgeDown", "PostgresDown", "AppMetricsDown",
    "BackupAbsent", "BackupFailed", "DeployFailed", "NoLogsIngested",
}  # fmt: skip
# Expressions of published rule sets that cannot fire or fire for nothing, and what gives them away.
TRAPS = {
    'absent(container_last_seen{name!=""})': r"absent\([^)]*!=",  # absent while there is any container at all
    'node_filesystem_free_bytes{fstype="aufs"}': r"aufs|rootfs",  # a file system that engines gave up
    'sum by (pod) (container_memory_usage_bytes{pod!=""})': r"\b(pod|namespace|kube_\w+)\b",  # there is no Kubernetes to say so
    "time() - container_last_seen > 60": r"container_last_seen",  # is always now
    "rate(container_oom_events_total[5m]) > 0": r"container_oom_events_total",  # unreliable: cadvisor#3015
    "container_memory_working_set_bytes / container_spec_memory_limit_bytes": r"/ container_spec_memory_limit_bytes",  # no limit: 0
    "count(up) by (job) < 1": r"count\(up\)",  # counts targets that are down
    "probe_ssl_earliest_cert_expiry - time() <= 0": r"expiry[^)]* - time\(\) <=",  # there is none once it has ended
    'up{host="203.0.113.10"} == 0': r'\b(host|app|domain|instance|environment|release|slot|device)="',  # one environment's
    'up{app=~"blog|shop"} == 0': r'\b(host|app|domain|instance|environment|release|slot|device)=~"(?!\.\+")',
}


@dataclass(frozen=True)
class Alert:
    """A rule that alerts, and where it stands."""

    file: Path
    name: str
    expression: str
    labels: dict[str, str]
    annotations: dict[str, str]


def alerts() -> Iterator[Alert]:
    """Return every alerting rule there is."""
    for file in FILES:
        for rule in _rules(file):
            if "alert" in rule:
                yield Alert(file, rule["alert"], rule["expr"], rule.get("labels", {}), rule.get("annotations", {}))


def _rules(file: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


ALERTS = list(alerts())
NAMES = sorted({alert.name for alert in ALERTS})
every_alert = pytest.mark.parametrize(
    "alert", ALERTS, ids=[f"{one.name}-{one.file.parent.name}-{n}" for n, one in enumerate(ALERTS)]
)
every_file = pytest.mark.parametrize("file", FILES, ids=[file.relative_to(RULES).as_posix() for file in FILES])


@cache
def cases() -> dict[str, set[str]]:
    """Return what the tests of the rules try of each alert: quiet, fires, resolves."""
    found: dict[str, set[str]] = {}
    for file in sorted((RULES / "tests").glob("*.yml")):
        for test in yaml.safe_load(file.read_text())["tests"]:
            for name, kind in _kinds(test["alert_rule_test"]):
                found.setdefault(name, set()).add(kind)
    return found


def _kinds(checks: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    fired: set[str] = set()
    for check in sorted(checks, key=lambda one: _seconds(one["eval_time"])):
        name = check["alertname"]
        if check.get("exp_alerts"):
            fired.add(name)
            yield name, "fires"
        else:
            yield name, "resolves" if name in fired else "quiet"


def _seconds(text: str) -> int:
    return sum(
        int(number) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit] for number, unit in re.findall(r"(\d+)([smhd])", text)
    )


@every_alert
def test_a_rule_says_how_bad_it_is_what_it_means_and_what_to_do(alert: Alert) -> None:
    assert alert.labels["severity"] in SEVERITIES
    assert set(alert.annotations) == {"summary", "description", "action", "runbook"}
    assert all(text.strip() and "\n" not in text.strip() for text in alert.annotations.values())


@every_alert
def test_a_summary_tells_the_figure(alert: Alert) -> None:
    told = "$value" in alert.annotations["summary"] or ".Value" in alert.annotations["summary"]
    assert told is (alert.name not in YES_OR_NO)


@every_alert
def test_a_rule_has_its_page(alert: Alert) -> None:
    assert alert.annotations["runbook"] == f"{alert.name}.md"
    assert (RUNBOOKS / alert.annotations["runbook"]).is_file()


def test_every_page_is_of_a_rule() -> None:
    assert sorted(page.stem for page in RUNBOOKS.glob("*.md") if page.stem != "README") == NAMES


def test_the_table_has_every_alert_with_its_severity() -> None:
    severities = {name: {alert.labels["severity"] for alert in ALERTS if alert.name == name} for name in NAMES}
    rows = table_rows((RUNBOOKS / "README.md").read_text())[1:]
    assert {cells[0].partition("]")[0][1:]: set(cells[1].split(", ")) for cells in rows} == severities


@every_alert
def test_the_command_that_comes_first_can_be_typed(alert: Alert) -> None:
    action = alert.annotations["action"].replace("{{ $externalLabels.environment }}", "production")
    action = re.sub(r"\{\{ \$labels\.\w+ \}\}", "x", action)
    for command in re.findall(r"\binv [^;]+", action):
        assert "-e production" in command
        assert_parses(shlex.split(command))


@pytest.mark.parametrize("name", sorted({alert.name for alert in ALERTS if alert.file.parent == RULES} - ALWAYS))
def test_a_rule_is_tried_where_it_fires_where_it_is_quiet_and_where_it_resolves(name: str) -> None:
    assert cases().get(name) == {"quiet", "fires", "resolves"}


def test_what_fires_always_is_tried() -> None:
    assert {name: cases()[name] for name in ALWAYS} == {name: {"fires"} for name in ALWAYS}


@every_file
def test_a_file_says_first_what_it_needs(file: Path) -> None:
    first = file.read_text().partition("\n")[0]
    assert re.match(r"# Needs: \w", first)
    assert file.parent != RULES or NEEDS.get(file.name, "") in first


@every_file
def test_no_rule_is_one_that_cannot_fire_or_is_of_one_environment(file: Path) -> None:
    found = [(rule["expr"], trap) for rule in _rules(file) for trap in TRAPS.values() if re.search(trap, rule["expr"])]
    assert found == []


@pytest.mark.parametrize("expression", TRAPS)
def test_such_a_rule_would_be_found(expression: str) -> None:
    assert re.search(TRAPS[expression], expression)
