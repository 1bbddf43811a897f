"""What runs of the stack on one server: the services picked from compose.yaml, their images, ports and volumes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from monitoring import grafana
from monitoring.files import FOLDER, SECRETS
from monitoring.inventory import GATE_PORT, Inventory, Watched
from monitoring.server import ENGINE_SOCKET, PROJECT
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


def wanted(known: Inventory, host: Watched, settings: Monitoring, engine_group: int, images: Mapping[str, str]) -> Wanted:
    """Return what is to run on a server; `images`: what each service's is called there."""
    document: Document = yaml.safe_load(FILE.read_text())
    picked = {name: document["services"][name] for name in services(known, host)}
    for name, service in picked.items():
        service["image"] = images[name]
    if known.collector in picked and "loki" in picked:
        picked[known.collector]["depends_on"] = ["loki"]  # so it stops first, and can send what it has read
    if "grafana" in picked:
        picked["grafana"]["environment"] = grafana.environment(settings)
        if settings.grafana:  # the edge reaches it there
            picked["grafana"]["networks"] = ["default", "apps"]
    if settings.object_storage and "loki" in picked:
        picked["loki"]["environment"] = {"AWS_SHARED_CREDENTIALS_FILE": f"{SECRETS}/s3"}
    if len(known.hosts) > 1:
        picked["gate"]["ports"] = [_private_port(host.address.private or "")]
    if not host.app:
        for service in picked.values():
            service.pop("networks", None)
        del document["networks"]["apps"]
    used = [mount["source"] for service in picked.values() for mount in service.get("volumes", ()) if mount["type"] == "volume"]
    volumes = {name: {"name": f"{PROJECT}_{name}", "external": True} for name in dict.fromkeys(used)}
    plain = {"services": picked, "networks": document["networks"], "volumes": volumes}
    return Wanted(plain, _variables(host, settings, engine_group))


def _private_port(address: str) -> str:
    return f"[{address}]:{GATE_PORT}:{GATE_PORT}" if ":" in address else f"{address}:{GATE_PORT}:{GATE_PORT}"


def _variables(host: Watched, settings: Monitoring, engine_group: int) -> dict[str, str]:
    postgres = host.postgres
    return {
        "FOLDER": FOLDER,
        "ENGINE_SOCKET": ENGINE_SOCKET,
        "ENGINE_GROUP": str(engine_group),
        "METRICS_KEEP": f"{round(settings.metrics_keep)}s",
        "METRICS_SIZE": f"{size_bytes(settings.metrics_size)}B",
        "POSTGRES_URI": f"{postgres.container}:5432/{quote(postgres.database, safe='')}?sslmode=disable" if postgres else "",
        "POSTGRES_USER": postgres.user if postgres else "",
    }
