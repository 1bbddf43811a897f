"""Every query of every dashboard, asked of a Prometheus and a Loki that hold what a server tells them: none comes back empty."""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest
import yaml

from monitoring import dashboards
from monitoring.dashboards.build import MARKERS
from monitoring.dashboards.queries import Query
from monitoring.files import File
from monitoring.images import load
from ops.bases import ensure_base
from tests.integration.logs_stack import HOST, Http, Lab, image, lab, until

if TYPE_CHECKING:
    from docker.models.containers import Container

pytestmark = pytest.mark.integration

SERIES = Path(__file__).parents[1] / "monitoring" / "series.prom"
RULES = Path(dashboards.__file__).parents[1] / "rules"
GROWING = ("_total", "_bucket", "_count", "_sum")
IN_TEXTFILES = ("tidegate_backup_", "tidegate_deploy_", "tidegate_drill")
RUNNING = ("node_", "prometheus_", "process_")  # node_exporter and Prometheus tell these themselves
CHOSEN = {"host": HOST, "app": "blog", "container": "blog-web|tidegate-edge", "search": "GET"}
WINDOWS = {"__rate_interval": "1m", "__auto": "1m"}
RULES_TELL = (
    'count_over_time(ALERTS{alertname="TidegateDrill"}[1m]) > 2 and on () count_over_time(app:http_requests_slow:ratio1h[1m]) > 2'
)
QUERIES = [
    (f"{board.name}: {panel.title}", query)
    for board in dashboards.BOARDS
    for row in board.rows
    for panel in row.panels
    for query in panel.queries
]
CHOICES = {choice for board in dashboards.BOARDS for choice in board.choices if choice.label}


def lines() -> list[str]:
    return [line for line in SERIES.read_text().splitlines() if line and line[0] != "#"]


def constants() -> File:
    """Return the rules that an environment's configuration becomes."""
    parts = [re.fullmatch(r"([\w:]+)\{(.*)\} (.*)", line) for line in lines() if line.startswith("tidegate:")]
    rules = [
        {"record": part[1], "expr": f"vector({part[3]})", "labels": dict(re.findall(r'(\w+)="(.*?)"', part[2]))}
        for part in parts
        if part
    ]
    return File("prometheus/rules/environment.yml", yaml.safe_dump({"groups": [{"name": "environment", "rules": rules}]}))


def told(scrape: int) -> str:
    """Return what exporters tell that do not run here; what counts has grown since the scrape before."""
    parts = [line.rpartition(" ") for line in lines() if not line.startswith((*IN_TEXTFILES, *RUNNING, "tidegate:"))]
    grown = [(name, float(value) * (scrape if name.partition("{")[0].endswith(GROWING) else 1)) for name, _, value in parts]
    return "".join(f"{name} {value!r}\n" for name, value in grown)


