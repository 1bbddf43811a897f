"""Prometheus' configuration: jobs, targets and what is expected, from the inventory alone. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from monitoring.files import MOUNT, SECRETS, File
from monitoring.gate import ENGINE_PORT, PORT, TLS_PORT
from monitoring.inventory import Inventory, Watched
from ops.config import AppMetrics, Environment, RemoteWrite
from ops.names import EDGE, LABEL_APP, LABEL_METRICS, LABEL_PROCESS, LABEL_RELEASE, LABEL_SLOT, LABEL_VERSION, NETWORK

USER = 65534  # nobody, in the upstream image
INTERVAL = "15s"
RULES = Path(__file__).parent / "rules"
# What a rule file is about; one whose part is left out is not installed.
NEEDS = {
    "containers.yml": "cadvisor",
    "probes.yml": "blackbox",
    "edge.yml": "edge",
    "postgres.yml": "postgres",
    "logs.yml": "collector",
}

Table = dict[str, Any]


def render(env: Environment, known: Inventory) -> list[File]:
    """Return Prometheus' files: the configuration, targets, rules, and what the rules expect to be there."""
    return [
        File("prometheus/prometheus.yml", _yaml(_main(env, known))),
        File("prometheus/rules/environment.yml", _yaml(_expected(env, known))),
        *(File(f"prometheus/rules/{path.name}", path.read_text()) for path in rule_files(env, known)),
        *(_targets(job, known) for job in _host_jobs(known)),
        *([_probes(known)] if known.probes else []),
    ]


def rule_files(env: Environment, known: Inventory) -> list[Path]:
    """Return the rule files that an environment has the exporters for."""
    jobs = {job for host in known.hosts for job in host.jobs} | ({"blackbox"} if known.probes else set())
    found = [path for path in sorted(RULES.glob("*.yml")) if NEEDS.get(path.name, "node") in jobs]
    return [path for path in found if path.name != "app.yml" or env.app.metrics]


def _yaml(document: Table) -> str:
    text: str = yaml.safe_dump(document, sort_keys=False, width=130)
    return "# Written by `inv monitoring.up`.\n" + text


def _main(env: Environment, known: Inventory) -> Table:
    main: Table = {
        "global": {
            "scrape_interval": INTERVAL,
            "evaluation_interval": INTERVAL,
            "external_labels": {"environment": known.environment},
        },
        "rule_files": [f"{MOUNT}/rules/*.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": ["alertmanager:9093"]}]}]},
        "scrape_configs": list(_jobs(env, known)),
    }
    remote = env.monitoring.remote_write
    return main | ({"remote_write": [_remote(remote)]} if remote else {})


def _remote(remote: RemoteWrite) -> Table:
    password = {"password_file": f"{SECRETS}/remote_write"} if remote.password else {}
    return {"url": remote.url} | (
        {"basic_auth": {"username": remote.user or "", **password}} if remote.user or remote.password else {}
    )


def _jobs(env: Environment, known: Inventory) -> Iterator[Table]:
    yield _own(known, "prometheus", "localhost:9090")
    yield _own(known, "alertmanager", "alertmanager:9093")
    for part, port in (("grafana", 3000), ("loki", 3100)):
        if known.has(part):
            yield _own(known, part, f"{part}:{port}")
    if known.has("blackbox"):
        yield _own(known, "blackbox-exporter", "blackbox:9115")
    yield from (_host_job(job, known) for job in _host_jobs(known))
    if known.probes:
        yield _probe_job()
    if env.app.metrics:
        yield from (_app_job(env.app.metrics, known, host) for host in known.hosts if host.app)


def _own(known: Inventory, job: str, target: str) -> Table:
    return {"job_name": job, "static_configs": [{"targets": [target], "labels": {"host": known.watcher.name, "instance": job}}]}


def _host_jobs(known: Inventory) -> list[str]:
    return list(dict.fromkeys(job for host in known.hosts for job in host.jobs))


def _host_job(job: str, known: Inventory) -> Table:
    found: Table = {
        "job_name": job,
        "metrics_path": f"/{job}/metrics",
        "file_sd_configs": [{"files": [f"{MOUNT}/targets/{job}.json"]}],
    }
    if len(known.hosts) > 1:
        found |= _tls()
    return found | ({"metric_relabel_configs": _named_containers()} if job == "cadvisor" else {})


def _tls() -> Table:
    folder = f"{MOUNT}/tls"
    return {"tls_config": {"ca_file": f"{folder}/ca.pem", "cert_file": f"{folder}/cert.pem", "key_file": f"{folder}/key.pem"}}


def _door(host: Watched) -> tuple[str, str]:
    """Return how the gate of a server is reached from the stack."""
    return ("http", f"gate:{PORT}") if host.stack else ("https", _netloc(host))


def _netloc(host: Watched) -> str:
    private = host.address.private or ""
    return f"[{private}]:{TLS_PORT}" if ":" in private else f"{private}:{TLS_PORT}"


def _targets(job: str, known: Inventory) -> File:
    found = []
    for host in (host for host in known.hosts if job in host.jobs):
        scheme, door = _door(host)
        found.append({"targets": [door], "labels": {"__scheme__": scheme, "host": host.name, "instance": host.name}})
    return File(f"prometheus/targets/{job}.json", json.dumps(found, indent=2) + "\n")


def _probes(known: Inventory) -> File:
    found = [
        {
            "targets": [one.url],
            "labels": {"app": one.app, "domain": one.domain, "__param_target": one.asked, "__param_hostname": one.domain},
        }
        for one in known.probes
    ]
    return File("prometheus/targets/probe.json", json.dumps(found, indent=2) + "\n")


