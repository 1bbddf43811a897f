"""The collectors' configuration: labels, joined lines, and what keeps lines from being lost."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from monitoring import collector
from monitoring.alloy_syntax import Block, Ref, text
from monitoring.collector import Collector
from tests.monitoring.relabel import relabelled

HERE = Collector("203.0.113.10", collector.push_address(None))
AWAY = Collector("203.0.113.11", collector.push_address("10.0.0.1"), journal=False)
META = "__meta_docker_container_"
COMPOSE = f"{META}label_com_docker_compose_"


def promtail(told: Collector) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(collector.promtail(told).content)
    return found


def labels(**meta: str) -> dict[str, str]:
    """Return the labels of a container's lines."""
    rules = promtail(HERE)["scrape_configs"][0]["relabel_configs"]
    found = relabelled({f"{META}{name}": value for name, value in meta.items()}, rules) or {}
    return {name: value for name, value in found.items() if not name.startswith("__")}


def test_an_apps_lines_say_app_process_slot_release_and_a_name_that_stays() -> None:
    ours = {
        f"label_dev_tidegate_{name}": value
        for name, value in {"app": "shop", "process": "web", "slot": "blue", "release": "r7"}.items()
    }
    assert labels(name="/shop-r7-web", **ours) == {
        "host": "203.0.113.10", "job": "containers", "app": "shop", "process": "web", "slot": "blue", "release": "r7",
        "container": "shop-web",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("meta", "container", "app"),
    [
        ({"name": "/tidegate-edge"}, "tidegate-edge", None),
        ({"name": "/other"}, "other", None),
        (
            {
                "name": "/shop-services-db-1",
                "label_com_docker_compose_project": "shop-services",
                "label_com_docker_compose_service": "db",
            },
            "shop-services-db",
            "shop",
        ),
        (
            {"name": "/x", "label_com_docker_compose_project": "tidegate-monitoring", "label_com_docker_compose_service": "loki"},
            "tidegate-monitoring-loki",
            None,
        ),
    ],
)
def test_other_containers_have_the_names_that_their_figures_have(meta: dict[str, str], container: str, app: str | None) -> None:
    found = labels(**meta)
    assert (found["container"], found.get("app")) == (container, app)


@pytest.mark.parametrize(
    "line",
    [
        '  File "shop.py", line 1', "\tat shop.Main(Main.java:3)", "", "}", "]", ")", "Caused by: java.io.IOException: gone",
        "ValueError: no", "KeyboardInterrupt", "shop.errors.PaymentError: no money", "django.db.utils.OperationalError: no such table",
        "During handling of the above exception, another exception occurred:",
        "The above exception was the direct cause of the following exception:",
    ],
)  # fmt: skip
def test_a_line_that_goes_on_belongs_to_the_one_before(line: str) -> None:
    assert not line or re.search(collector.FOLLOWING, line)


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        "GET / 200",
        '{"level": "info"}',
        "INFO: ready",
        "Error: no route",
        "2026-01-01 00:00:00 ValueError: x",
    ],
)
def test_any_other_line_begins_an_entry(line: str) -> None:
    assert not re.search(collector.FOLLOWING, line)


@pytest.mark.parametrize("told", [HERE, AWAY])
def test_both_collectors_are_told_the_same(told: Collector) -> None:
    document, alloy = promtail(told), collector.alloy(told).content
    for rule in document["scrape_configs"][0]["relabel_configs"]:
        assert f'target_label  = "{rule["target_label"]}"' in alloy or f'target_label = "{rule["target_label"]}"' in alloy
    for told_too in (collector.FOLLOWING, collector.MARK, collector.LEVEL, told.push, told.host):
        assert json.dumps(told_too)[1:-1] in alloy
    assert ("loki.source.journal" in alloy) == ("journal" in document["scrape_configs"][1]) == told.journal


def test_stopped_containers_are_looked_for_too() -> None:
    (filters,) = promtail(HERE)["scrape_configs"][0]["docker_sd_configs"][0]["filters"]
    assert filters["name"] == "status"
    assert {"running", "exited"} <= set(filters["values"])
    assert f"values = {json.dumps(collector.STATES)}" in collector.alloy(HERE).content


def test_alloy_knows_a_container_by_labels_that_do_not_change_when_it_stops() -> None:
    (kept,) = re.findall(r'regex  = "(.*)"\n\t\taction = "labelkeep"', collector.alloy(HERE).content)
    assert not re.fullmatch(kept, "__meta_docker_network_ip")
    assert not re.fullmatch(kept, "__address__")
    assert re.fullmatch(kept, "__meta_docker_container_id")


def test_lines_are_sent_again_until_loki_takes_them() -> None:
    (client,) = promtail(HERE)["clients"]
    assert client["backoff_config"]["max_retries"] == 0  # for ever
    assert "max_backoff_retries = 0" in collector.alloy(HERE).content
    assert promtail(HERE)["positions"]["filename"].startswith("/data/")


def test_a_collector_far_from_loki_shows_its_certificate() -> None:
    (client,) = promtail(AWAY)["clients"]
    assert client["url"] == "https://10.0.0.1:7814/loki/api/v1/push"
    assert client["tls_config"] == {f"{name}_file": f"/etc/tidegate/tls/{name}.pem" for name in ("ca", "cert", "key")}
    assert 'key_file  = "/etc/tidegate/tls/key.pem"' in collector.alloy(AWAY).content


def test_a_collector_beside_loki_needs_none() -> None:
    assert promtail(HERE)["clients"][0]["url"] == "http://loki:3100/loki/api/v1/push"
    assert "tls" not in collector.alloy(HERE).content + collector.promtail(HERE).content


def test_loki_is_found_at_an_address_of_ipv6() -> None:
    assert collector.push_address("fd00::1") == "https://[fd00::1]:7814/loki/api/v1/push"


def test_alloys_language_is_written_as_its_formatter_writes_it() -> None:
    blocks = [
        Block("one", {"a": 'x"y', "long": ["b"], "table": {"k": "v", "key": "w"}, "after": Ref("two.x")}, (Block("inner"),)),
        Block('two "label"'),
    ]
    assert text(blocks) == (
        'one {\n\ta     = "x\\"y"\n\tlong  = ["b"]\n\ttable = {\n\t\tk   = "v",\n\t\tkey = "w",\n\t}\n\tafter = two.x\n\n\tinner { }\n}\n\n'
        'two "label" { }\n'
    )
