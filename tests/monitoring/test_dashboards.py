"""Dashboards: what they ask exists, what they show can be read, and what is not there is not asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring import dashboards
from monitoring.dashboards.build import MARKERS
from monitoring.dashboards.panels import Choice, Graph, Row, Table, place
from monitoring.dashboards.queries import PARTS, Query, metrics

RULES = Path(dashboards.__file__).parents[1] / "rules"
SERIES = Path(__file__).with_name("series.prom")
RUNBOOKS = "https://example.org/runbooks/"
PANELS = [(board, panel) for board in dashboards.BOARDS for row in board.rows for panel in row.panels]
QUERIES = [(f"{board.name}: {panel.title}", query) for board, panel in PANELS for query in panel.queries]
OF_PROMETHEUS = {"ALERTS", "ALERTS_FOR_STATE"}  # written by the evaluation of rules


def documents(*without: str) -> dict[str, dict[str, Any]]:
    return {json.loads(one.content)["uid"]: json.loads(one.content) for one in dashboards.render(RUNBOOKS, without)}


def drawn(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def rules() -> Iterator[dict[str, Any]]:
    for file in [*RULES.glob("*.yml"), *RULES.glob("loki/*.yml")]:
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


def known_series() -> set[str]:
    exported = {re.split(r"[{ ]", line)[0] for line in SERIES.read_text().splitlines() if line and line[0] != "#"}
    return exported | {rule["record"] for rule in rules() if "record" in rule} | OF_PROMETHEUS


def asked(query: Query) -> set[str]:
    return set(re.findall(r"\$([a-z]\w*)", query.expr))


@pytest.mark.parametrize(
    ("expr", "names"),
    [
        ("up", ["up"]),
        ('count(up{job="a b"} == 0) or vector(0)', ["up"]),
        ("sum by (host, mode) (rate(cpu_total{x!=\"y\"}[5m])) / on (host) group_left () max by (host) (cores)", ["cpu_total", "cores"]),
        ("a * on (x) group_left (y) tidegate:b unless on (c) (d < 1.5 * e + 3600)", ["a", "tidegate:b", "d", "e"]),
        ("histogram_quantile(0.95, sum by (le) (rate(x_bucket[$__rate_interval])))", ["x_bucket"]),
        ("f > bool 2 and ignoring (state) g{h=~\"$i\"}", ["f", "g"]),
    ],
)  # fmt: skip
def test_the_names_of_series_are_found_in_an_expression(expr: str, names: list[str]) -> None:
    assert metrics(expr) == names


def test_every_query_asks_for_series_that_something_tells() -> None:
    names = {where: metrics(query.expr) for where, query in QUERIES if query.source == "prometheus"}
    assert [where for where, found in names.items() if not found] == []
    assert {name for found in names.values() for name in found} <= known_series()


def test_what_marks_graphs_and_fills_variables_exists_too() -> None:
    exprs = [str(marker.expr) for marker in MARKERS]
    exprs += [choice.series for board in dashboards.BOARDS for choice in board.choices if choice.source == "prometheus"]
    assert {name for expr in exprs for name in metrics(expr)} <= known_series()


def test_every_variable_in_a_query_is_one_of_the_dashboard() -> None:
    for board, panel in PANELS:
        names = {choice.name for choice in board.choices}
        assert {name for query in panel.queries for name in asked(query)} <= names, panel.title


def test_every_panel_says_what_it_shows_in_a_unit_that_grafana_knows() -> None:
    known = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}
    assert [panel.title for _, panel in PANELS if not panel.description.endswith(".")] == []
    used = {panel.unit for _, panel in PANELS} | {query.unit for _, query in QUERIES if query.unit}
    assert used <= known


def test_thresholds_rise_from_a_base() -> None:
    for panel in (panel for _, panel in PANELS if panel.thresholds):
        base, *steps = [value for value, _ in panel.thresholds]
        assert base is None
        assert steps == sorted(value for value in steps if value is not None), panel.title


def test_every_alert_belongs_to_a_panel_and_every_runbook_to_an_alert() -> None:
    alerts = {rule["alert"] for rule in rules() if "alert" in rule and rule["labels"]["severity"] not in {"none", "info"}}
    assert {name for _, panel in PANELS for name in panel.alerts} == alerts


def test_panels_link_to_runbooks_and_to_dashboards_that_tell_more() -> None:
    panel = next(one for one in drawn(documents()["tidegate-overview"]) if one["title"] == "Fullest disk")
    assert [(link["title"], link["url"]) for link in panel["links"]] == [
        ("Runbook: DiskFull", "https://example.org/runbooks/DiskFull.md"),
        ("Runbook: DiskWillFill", "https://example.org/runbooks/DiskWillFill.md"),
        ("Servers", "/d/tidegate-host"),
    ]


def test_without_an_address_of_runbooks_there_are_no_links_to_them() -> None:
    assert "Runbook" not in "".join(one.content for one in dashboards.render())


def test_nothing_overlaps_and_every_row_is_full() -> None:
    for document in documents().values():
        taken: set[tuple[int, int]] = set()
        for panel in document["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert len(cells) == at["w"] * at["h"] > 0
            assert not cells & taken, panel["title"]
            taken |= cells
        assert {x for x, _ in taken} == set(range(24))
        assert len(taken) == 24 * (1 + max(y for _, y in taken))


def test_a_row_of_seven_fills_the_grid() -> None:
    panels = tuple(Graph(str(number), ".", ()) for number in range(7))
    places = list(place((Row(3, panels), Row(4, panels[:1], "below"))))
    assert [one.width for one in places] == [3, 3, 4, 3, 4, 3, 4, 24, 24]
    assert [one.y for one in places] == [0] * 7 + [3, 4]


def test_the_overview_fits_on_one_screen() -> None:
    assert max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in documents()["tidegate-overview"]["panels"]) <= 24


def test_dashboards_have_fixed_addresses_a_range_a_refresh_and_links_to_each_other() -> None:
    found = documents()
    names = ["overview", "app", "host", "containers", "logs", "backups", "stack"]
    assert list(found) == [f"tidegate-{name}" for name in names]
    for document in found.values():
        assert document["title"]
        assert document["tags"] == ["tidegate"]
        assert not document["editable"]
        assert document["refresh"]
        assert document["time"]["to"] == "now"
        (link,) = document["links"]
        assert (link["type"], link["tags"], link["keepTime"], link["includeVars"]) == ("dashboards", ["tidegate"], True, True)
        ids = [panel["id"] for panel in document["panels"]]
        assert len(ids) == len(set(ids))


def test_deploys_backups_and_alerts_are_marked_in_every_graph() -> None:
    for document in documents().values():
        deploys, backups, alerts = document["annotations"]["list"]
        assert deploys["useValueForTime"] is backups["useValueForTime"] is True
        assert "tidegate_deploy_finished_timestamp_seconds * 1000" in deploys["expr"]
        assert "{{version}}" in deploys["textFormat"]
        assert "tidegate_backup_last_success_timestamp_seconds * 1000" in backups["expr"]
        assert 'ALERTS{alertstate="firing"' in alerts["expr"]
        assert all(one["target"]["expr"] == one["expr"] for one in (deploys, backups, alerts))


def test_the_same_configuration_gives_the_same_files() -> None:
    assert dashboards.render(RUNBOOKS) == dashboards.render(RUNBOOKS)
    for one in dashboards.render(RUNBOOKS):
        assert one.content == json.dumps(json.loads(one.content), indent=1, sort_keys=True) + "\n"


def test_grafanas_own_models_know_every_field() -> None:
    """They drop what they do not know; all they lack is a few fields of Prometheus' annotations."""
    register_default_plugins()
    for document in documents().values():
        again = json.loads(json.dumps(Dashboard.from_json(document), cls=JSONEncoder))
        assert again["schemaVersion"] == 41
        document.pop("annotations"), again.pop("annotations")
        assert again == document