def _probe_job() -> Table:
    return {
        "job_name": "probe",
        "metrics_path": "/probe",
        "params": {"module": ["http"]},
        "file_sd_configs": [{"files": [f"{MOUNT}/targets/probe.json"]}],
        "relabel_configs": [
            {"source_labels": ["__address__"], "target_label": "instance"},
            {"target_label": "__address__", "replacement": "blackbox:9115"},
        ],
    }


def _app_job(metrics: AppMetrics, known: Inventory, host: Watched) -> Table:
    """Find the app's containers of one server by their labels: a swap shows as one target coming and one going."""
    scheme, door = _door(host)
    engine = f"http://gate:{ENGINE_PORT}" if host.stack else f"https://{door}"
    labels = {name: f"__meta_docker_container_label_{label}".replace(".", "_") for name, label in _APP_LABELS.items()}
    told = f"__meta_docker_container_label_{LABEL_METRICS}".replace(".", "_")
    address = ["__meta_docker_network_ip", told]
    tls = {} if host.stack else _tls()
    return {
        "job_name": f"app/{host.name}",
        "scheme": scheme,
        "docker_sd_configs": [{"host": engine, "refresh_interval": "5s", "match_first_network": False, **tls}],
        **tls,
        "relabel_configs": [
            {"source_labels": [told], "regex": ".+", "action": "keep"},
            {"source_labels": [labels["app"]], "regex": known.app, "action": "keep"},
            {"source_labels": ["__meta_docker_network_name"], "regex": NETWORK, "action": "keep"},
            {
                "source_labels": address,
                "regex": "(.+);([0-9]+)(/.*)",
                "target_label": "__metrics_path__",
                "replacement": "/app/$1/$2$3",
            },
            *({"source_labels": [source], "target_label": name} for name, source in labels.items()),
            {"source_labels": ["__meta_docker_container_name"], "regex": "/(.*)", "target_label": "instance"},
            # One target a container, however many ports its image exposes.
            {"target_label": "__address__", "replacement": door},
            {"target_label": "job", "replacement": "app"},
            {"target_label": "host", "replacement": host.name},
        ],
        "metric_relabel_configs": list(_normalised(metrics)),
    }


_APP_LABELS = {"app": LABEL_APP, "process": LABEL_PROCESS, "slot": LABEL_SLOT, "release": LABEL_RELEASE, "version": LABEL_VERSION}


def _normalised(metrics: AppMetrics) -> Iterator[Table]:
    """Give an app's own names the ones that rules and dashboards know."""
    names = {metrics.requests: "http_requests_total"}
    names |= {f"{metrics.duration}_{part}": f"http_request_duration_seconds_{part}" for part in ("bucket", "sum", "count")}
    for own, common in names.items():
        if own != common:
            yield {"source_labels": ["__name__"], "regex": own, "target_label": "__name__", "replacement": common}
    if metrics.status != "code":
        yield {"source_labels": ["__name__", metrics.status], "regex": "http_requests_total;(.*)", "target_label": "code"}


def _named_containers() -> list[Table]:
    """Name containers by what they do, so that a series goes on over releases."""
    prefix = "container_label_"
    parts = {name: (prefix + label).replace(".", "_") for name, label in _APP_LABELS.items()}
    service = f"{prefix}com_docker_compose_service"
    project = f"{prefix}com_docker_compose_project"
    return [
        *({"source_labels": [source], "regex": "(.+)", "target_label": name} for name, source in parts.items()),
        {"source_labels": [service], "regex": "(.+)", "target_label": "service"},
        {"source_labels": ["name"], "regex": "(.+)", "target_label": "container"},
        {"source_labels": [project, service], "regex": "(.+);(.+)", "target_label": "container", "replacement": "$1-$2"},
        {"source_labels": ["app", "process"], "regex": "(.+);(.+)", "target_label": "container", "replacement": "$1-$2"},
        {"regex": "container_label_.*|image", "action": "labeldrop"},
    ]


def _expected(env: Environment, known: Inventory) -> Table:
    rules = [_constant("tidegate:expected_target", host=host.name, job=job) for host in known.hosts for job in host.jobs]
    for host in (host for host in known.hosts if host.app):
        rules += [_container(known, host, name) for name in host.containers]
        rules += [_constant("tidegate:expected_backup", host=host.name, app=known.app)] if host.backups else []
    return {"groups": [{"name": "environment", "rules": rules + (_objectives(env) if env.app.metrics else [])}]}


def _container(known: Inventory, host: Watched, name: str) -> Table:
    app = {} if name == EDGE else {"app": known.app}
    return _constant("tidegate:expected_container", labels={"host": host.name, "container": name, **app})


def _objectives(env: Environment) -> list[Table]:
    promised, app = env.app.objectives, env.app.name
    values = {
        "slo_availability:objective": promised.availability / 100, "slo_latency:objective": promised.latency / 100,
        "slo_latency:seconds": promised.within, "slo_minimum_requests": promised.minimum,
    }  # fmt: skip
    bound = f'http_request_duration_seconds_bucket{{app="{app}",le=~"{_bound(promised.within)}"}}'
    fast = {"record": "http_requests_fast_total", "expr": f'label_replace({bound}, "le", "", "", "")'}
    return [*(_constant(f"tidegate:{name}", value, app=app) for name, value in values.items()), fast]


def _bound(seconds: float) -> str:
    """Return a histogram's bound as clients write it: 1 or 1.0, 0.5."""
    text = f"{seconds:.6f}".rstrip("0").rstrip(".")
    return text if "." in text else f"{text}(\\\\.0)?"


def _constant(name: str, value: float = 1, labels: Mapping[str, str] | None = None, **more: str) -> Table:
    return {"record": name, "expr": f"vector({value:.12g})", "labels": {**(labels or {}), **more}}
