"""What Prometheus is told to ask, and what it is told to expect; its own judgement is in tests/integration."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from monitoring.inventory import inventory
from monitoring.prometheus import _bound, render
from ops.config import Environment
from tests.monitoring.relabel import relabelled
from tests.monitoring.watched import ONE, TWO, environment, with_database

METRICS: dict[str, Any] = {"metrics": {}}
OWN = {"metrics": {"path": "/figures", "port": 9000, "requests": "hits", "status": "status", "duration": "latency"}}
PREFIX = "__meta_docker_container_label_dev_tidegate_"
FOUND = {  # as the engine's discovery tells it
    "__address__": "10.213.1.5:3000", "__meta_docker_network_name": "tidegate", "__meta_docker_network_ip": "10.213.1.5",
    "__meta_docker_container_name": "/blog_web_v2", f"{PREFIX}app": "blog", f"{PREFIX}process": "web", f"{PREFIX}slot": "green",
    f"{PREFIX}release": "v2", f"{PREFIX}version": "2.0", f"{PREFIX}metrics": "9000/figures",
}  # fmt: skip
CADVISOR = "container_label_dev_tidegate_"
COMPOSE = "container_label_com_docker_compose_"


def files(env: Environment) -> dict[str, Any]:
    """Return every file as what it says."""
    found = {one.path.removeprefix("prometheus/"): one for one in render(env, inventory(env))}
    return {path: yaml.safe_load(one.content) for path, one in found.items()}


def jobs(env: Environment) -> dict[str, Any]:
    return {job["job_name"]: job for job in files(env)["prometheus.yml"]["scrape_configs"]}


def recorded(env: Environment) -> dict[str, list[Any]]:
    """Return the rules of what is expected: of each record the labels, or the value where it has no other."""
    (group,) = files(env)["rules/environment.yml"]["groups"]
    found: dict[str, list[Any]] = {}
    for rule in group["rules"]:
        found.setdefault(rule["record"], []).append((rule["expr"], rule.get("labels")))
    return found


def test_every_part_is_a_job_and_every_series_says_of_which_server() -> None:
    found = jobs(environment(app=METRICS | with_database()))
    assert list(found) == [
        "prometheus", "alertmanager", "grafana", "loki", "blackbox-exporter",
        "node", "cadvisor", "collector", "edge", "postgres", "probe", "app/203.0.113.10",
    ]  # fmt: skip
    for job in list(found)[:5]:
        (static,) = found[job]["static_configs"]
        assert static["labels"] == {"host": "203.0.113.10", "instance": job}
    assert "app/203.0.113.10" not in jobs(environment())


def test_only_what_is_there_is_a_job() -> None:
    lean = jobs(environment(monitoring={"without": ["grafana", "loki", "cadvisor", "blackbox", "edge"]}))
    assert list(lean) == ["prometheus", "alertmanager", "node"]


def test_figures_are_kept_with_the_environment_they_are_of() -> None:
    main = files(environment())["prometheus.yml"]
    assert main["global"]["external_labels"] == {"environment": "production"}
    assert main["rule_files"] == ["/etc/tidegate/rules/*.yml"]
    assert "remote_write" not in main


def test_the_gate_beside_the_stack_is_asked_in_the_clear_and_the_others_over_mutual_tls() -> None:
    env = environment(ONE, TWO)
    beside, away = files(env)["targets/node.json"]
    assert beside == {
        "targets": ["gate:8080"],
        "labels": {"__scheme__": "http", "host": "203.0.113.10", "instance": "203.0.113.10"},
    }
    assert away["targets"] == ["[fd00::2]:7814"]
    assert away["labels"]["__scheme__"] == "https"
    for job in ("node", "cadvisor", "collector", "edge"):
        assert set(jobs(env)[job]["tls_config"]) == {"ca_file", "cert_file", "key_file"}
        assert jobs(env)[job]["metrics_path"] == f"/{job}/metrics"
    assert "tls_config" not in jobs(environment())["node"]


def test_a_job_asks_only_the_servers_that_have_it() -> None:
    known = files(environment(ONE, TWO, app=with_database()))
    assert [one["labels"]["host"] for one in known["targets/postgres.json"]] == ["203.0.113.10"]
    assert [one["labels"]["host"] for one in known["targets/edge.json"]] == ["203.0.113.10", "203.0.113.11:2222"]


@pytest.mark.parametrize(
    ("app", "without", "missing"),
    [
        (METRICS, [], {"postgres.yml"}),
        (METRICS | with_database(), [], set()),
        ({}, [], {"postgres.yml", "app.yml"}),
        (METRICS, ["cadvisor"], {"postgres.yml", "containers.yml"}),
        (METRICS, ["loki"], {"postgres.yml", "logs.yml"}),
        (METRICS, ["blackbox", "edge"], {"postgres.yml", "probes.yml", "edge.yml"}),
    ],
)
def test_rules_are_there_for_what_is_watched_and_for_nothing_else(app: Any, without: list[str], missing: set[str]) -> None:
    every = {
        "app.yml", "backups.yml", "containers.yml", "deploys.yml", "drill.yml", "edge.yml", "environment.yml", "host.yml", "logs.yml",
        "meta.yml", "postgres.yml", "probes.yml",
    }  # fmt: skip
    known = files(environment(app=app, monitoring={"without": without}))
    assert {path.removeprefix("rules/") for path in known if path.startswith("rules/")} == every - missing


def test_a_probe_is_asked_through_blackbox_under_its_own_name() -> None:
    env = environment(domains=("blog.localhost",))
    (target,) = files(env)["targets/probe.json"]
    labels = {"__address__": target["targets"][0], **target["labels"]}
    found = relabelled(labels, jobs(env)["probe"]["relabel_configs"])
    assert found == {
        "__address__": "blackbox:9115", "__param_target": "http://tidegate-edge/health", "__param_hostname": "blog.localhost",
        "instance": "http://blog.localhost/health", "app": "blog", "domain": "blog.localhost",
    }  # fmt: skip


def test_a_container_of_the_app_is_asked_through_its_servers_gate_and_named_by_its_release() -> None:
    env = environment(ONE, TWO, app=METRICS)
    for host, door, scheme in (("203.0.113.10", "gate:8080", "http"), ("203.0.113.11:2222", "[fd00::2]:7814", "https")):
        job = jobs(env)[f"app/{host}"]
        found = relabelled(FOUND, job["relabel_configs"]) or {}
        assert {name: text for name, text in found.items() if not name.startswith("__meta")} == {
            "__address__": door, "__metrics_path__": "/app/10.213.1.5/9000/figures", "job": "app", "host": host, "app": "blog",
            "process": "web", "slot": "green", "release": "v2", "version": "2.0", "instance": "blog_web_v2",
        }  # fmt: skip
        assert job["scheme"] == scheme
    engines = [jobs(env)[f"app/{host.name}"]["docker_sd_configs"][0]["host"] for host in inventory(env).hosts]
    assert engines == ["http://gate:8081", "https://[fd00::2]:7814"]


def test_a_container_is_found_on_each_of_its_networks_and_not_on_the_first_only() -> None:
    """Which is the first is the engine's choice, and only the apps' network is one that the gate can reach it on."""
    (engine,) = jobs(environment(app=METRICS))["app/203.0.113.10"]["docker_sd_configs"]
    assert engine["match_first_network"] is False


@pytest.mark.parametrize(
    "other",
    [
        {f"{PREFIX}metrics": ""}, {"__meta_docker_network_name": "bridge"}, {f"{PREFIX}app": "shop"}, {f"{PREFIX}app": "blog2"},
        {f"{PREFIX}app": ""},
    ],
)  # fmt: skip
def test_other_containers_of_other_apps_too_and_other_networks_are_not_asked(other: dict[str, str]) -> None:
    job = jobs(environment(app=METRICS))["app/203.0.113.10"]
    assert relabelled({**FOUND, **other}, job["relabel_configs"]) is None


def test_an_apps_own_names_become_those_that_rules_know() -> None:
    steps = jobs(environment(app=OWN))["app/203.0.113.10"]["metric_relabel_configs"]

    def named(name: str, **labels: str) -> dict[str, str] | None:
        return relabelled({"__name__": name, **labels}, steps)

    assert named("hits", status="503") == {"__name__": "http_requests_total", "status": "503", "code": "503"}
    assert named("latency_bucket", le="0.5") == {"__name__": "http_request_duration_seconds_bucket", "le": "0.5"}
    for part in ("sum", "count"):
        assert named(f"latency_{part}") == {"__name__": f"http_request_duration_seconds_{part}"}
    assert named("other_hits", status="200") == {"__name__": "other_hits", "status": "200"}
    assert jobs(environment(app=METRICS))["app/203.0.113.10"]["metric_relabel_configs"] == []


@pytest.mark.parametrize(
    ("labels", "container"),
    [
        ({"name": "blog_web_v2", f"{CADVISOR}app": "blog", f"{CADVISOR}process": "web", f"{CADVISOR}release": "v2"}, "blog-web"),
        ({"name": "tidegate-edge", f"{CADVISOR}app": "", f"{CADVISOR}process": ""}, "tidegate-edge"),
        ({"name": "blog-services-db-1", f"{COMPOSE}project": "blog-services", f"{COMPOSE}service": "db"}, "blog-services-db"),
        ({"name": "somebodys"}, "somebodys"),
        ({"id": "/"}, None),
    ],
)
def test_a_container_is_called_the_same_whichever_its_release(labels: dict[str, str], container: str | None) -> None:
    found = relabelled({**labels, "image": "sha256:1", "id": "/x"}, jobs(environment())["cadvisor"]["metric_relabel_configs"])
    assert found is not None
    assert found.get("container") == container
    assert found.get("name") == labels.get("name")
    assert not [name for name in found if name.startswith("container_label") or name == "image"]
    assert found["id"] == "/x"  # the whole server's is "/"


def test_what_has_to_be_there_is_known_to_the_rules() -> None:
    app = METRICS | with_database() | {"processes": {"worker": {"command": ["work"]}}}
    found = recorded(environment(ONE, TWO, app=app))
    hosts = ("203.0.113.10", "203.0.113.11:2222")
    assert found["tidegate:expected_backup"] == [("vector(1)", {"host": hosts[0], "app": "blog"})]
    assert [labels for _, labels in found["tidegate:expected_container"]] == [
        labels for host in hosts for labels in (
            {"host": host, "container": "blog-web", "app": "blog"}, {"host": host, "container": "blog-worker", "app": "blog"},
            {"host": host, "container": "tidegate-edge"})
    ]  # fmt: skip
    targets = [(labels["host"], labels["job"]) for _, labels in found["tidegate:expected_target"]]
    assert targets == [(host.name, job) for host in inventory(environment(ONE, TWO, app=app)).hosts for job in host.jobs]


def test_without_backups_or_figures_of_its_own_nothing_is_expected_of_them() -> None:
    found = recorded(environment())
    assert set(found) == {"tidegate:expected_target", "tidegate:expected_container"}


@pytest.mark.parametrize(("percent", "share"), [(99.9, 0.999), (99.95, 0.9995), (50, 0.5), (99.999999, 0.99999999)])
def test_an_objective_is_told_as_it_stands_and_never_as_perfect(percent: float, share: float) -> None:
    found = recorded(environment(app=METRICS | {"objectives": {"availability": percent, "latency": percent}}))
    for name in ("availability", "latency"):
        ((value, labels),) = found[f"tidegate:slo_{name}:objective"]
        assert float(value[len("vector(") : -1]) == pytest.approx(share, abs=1e-12)
        assert (float(value[len("vector(") : -1]) < 1, labels) == (True, {"app": "blog"})


def test_the_least_number_of_requests_is_told_in_full() -> None:
    found = recorded(environment(app=METRICS | {"objectives": {"minimum": 987_654, "within": "250ms"}}))
    assert found["tidegate:slo_minimum_requests"] == [("vector(987654)", {"app": "blog"})]
    assert found["tidegate:slo_latency:seconds"] == [("vector(0.25)", {"app": "blog"})]


@given(thousandths=st.integers(5, 86_400_000))
def test_fast_requests_are_those_of_the_bucket_that_ends_where_was_promised_however_a_client_writes_it(thousandths: int) -> None:
    seconds = thousandths / 1000
    regex = json.loads(f'"{_bound(seconds)}"')  # PromQL reads a string's escapes as JSON does
    for written in (f"{seconds:.12g}", str(seconds)):
        assert re.fullmatch(regex, written)
    assert not re.fullmatch(regex, str(seconds + 0.001))


def test_the_fast_requests_are_copied_without_their_bound() -> None:
    ((expr, labels),) = recorded(environment(app=METRICS | {"objectives": {"within": "1s"}}))["http_requests_fast_total"]
    assert expr == r'label_replace(http_request_duration_seconds_bucket{app="blog",le=~"1(\\.0)?"}, "le", "", "", "")'
    assert labels is None


@pytest.mark.parametrize(
    ("more", "auth"),
    [
        ({}, None),
        ({"user": "shop"}, {"username": "shop"}),
        ({"user": "shop", "password": "P"}, {"username": "shop", "password_file": "/etc/tidegate/secrets/remote_write"}),
        ({"password": "P"}, {"username": "", "password_file": "/etc/tidegate/secrets/remote_write"}),
    ],
)
def test_a_bigger_store_gets_a_copy_of_everything(more: dict[str, str], auth: dict[str, str] | None) -> None:
    env = environment(monitoring={"remote_write": {"url": "https://metrics.example.com/write", **more}})
    (remote,) = files(env)["prometheus.yml"]["remote_write"]
    assert remote["url"] == "https://metrics.example.com/write"
    assert remote.get("basic_auth") == auth
