"""Which series are named, and why some may be missing. (Expressions are parsed by a real Prometheus in tests/integration.)"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from monitoring import dashboards
from monitoring.dead import RARE, Dead, Rare, _parsed, dead_series
from monitoring.files import File
from monitoring.prometheus import RULES as RULE_FILES
from monitoring.series import Selector, askable, readings, rules_of, selectors
from ops.errors import ConfigError, Failed, TidegateError

RULES = "prometheus/rules/a.yml"


def vector(name: str, *matchers: tuple[str, str, str]) -> dict[str, Any]:
    told = [{"name": label, "type": kind, "value": value} for label, kind, value in (*matchers, ("__name__", "=", name))]
    return {"type": "vectorSelector", "name": name, "matchers": told}


def named(tree: Mapping[str, Any]) -> list[tuple[str, bool]]:
    return [(selector.text, optional) for selector, optional in selectors(tree)]


def test_a_selector_is_written_as_it_was_read() -> None:
    assert named(vector("up")) == [("up", False)]
    assert named(vector("up", ("job", "=~", 'a"\\.'), ("x", "!=", ""))) == [('up{job=~"a\\"\\\\.",x!=""}', False)]
    free = {"type": "vectorSelector", "name": "", "matchers": [{"name": "__name__", "type": "=~", "value": "a|b"}]}
    assert named(free) == [('{__name__=~"a|b"}', False)]


def test_what_a_variable_of_a_dashboard_decides_is_not_asked() -> None:
    tree = vector("up", ("host", "=~", "$host"), ("app", "=", "${app}"), ("job", "=~", "node$"))
    assert named(tree) == [('up{job=~"node$"}', False)]
    assert askable("rate(x[$__rate_interval]) + y[${__range}] + $__range_s") == "rate(x[5m]) + y[5m] + $__range_s"


def test_selectors_are_found_wherever_they_stand() -> None:
    inside = {"type": "aggregation", "param": vector("p"), "expr": {"type": "parenExpr", "expr": vector("e")}}
    call = {"type": "call", "func": {"name": "rate"}, "args": [vector("a"), {"type": "numberLiteral"}]}
    assert named({"type": "binaryExpr", "op": "or", "lhs": inside, "rhs": call}) == [("e", False), ("p", False), ("a", False)]


@pytest.mark.parametrize("name", ["absent", "absent_over_time"])
def test_what_is_to_be_absent_may_be(name: str) -> None:
    assert named({"type": "call", "func": {"name": name}, "args": [vector("a")]}) == [("a", True)]


def test_what_stands_right_of_unless_may_be_absent() -> None:
    assert named({"type": "binaryExpr", "op": "unless", "lhs": vector("l"), "rhs": vector("r")}) == [("l", False), ("r", True)]


def test_expressions_are_those_of_rules_and_of_panels_that_ask_prometheus() -> None:
    rules = "groups: [{name: a, rules: [{alert: A, expr: up}, {record: 'a:b', expr: down}]}]"
    panels = [
        {"title": "Row", "panels": [{"title": "P", "datasource": {"type": "prometheus"}, "targets": [{"expr": "x"}, {}]}]},
        {"title": "Logs", "datasource": {"type": "loki"}, "targets": [{"expr": "{}"}]},
    ]
    marks = {"list": [{"name": "Deploys", "expr": "y"}, {"name": "built in"}]}
    board = {"title": "Board", "panels": panels, "annotations": marks}
    files = [File(RULES, rules), File("loki/rules/fake/l.yml", rules), File("grafana/dashboards/b.json", json.dumps(board))]
    assert [(one.where, one.expression, one.record) for one in readings(files)] == [
        ("a.yml A", "up", ""), ("a.yml a:b", "down", "a:b"), ("Board: P", "x", ""), ("Board: Deploys", "y", "")
    ]  # fmt: skip


def test_a_file_of_rules_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ConfigError, match="no YAML") as caught:
        list(rules_of(File(RULES, "groups: [")))
    assert caught.value.where == RULES
    assert list(rules_of(File(RULES, ""))) == []


@dataclass
class Told:
    """A Prometheus that has some series, and reads only names, each with at most one label."""

    series: Sequence[tuple[str, str]]
    questions: list[str] = field(default_factory=list)

    def get(self, path: str, **parameters: Any) -> Any:
        self.questions.append(parameters["query"])
        parts = [part.strip("() \n") for part in parameters["query"].split(" or ")]
        if any("!" in part for part in parts):
            raise Failed("prometheus refuses the question", why="parse error")
        tree = self._tree(parts[0])
        for part in parts[1:]:
            tree = {"type": "binaryExpr", "op": "or", "lhs": tree, "rhs": {"type": "parenExpr", "expr": self._tree(part)}}
        return tree

    @staticmethod
    def _tree(part: str) -> dict[str, Any]:
        found = re.fullmatch(r'([\w:]+)(?:{(\w+)(=~?)"(.*)"})?', part)
        assert found, part
        return vector(found[1], (found[2], found[3], found[4])) if found[2] else vector(found[1])

    def query(self, expression: str) -> list[dict[str, Any]]:
        self.questions.append(expression)
        asked = re.findall(r'count\((?:last_over_time\()?(.*?)(?:\[1h\]\))?\), "n", "(\d+)"', expression)
        return [{"metric": {"n": number}} for text, number in asked if any(self._matches(text, *one) for one in self.series)]

    @staticmethod
    def _matches(text: str, name: str, label: str) -> bool:
        wanted = re.fullmatch(r'([\w:]*)(?:{(\w+)(=~?)"(.*)"})?', text)
        assert wanted, text
        if wanted[2] == "__name__":
            return bool(re.fullmatch(wanted[4], name))
        return wanted[1] == name and (not wanted[2] or bool(re.fullmatch(f"{wanted[2]}={wanted[4]}", label)))


def dead(*expressions: str, has: Sequence[tuple[str, str]] = ()) -> dict[str, Dead]:
    rules = [{"alert": f"A{n}", "expr": one} for n, one in enumerate(expressions)]
    return {one.selector: one for one in dead_series(Told(has), [File(RULES, json.dumps({"groups": [{"rules": rules}]}))])}


def test_a_series_that_is_there_is_not_dead() -> None:
    assert dead("up", 'up{job="node"}', has=[("up", "job=node")]) == {}


def test_a_wrong_name_and_a_wrong_label_are_told_apart() -> None:
    found = dead("upp", 'up{job="nodee"}', has=[("up", "job=node")])
    assert found["upp"].why == "there is no such metric"
    assert found['up{job="nodee"}'].why == "there is such a metric, but not with these labels"
    assert not any(one.not_yet for one in found.values())


def test_figures_of_deploys_may_be_missing_until_one_of_them_is_there() -> None:
    before = dead("tidegate_deploy_in_progress", "tidegate_deploy_infoo")
    assert {one.why for one in before.values()} == {"no deploy was made since monitoring came up"}
    after = dead("tidegate_deploy_in_progress", "tidegate_deploy_infoo", has=[("tidegate_deploy_in_progress", "")])
    assert [(one.selector, one.not_yet) for one in after.values()] == [("tidegate_deploy_infoo", False)]


SCRAPED = ("up", "job=app")


@pytest.mark.parametrize("name", ["http_requests_total", "http_request_duration_seconds_count", "http_requests_fast_total"])
def test_figures_of_the_app_may_be_missing_only_while_no_container_of_it_is_asked(name: str) -> None:
    """Another name in [app.metrics] than the app's own is a mistake, and nothing else would tell of it."""
    assert dead(name)[name].why == "no container of the app was asked for its figures in the last hour"
    assert dead(name, has=[("up", "job=node")])[name].not_yet
    found = dead(name, has=[SCRAPED])[name]
    assert (found.not_yet, found.why) == (False, "there is no such metric")