@contextmanager
def exporters(address: str) -> Iterator[str]:
    """Tell those series to whoever asks; returns where."""
    count = iter(range(1, 10**6))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = told(next(count)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((address, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"{address}:{server.server_port}"
        server.shutdown()


def configuration(node: str, others: str) -> File:
    jobs = {"node": node, "prometheus": "localhost:9090", "others": others}
    scraped = [
        {
            "job_name": job,
            "honor_labels": job == "others",
            "static_configs": [{"targets": [target], "labels": {} if job == "others" else {"host": HOST}}],
        }
        for job, target in jobs.items()
    ]
    every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    main = {"global": every, "rule_files": ["/etc/tidegate/rules/*.yml"], "scrape_configs": scraped}
    return File("prometheus/prometheus.yml", yaml.safe_dump(main))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("dashboards"), f"dash-{os.urandom(3).hex()}") as known:
        yield known


@pytest.fixture(scope="module")
def started(here: Lab) -> Iterator[Container]:
    """A Prometheus with a server's series and the stack's rules, not waited for."""
    for name in ("prometheus", "node"):
        ensure_base(load()[name].name, print)
    here.network.reload()
    textfile = "".join(f"{line}\n" for line in lines() if line.startswith(IN_TEXTFILES))
    rules = [File(f"prometheus/rules/{path.name}", path.read_text()) for path in RULES.glob("*.yml")]
    with exporters(here.network.attrs["IPAM"]["Config"][0]["Gateway"]) as others:
        here.put([File("node/blog.prom", textfile), configuration("node:9100", others), constants(), *rules])
        here.run(
            "node", image("node"), ["--path.rootfs=/host", "--collector.textfile.directory=/textfile"],
            volumes=["/:/host:ro", f"{here.root}/node:/textfile:ro"],
        )  # fmt: skip
        yield here.run(
            "prometheus", image("prometheus"), ["--config.file=/etc/tidegate/prometheus.yml", "--storage.tsdb.path=/prometheus"],
            volumes=[f"{here.root}/prometheus:/etc/tidegate:ro"], ports={"9090/tcp": ("127.0.0.1", None)},
        )  # fmt: skip


@pytest.fixture(scope="module")
def prometheus(started: Container) -> Http:
    """That Prometheus, once its rules have something to tell."""
    until(lambda: bound(started) != "", "Prometheus' port is open")
    http = Http(bound(started))
    until(lambda: alive(http), "Prometheus answers")
    until(lambda: bool(answers(http, RULES_TELL)), "rules tell something")
    return http


def bound(container: Container) -> str:
    container.reload()
    ports = container.ports.get("9090/tcp") or [{"HostPort": ""}]
    return str(ports[0]["HostPort"])


def alive(http: Http) -> bool:
    try:
        return bool(http.get("/api/v1/status/buildinfo"))
    except OSError:
        return False


def filled(expr: str) -> str:
    """Put values for variables, as Grafana does."""
    return re.sub(r"\$([a-z_]+)", lambda found: {**CHOSEN, **WINDOWS}[found[1]], expr)


def answers(http: Http, expr: str) -> list[dict[str, Any]]:
    """Return the series that an expression gives now and that have a number."""
    found = http.get("/api/v1/query", query=filled(expr))["data"]["result"]
    return [one for one in found if not math.isnan(float(one["value"][1]))]


@pytest.fixture(scope="module")
def loki(here: Lab, started: Container) -> Http:
    """A Loki with some lines of an app, its edge and the server; while it starts Prometheus gathers its series."""
    http = here.loki()
    web = {"app": "blog", "process": "web", "slot": "green", "release": "r2", "container": "blog-web", "job": "containers"}
    push(
        http,
        web,
        'level=info msg="GET /"',
        'level=error msg="GET /posts: no such table"',
        "Traceback of GET /posts: an exception",
    )
    push(http, {"container": "tidegate-edge", "job": "containers"}, "GET / 200")
    push(http, {"job": "host"}, "sshd: GET away")
    return http


def push(http: Http, labels: dict[str, str], *texts: str) -> None:
    values = [[str(time.time_ns() + number), text] for number, text in enumerate(texts)]
    body = json.dumps({"streams": [{"stream": {"host": HOST, **labels}, "values": values}]}).encode()
    with urlopen(Request(f"{http.base}/loki/api/v1/push", body, {"Content-Type": "application/json"}), timeout=10) as answer:
        assert answer.status == 204


def found(http: Http, query: Query) -> list[dict[str, Any]]:
    now = time.time_ns()
    return http.query_range(filled(query.expr), now - 60 * 10**9, now + 10**9, 100, "backward")


def test_every_query_of_loki_returns_data(loki: Http) -> None:
    for where, query in QUERIES:
        if query.source == "loki":
            until(lambda query=query: found(loki, query) != [], f"{where}: {filled(query.expr)}", 10)  # type: ignore[misc]


def test_loki_makes_out_levels_and_the_errors_are_those_that_the_alert_counts(loki: Http) -> None:
    queries = {where: query for where, query in QUERIES if query.source == "loki"}
    until(lambda: {"info", "error"} <= levels(loki, queries["logs: By level"]), "both levels", 10)
    texts = [text for stream in found(loki, queries["logs: Errors"]) for _, text in stream["values"]]
    assert sorted(texts) == ["Traceback of GET /posts: an exception", 'level=error msg="GET /posts: no such table"']


def levels(http: Http, query: Query) -> set[str]:
    return {one["metric"].get("detected_level", "") for one in found(http, query)}


def test_every_variable_of_logs_has_values(loki: Http) -> None:
    for choice in (choice for choice in CHOICES if choice.source == "loki"):
        values = loki.get(f"/loki/api/v1/label/{choice.label}/values", query=choice.series)["data"]
        assert set(CHOSEN[choice.label].split("|")) <= set(values), choice


def test_every_query_of_prometheus_returns_data(prometheus: Http) -> None:
    asked = [(where, query) for where, query in QUERIES if query.source == "prometheus"]
    assert [f"{where}: {filled(query.expr)}" for where, query in asked if not answers(prometheus, query.expr)] == []


def test_a_legend_names_labels_that_the_series_have(prometheus: Http) -> None:
    for where, query in QUERIES:
        wanted = set(re.findall(r"{{(\w+)}}", query.legend))
        if query.source == "prometheus" and wanted:
            assert any(wanted - {"slot"} <= set(one["metric"]) for one in answers(prometheus, query.expr)), (
                f"{where}: {query.expr}"
            )


def test_every_variable_has_values(prometheus: Http) -> None:
    for choice in (choice for choice in CHOICES if choice.source == "prometheus"):
        values = prometheus.get(f"/api/v1/label/{choice.label}/values", **{"match[]": choice.series})["data"]
        assert set(CHOSEN[choice.label].split("|")) <= set(values), choice


def test_marks_of_deploys_and_backups_are_moments_and_say_what_they_were(prometheus: Http) -> None:
    deploys, backups, alerts = (answers(prometheus, str(marker.expr)) for marker in MARKERS)
    assert [(one["metric"]["version"], one["metric"]["release"], float(one["value"][1])) for one in deploys] == [
        ("1.1", "r2", 1.7e12)
    ]
    assert [float(one["value"][1]) for one in backups] == [1.7e12]
    assert [(one["metric"]["alertname"], one["metric"]["severity"]) for one in alerts] == [("TidegateDrill", "info")]


def test_what_runs_here_tells_every_series_that_it_is_said_to_tell(prometheus: Http) -> None:
    said = {line.partition(" ")[0] for line in lines() if line.startswith(RUNNING)}
    assert said <= set(prometheus.get("/api/v1/label/__name__/values")["data"])
