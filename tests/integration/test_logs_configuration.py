"""Loki and the collectors take what is rendered for them, and Loki's own alerts fire."""

from __future__ import annotations

import uuid
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from monitoring import collector, loki
from monitoring.collector import Collector
from monitoring.loki import ObjectStore
from ops.secret import Secret
from tests.integration.logs_stack import HOST, RENDERERS, Receiver, check, image, lab, log_rules, until

pytestmark = pytest.mark.integration

BUCKET = ObjectStore("logs", "s3.example.org", "eu-central-1", Secret("key"), Secret("secret"))


@pytest.mark.parametrize("store", [None, BUCKET], ids=["volume", "object storage"])
def test_loki_takes_its_configuration(store: ObjectStore | None, tmp_path: Path) -> None:
    files = loki.render("production", 14 * 86400.0, store, log_rules())
    check(tmp_path, files, image("loki"), ["-config.file=/etc/tidegate/loki.yaml", "-verify-config"])


@pytest.mark.parametrize("journal", [True, False], ids=["journal", "files"])
@pytest.mark.parametrize("stack", [None, "10.0.0.1"], ids=["beside Loki", "far away"])
@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("promtail", ["-config.file=/etc/tidegate/promtail.yaml", "-check-syntax"]),
        ("alloy", ["validate", "/etc/tidegate/config.alloy"]),
    ],
)
def test_collectors_take_their_configuration(
    kind: str, command: list[str], stack: str | None, journal: bool, tmp_path: Path
) -> None:
    told = Collector(HOST, collector.push_address(stack), journal=journal)
    check(tmp_path, [RENDERERS[kind](told)], image(kind), command)


def test_the_alerts_on_logs_reach_alertmanager_and_resolve(tmp_path: Path) -> None:
    image("loki")
    with lab(tmp_path, uuid.uuid4().hex[:8]) as known, closing(Receiver(known.gateway)) as receiver:
        asked = known.loki({name: _at_once(text) for name, text in log_rules().items()})
        until(lambda: "NoLogsIngested" in asked.firing(), "no line has come")
        asked.push([f"error {number}: no stock" for number in range(60)], job="containers", app="shop", host=HOST)
        until(lambda: "LogErrorSpike" in _told(receiver), "sixty errors have come")
        labels = _told(receiver)["LogErrorSpike"]
        assert (labels["app"], labels["host"], labels["environment"]) == ("shop", HOST, "test")
        until(lambda: "NoLogsIngested" not in asked.firing(), "lines have come")


def _told(receiver: Receiver) -> dict[str, dict[str, str]]:
    return {alert["labels"]["alertname"]: alert["labels"] for alert in receiver.alerts}


def _at_once(rules: str) -> str:
    """Return rules that are looked at every second, and do not wait."""
    document = yaml.safe_load(rules)
    for group in document["groups"]:
        group["interval"] = "1s"
        group["rules"] = [{**rule, "for": "0s"} for rule in group["rules"]]
    return str(yaml.safe_dump(document))
