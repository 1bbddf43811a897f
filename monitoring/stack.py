"""What runs of the stack on one server: the services picked from compose.yaml, their images, ports and volumes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from monitoring import grafana
from monitoring.files import FOLDER, PROJECT, SECRETS
from monitoring.inventory import GATE_PORT, Inventory, Watched
from monitoring.server import ENGINE_SOCKET
from ops.config import Monitoring
from ops.durations import size_bytes

FILE = Path(__file__).with_name("compose.yaml")
# The user of each volume's service: an image that changes its own must not lose the data (prometheus did, with 3.10).
OWNERS = {"prometheus": 65534, "alertmanager": 65534, "grafana": 472, "loki": 10001, "collector": 0}
JOBS = {"node": "node", "cadvisor": "cadvisor", "edge": "edge-exporter", "postgres": "postgres-exporter"}
RELOADED = ("prometheus", "alertmanager", "blackbox", "gate")  # read their files anew on SIGHUP; the others start anew

Document = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What is to run on a server: a Compose document, and the values of its variables."""

    document: Document
    variables: Mapping[str, str]

    @property
    def services(self) -> Mapping[str, Document]:
        """The services by name."""
        found: Mapping[str, Document] = self.document["services"]
        return found

    @property
    def volumes(self) -> dict[str, int]:
        """The engine's names of the volumes, each with the user it belongs to."""
        return {one["name"]: OWNERS[name] for name, one in self.document["volumes"].items()}


def services(known: Inventory, host: Watched) -> list[str]:
    """Return the services that a server runs."""
    jobs = [known.collector if job == "collector" else JOBS[job] for job in host.jobs]
    return [*(known.stack if host.stack else ()), "gate", *jobs]


@dataclass(frozen=True)
class Ground:
    """What a server is like: the group of the engine's socket, and how mounts of its root are handed on."""

    engine_group: int = 0
    propagation: str = "rslave"


def wanted(known: Inventory, host: Watched, settings: Monitoring, ground: Ground, images: Mapping[str, str]) -> Wanted:
    """Return what is to run on a server; `images`: what each service's is called there."""
    document: Document = yaml.safe_load(FILE.read_text())
    picked = {name: document["services"][name] | {"image": images[name]} for name in services(known, host)}
    _settle(picked, known, host, settings)
    networks = document["networks"]
    if not host.app:
        picked = {name: {key: one for key, one in service.items() if key != "networks"} for name, service in picked.items()}
        networks = {"default": networks["default"]}
    used = [mount["source"] for service in picked.values() for mount in service.get("volumes", ()) if mount["type"] == "volume"]
    volumes = {name: {"name": f"{PROJECT}_{name}", "external": True} for name in dict.fromkeys(used)}
    return Wanted({"services": picked, "networks": networks, "volumes": volumes}, _variables(host, settings, ground))


def _settle(picked: dict[str, Document], known: Inventory, host: Watched, settings: Monitoring) -> None:
    """Add what depends on the environment."""
    if known.collector in picked and "loki" in picked:
        picked[known.collector]["depends_on"] = ["loki"]  # so it stops first, and can send what it has read
    if "grafana" in picked:
        picked["grafana"]["environment"] = grafana.environment(settings)
    if settings.object_storage and "loki" in picked:
        picked["loki"]["environment"] = {"AWS_SHARED_CREDENTIALS_FILE": f"{SECRETS}/s3"}
    if len(known.hosts) > 1:
        picked["gate"]["ports"] = [_private_port(host.address.private or "")]
    # Of the apps' network only what has to be: the edge reaches a public Grafana there, and probes of a local name the edge.
    local = any(probe.asked != probe.url for probe in known.probes)
    for name in (["grafana"] if settings.grafana else []) + (["blackbox"] if local else []):
        if name in picked:
            picked[name]["networks"] = ["default", "apps"]


def _private_port(address: str) -> str:
    return f"[{address}]:{GATE_PORT}:{GATE_PORT}" if ":" in address else f"{address}:{GATE_PORT}:{GATE_PORT}"


def _variables(host: Watched, settings: Monitoring, ground: Ground) -> dict[str, str]:
    postgres = host.postgres
    return {
        "FOLDER": FOLDER,
        "ENGINE_SOCKET": ENGINE_SOCKET,
        "ENGINE_GROUP": str(ground.engine_group),
        "PROPAGATION": ground.propagation,
        "METRICS_KEEP": f"{round(settings.metrics_keep)}s",
        "METRICS_SIZE": f"{size_bytes(settings.metrics_size)}B",
        "POSTGRES_URI": f"{postgres.container}:5432/{quote(postgres.database, safe='')}?sslmode=disable" if postgres else "",
        "POSTGRES_USER": postgres.user if postgres else "",
    }
