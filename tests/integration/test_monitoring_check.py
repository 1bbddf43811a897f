"""What `inv monitoring.check` finds, by the programs in the stack's own images and by what runs in them."""

from __future__ import annotations

import io
import json
import re
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import pytest

from monitoring import check, checked
from monitoring.check import Problem, check_files
from monitoring.dead import Dead, dead_series, faults_of_logs, faults_of_rules
from monitoring.files import File
from monitoring.images import load
from monitoring.inventory import inventory
from monitoring.live import PORTS, Http, Loki, Prometheus
from monitoring.render import render
from ops.bases import ensure_base
from ops.config import load as load_project
from ops.errors import Refused, TidegateError
from ops.secret import Secret
from ops.this_machine import local_client
from tests.integration.project import wait_until

if TYPE_CHECKING:
    from docker import APIClient

pytestmark = pytest.mark.integration

OPS_TOML = """\
[app]
name = "blog"
image = "blog"
port = 8000
[app.metrics]
[monitoring]
collector = "promtail"
[monitoring.webhooks.here]
url = "HOOK"
[environments.production]
domains = ["blog.example.com"]
hosts = [{ address = "10.0.0.1", private = "10.0.0.1" }, { address = "10.0.0.2", private = "10.0.0.2" }]
"""
IN_EVERY_IMAGE = ("prometheus", "alertmanager", "blackbox", "gate")
RULES = """\
groups:
  - name: tried
    rules:
      - { alert: Fine, expr: prometheus_config_last_reload_successful == 0 }
      - { alert: Misspelt, expr: prometheus_config_last_relaod_successful == 0 }
      - { alert: Elsewhere, expr: 'up{job="nobody"} == 0' }
      - { alert: Absence, expr: 'absent(up{job="gone"}) unless up{job="away"}' }
      - { alert: Deploy, expr: tidegate_deploy_success == 0 }
      - { record: "tidegate:tried", expr: sum(tried_total) }
      - { alert: Recorded, expr: "tidegate:tried > 0" }
      - { alert: Ambiguous, expr: up * on () go_gc_duration_seconds }
"""
LATER = "      - { alert: Later, expr: up == 0 }\n"


class Here(Http):
    """A service whose port was published on this machine."""

    def __init__(self, service: str, port: int) -> None:
        self.name, self._port = "here", {PORTS[service]: port}

    def ask(self, method: str, port: int, path: str, body: str | None = None, timeout: float = 10.0) -> tuple[int, str]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port[port]}{path}", body.encode() if body else None, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            raise Refused("it does not answer", why=str(error)) from None


@pytest.fixture(scope="module")
def engine() -> APIClient:
    return local_client().api


@pytest.fixture(scope="module", autouse=True)
def _own_containers() -> Iterator[None]:
    """A label of our own: nobody else's checks are touched, and what stays of ours is seen."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(check, "LABELS", {"dev.tidegate.monitoring": f"check-{token_hex(4)}"})
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[File]:
    """All files of the server with the stack, but for its collector; instead the other server's, of both kinds."""
    path = tmp_path_factory.mktemp("check") / "ops.toml"
    for name in IN_EVERY_IMAGE:
        ensure_base(load()[name].reference, print)
    found = {one.path: one for text in (OPS_TOML, OPS_TOML.replace("promtail", "alloy")) for one in rendered(path, text)}
    return list(found.values())


def rendered(path: Path, text: str) -> Iterator[File]:
    path.write_text(text)
    env = load_project(path, {}).environment("production")
    known = inventory(env)
    for host in known.hosts:
        yield from render(env, known, host, {"HOOK": Secret("https://example.com/hidden")})


def judged(engine: APIClient, files: Sequence[File], service: str) -> Problem:
    return next(one for one in check_files(engine, files, load()) if one.service == service)


def only(files: Sequence[File], folder: str, change: Callable[[File], File] = lambda file: file) -> list[File]:
    return [change(file) for file in files if file.service == folder]


def need(engine: APIClient, service: str) -> None:
    """Skip where an image is neither here nor to be had: there is no stand-in for it."""
    if not engine.images(load()[service].name):
        pytest.skip(f"there is no {load()[service].name} on this machine")