@pytest.mark.parametrize("part", sorted({*PARTS.values(), "loki", "collector"}))
def test_what_a_missing_part_would_tell_is_not_asked_for(part: str) -> None:
    targets = [target for document in documents(part).values() for panel in drawn(document) for target in panel["targets"]]
    kept = [Query(target["expr"], source=target["datasource"]["uid"]) for target in targets]
    assert kept
    assert not [query.expr for query in kept if part in query.needs]
    assert len(kept) < len(QUERIES)


def test_without_loki_nobody_asks_it_and_nothing_leads_to_its_dashboard() -> None:
    found = documents("loki", "collector")
    assert "tidegate-logs" not in found
    text = json.dumps(found)
    assert '"uid": "loki"' not in text
    assert "/d/tidegate-logs" not in text


def test_with_next_to_nothing_the_servers_backups_and_the_stack_are_still_shown() -> None:
    found = documents(*PARTS.values())
    assert list(found) == ["tidegate-overview", "tidegate-host", "tidegate-backups", "tidegate-stack"]


def test_a_table_has_a_column_for_each_label_and_each_query_with_a_name() -> None:
    table = next(panel for _, panel in PANELS if isinstance(panel, Table) and panel.title == "Newest deploy")
    drawing = next(one for one in drawn(documents()["tidegate-overview"]) if one["title"] == table.title)
    _, kept, arranged = (one["options"] for one in drawing["transformations"])
    assert kept["include"]["names"] == [*table.labels, "Value #B", "Value #C", "Value #D"]
    assert arranged["renameByName"] == {"Value #B": "finished", "Value #C": "took", "Value #D": "success"}


def test_a_variable_can_be_everything() -> None:
    choices = [choice for board in dashboards.BOARDS for choice in board.choices]
    assert Choice("search") in choices
    for document in documents().values():
        for variable in document["templating"]["list"]:
            if variable["type"] == "query":
                assert (variable["includeAll"], variable["allValue"], variable["multi"]) == (True, ".*", True)