def test_an_answer_that_never_came_may_be_missing_but_not_the_metric_it_is_of() -> None:
    errors = 'http_requests_total{code=~"5.."}'
    assert dead(errors, has=[("http_requests_total", "code=200")])[errors].not_yet
    others = dead(errors, 'http_requests_total{cod="200"}', has=[SCRAPED, ("http_requests_total", "code=200")])
    assert not others['http_requests_total{cod="200"}'].not_yet


def test_a_bound_that_the_histogram_of_an_app_does_not_have_is_found() -> None:
    bucket = 'http_request_duration_seconds_bucket{le=~"0.7"}'
    assert not dead(bucket, has=[SCRAPED, ("http_request_duration_seconds_bucket", "le=0.5")])[bucket].not_yet


def test_what_is_recorded_from_missing_series_follows_them() -> None:
    rules = [{"record": "job:x", "expr": "x"}, {"record": "job:y", "expr": "job:x"}, {"alert": "A", "expr": "job:y"}]
    found = {one.selector: one for one in dead_series(Told([]), [File(RULES, json.dumps({"groups": [{"rules": rules}]}))])}
    assert {name: one.not_yet for name, one in found.items()} == {"x": False, "job:x": True, "job:y": True}
    assert found["job:y"].why == "recorded from job:x, which is missing itself"


def test_a_recorded_series_that_is_missing_though_all_it_reads_is_there_is_dead() -> None:
    rules = [{"record": "job:x", "expr": "x"}, {"alert": "A", "expr": "job:x"}]
    (found,) = dead_series(Told([("x", "")]), [File(RULES, json.dumps({"groups": [{"rules": rules}]}))])
    assert (found.selector, found.not_yet) == ("job:x", False)


def test_a_hundred_expressions_are_asked_in_few_questions_and_none_is_mixed_up() -> None:
    told = Told([])
    asked = list(
        readings([File(RULES, json.dumps({"groups": [{"rules": [{"alert": f"A{n}", "expr": f"x{n}"} for n in range(100)]}]}))])
    )
    parsed = list(_parsed(told, asked))
    assert len(told.questions) == 3
    for reading, tree in parsed:
        assert not isinstance(tree, TidegateError)
        assert [selector.name for selector, _ in selectors(tree)] == [reading.expression]


def test_one_expression_that_cannot_be_read_does_not_hide_the_others() -> None:
    found = dead("a", "!", "b", "c", "!!")
    assert {one.selector: one.why for one in found.values() if "parse" in one.why} == {"!": "parse error", "!!": "parse error"}
    assert {"a", "b", "c"} <= set(found)


@pytest.mark.parametrize("rare", RARE, ids=lambda rare: rare.why)
def test_an_excuse_is_for_series_that_our_rules_or_dashboards_name(rare: Rare) -> None:
    text = "".join([*(path.read_text() for path in RULE_FILES.glob("*.yml")), *(one.content for one in dashboards.render())])
    assert any(re.fullmatch(rare.names, name) for name in re.findall(r"[a-zA-Z_][\w:]*", text))


def test_conditions_are_left_out_one_by_one() -> None:
    one = Selector("x", (("code", "=~", "5.."), ("job", "=", "app")))
    assert one.without("code.*").text == 'x{job="app"}'
    assert one.without(".*").text == "x"