def test_what_we_write_is_accepted_by_every_program_and_leaves_nothing_behind(engine: APIClient, files: list[File]) -> None:
    found = {one.service: one for one in check_files(engine, files, load())}
    assert {name: (found[name].ok, found[name].said) for name in IN_EVERY_IMAGE} == dict.fromkeys(IN_EVERY_IMAGE, (True, ""))
    assert not left(engine)


@pytest.mark.parametrize("service", ["loki", "promtail", "alloy"])
def test_what_we_write_for_logs_is_accepted_too(engine: APIClient, files: list[File], service: str) -> None:
    need(engine, service)
    found = judged(engine, only(files, "loki" if service == "loki" else "collector"), service)
    assert (found.ok, found.said) == (True, "")


@pytest.mark.parametrize(
    ("service", "path", "good", "bad", "said"),
    [
        ("prometheus", "prometheus/prometheus.yml", "external_labels", "external_lables",
         r"prometheus/prometheus\.yml: .*line \d+: field external_lables not found"),
        ("prometheus", "prometheus/rules/meta.yml", "expr: vector(1)", "expr: vector(1",
         r"prometheus/rules/meta\.yml: \d+:\d+: .*unclosed left parenthesis"),
        ("prometheus", "prometheus/rules/meta.yml", "{{ $labels.host }}", "{{ $labels.host }",
         r'prometheus/rules/meta\.yml: .*"TargetDown".*annotation "summary"'),
        ("alertmanager", "alertmanager/alertmanager.yml", "route:", "rout:",
         r"alertmanager/alertmanager\.yml: .*line \d+: field rout not found"),
        ("alertmanager", "alertmanager/templates/environment.tmpl", "production", 'production" x', r"environment\.tmpl:1"),
        ("blackbox", "blackbox/blackbox.yml", "prober:", "probr:", r"blackbox/blackbox\.yml: .*line \d+: field probr not found"),
        ("gate", "gate/nginx.conf", "server_tokens", "server_token", r'unknown directive "server_token" in gate/nginx\.conf:\d+'),
    ],
)  # fmt: skip
def test_a_mistake_is_found_with_file_and_line(
    engine: APIClient, files: list[File], service: str, path: str, good: str, bad: str, said: str
) -> None:
    assert any(file.path == path and good in file.content for file in files)
    broken = only(
        files, service, lambda file: replace(file, content=file.content.replace(good, bad)) if file.path == path else file
    )
    found = judged(engine, broken, service)
    assert found.ok is False
    assert re.search(said, found.said, re.DOTALL), found.said


@pytest.mark.parametrize(("service", "path", "good", "bad"), [
    ("loki", "loki/loki.yaml", "retention_enabled", "retention_enable"),
    ("promtail", "collector/promtail.yaml", "scrape_configs", "scrape_config"),
    ("alloy", "collector/config.alloy", "loki.write", "loki.wrote"),
])  # fmt: skip
def test_a_mistake_about_logs_is_found_with_file_and_line(
    engine: APIClient, files: list[File], service: str, path: str, good: str, bad: str
) -> None:
    need(engine, service)
    broken = [replace(file, content=file.content.replace(good, bad)) for file in only(files, path.partition("/")[0])]
    found = judged(engine, broken, service)
    assert found.ok is False
    assert path in found.said
    assert bad in found.said
    assert any(char.isdigit() for char in found.said)


def test_targets_in_a_file_that_is_not_there_are_found(engine: APIClient, files: list[File]) -> None:
    found = judged(engine, [file for file in only(files, "prometheus") if not file.path.endswith("node.json")], "prometheus")
    assert found.ok is False
    assert 'file "prometheus/targets/node.json"' in found.said
    assert "does not exist" in found.said


def test_what_a_service_may_not_read_is_found(engine: APIClient, files: list[File]) -> None:
    found = judged(engine, only(files, "blackbox", lambda file: replace(file, mode=0o600)), "blackbox")
    assert found.ok is False
    assert "permission denied" in found.said


def test_an_image_that_is_not_there_and_files_that_are_not_there_are_told_as_skipped(
    engine: APIClient, files: list[File]
) -> None:
    lock = {**load(), "blackbox": replace(load()["blackbox"], tag="never")}
    found = {one.service: one for one in check_files(engine, only(files, "blackbox"), lock)}
    assert (found["blackbox"].kind, found["blackbox"].said) == (
        "skipped", "prom/blackbox-exporter:never is not there: inv monitoring.up brings it"
    )  # fmt: skip
    assert found["gate"].said == "there is no gate/nginx.conf: left out here"


def test_what_a_killed_run_left_is_removed_and_what_runs_right_now_is_not(
    engine: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = engine.create_container(load()["blackbox"].name, labels=check.LABELS)["Id"]
    check_files(engine, [], load())
    assert left(engine) == [container]
    monkeypatch.setattr(check, "_LEFT_OVER", -10)
    check_files(engine, [], load())
    assert not left(engine)


def left(engine: APIClient) -> list[str]:
    label = ",".join(f"{name}={value}" for name, value in check.LABELS.items())
    return [one["Id"] for one in engine.containers(all=True, filters={"label": label})]


@contextmanager
def started(engine: APIClient, service: str, files: Sequence[File], command: list[str], port: int) -> Iterator[Http]:
    """Run a service with its files, its port published on loopback."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as packed:
        for file in files:
            known = tarfile.TarInfo(f"etc/tidegate/{file.path.partition('/')[2]}")
            known.size = len(file.content.encode())
            packed.addfile(known, io.BytesIO(file.content.encode()))
    host = engine.create_host_config(port_bindings={port: ("127.0.0.1", None)})
    container = engine.create_container(load()[service].name, command, ports=[port], host_config=host, labels=check.LABELS)["Id"]
    try:
        engine.put_archive(container, "/", archive.getvalue())
        engine.start(container)
        published = engine.inspect_container(container)["NetworkSettings"]["Ports"][f"{port}/tcp"][0]["HostPort"]
        yield Here(service, int(published))
    finally:
        engine.remove_container(container, force=True, v=True)


def answers(ask: Callable[[], Any]) -> bool:
    try:
        return bool(ask())
    except TidegateError:
        return False


def groups(asked: Loki) -> Any:
    return asked.get("/prometheus/api/v1/rules")["groups"]


@pytest.fixture(scope="module")
def live(engine: APIClient, files: list[File]) -> Iterator[Prometheus]:
    """A Prometheus that scrapes itself, with rules that are tried here and those about itself."""
    ensure_base(load()["prometheus"].reference, print)
    main = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": ["/etc/tidegate/rules/*.yml"],
        "scrape_configs": [{"job_name": "prometheus", "static_configs": [{"targets": ["localhost:9090"]}]}],
    }  # fmt: skip
    placed = [
        File("prometheus/prometheus.yml", json.dumps(main)),
        File("prometheus/rules/tried.yml", RULES),
        *about_itself(files),
    ]
    command = ["--config.file=/etc/tidegate/prometheus.yml", "--storage.tsdb.path=/tmp/data"]
    with started(engine, "prometheus", placed, command, 9090) as http:
        asked = Prometheus(http)
        evaluated = "count(prometheus_rule_group_last_duration_seconds > 0) == 2 and count(ALERTS) and count(prometheus_rule_evaluation_failures_total > 0)"
        wait_until(partial(answers, partial(asked.query, evaluated)), "Prometheus evaluates nothing")
        yield asked


def about_itself(files: Sequence[File]) -> list[File]:
    return [file for file in files if file.path == "prometheus/rules/meta.yml"]


def test_a_series_that_a_rule_names_and_nobody_tells_is_found(live: Prometheus) -> None:
    found = {one.selector: one for one in dead_series(live, [File("prometheus/rules/tried.yml", RULES)])}
    missing, not_yet = "there is no such metric", "no deploy was made since monitoring came up"
    assert found == {
        one.selector: one
        for one in (
            Dead("prometheus_config_last_relaod_successful", ("tried.yml Misspelt",), "prometheus", missing),
            Dead('up{job="nobody"}', ("tried.yml Elsewhere",), "prometheus", "there is such a metric, but not with these labels"),
            Dead("tried_total", ("tried.yml tidegate:tried",), "prometheus", missing),
            Dead('up{job="gone"}', ("tried.yml Absence",), "prometheus", "only read within absent() or right of unless", not_yet=True),
            Dead('up{job="away"}', ("tried.yml Absence",), "prometheus", "only read within absent() or right of unless", not_yet=True),
            Dead("tidegate_deploy_success", ("tried.yml Deploy",), "deploys, read by node", not_yet, not_yet=True),
            Dead("tidegate:tried", ("tried.yml Recorded",), "rules/environment.yml", "recorded from tried_total, which is missing itself", not_yet=True),
        )
    }  # fmt: skip


def test_what_our_rules_want_of_prometheus_is_there(live: Prometheus, files: list[File]) -> None:
    found = [one.selector for one in dead_series(live, about_itself(files)) if not one.not_yet]
    assert [
        name for name in found if not name.startswith(("alertmanager_", "tidegate:", "prometheus_notifications_errors"))
    ] == []


def test_an_expression_of_a_dashboard_that_cannot_be_read_is_found(live: Prometheus) -> None:
    panels = [
        {"id": 1, "title": "Good", "datasource": {"type": "prometheus"}, "targets": [{"expr": 'rate(up{host=~"$host"}[$__rate_interval])'}]},
        {"id": 2, "title": "Bad", "datasource": {"type": "prometheus"}, "targets": [{"expr": "rate(up[5m)"}]},
        {"id": 3, "title": "Logs", "datasource": {"type": "loki"}, "targets": [{"expr": '{job="x"} |= "y"'}]},
    ]  # fmt: skip
    (found,) = dead_series(live, [File("grafana/dashboards/a.json", json.dumps({"title": "Board", "panels": panels}))])
    assert found.where == ("Board: Bad",)
    assert "parse error" in found.why


def test_a_rule_that_is_not_loaded_and_one_that_fails_are_found(live: Prometheus) -> None:
    found = {one.rule: one.why for one in faults_of_rules(live, [File("prometheus/rules/tried.yml", RULES + LATER)])}
    assert list(found) == ["Later", "Ambiguous"]
    assert found["Later"] == "it is not loaded: inv monitoring.up"
    assert "duplicate series for the match group" in found["Ambiguous"]


def test_all_of_it_at_once_says_what_is_wrong_and_where(engine: APIClient, live: Prometheus, files: list[File]) -> None:
    some = [*only(files, "blackbox"), File("prometheus/rules/tried.yml", RULES)]
    found = checked.run({"here": (engine, some)}, load(), live, Loki(Here("loki", 1)))
    assert not found.ok
    assert {one.rule for one in found.faults} == {"Ambiguous", "loki"}
    assert [one.selector for one in found.dead if not one.not_yet] == [
        "prometheus_config_last_relaod_successful", "tried_total", 'up{job="nobody"}'
    ]  # fmt: skip
    assert json.loads(json.dumps(found.document()))["ok"] is False


def test_loki_has_the_rules_that_we_give_it(engine: APIClient, files: list[File]) -> None:
    need(engine, "loki")
    with started(engine, "loki", only(files, "loki"), ["-config.file=/etc/tidegate/loki.yaml"], 3100) as http:
        asked = Loki(http)
        wait_until(partial(answers, partial(groups, asked)), "Loki has no rules")
        assert faults_of_logs(asked, only(files, "loki")) == []
        extra = File("loki/rules/fake/more.yml", "groups: [{name: more, rules: [{alert: Later, expr: 'x'}]}]")
        assert [one.rule for one in faults_of_logs(asked, [extra])] == ["Later"]


def test_a_service_that_is_not_there_is_told_rather_than_passed(engine: APIClient, tmp_path: Path) -> None:
    found = checked.run({"here": (engine, [])}, load(), Prometheus(Here("prometheus", 1)), None)
    assert [one.rule for one in found.faults] == ["prometheus"]
    assert not found.ok
