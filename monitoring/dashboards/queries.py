"""What dashboards ask, and what must be there to answer. Pure data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Datasource = Literal["prometheus", "loki"]

RATE = "[$__rate_interval]"
HOST = 'host=~"$host"'
APP = f'app=~"$app",{HOST}'
DISKS = 'fstype!~"tmpfs|ramfs|overlay|squashfs|iso9660|udf|erofs|vfat"'  # as the rules have it

# An expected container, target or backup that nothing tells of counts as one that is down.
CONTAINERS = (
    "max by (host, container) (tidegate:expected_container * on (host, container) "
    "clamp_max(count by (host, container) (container_start_time_seconds), 1) or tidegate:expected_container * 0)"
)
TARGETS = "max by (host, job) (min by (host, job) (up) or tidegate:expected_target * 0)"
LATE_BACKUPS = (
    "tidegate:expected_backup unless on (host, app) (time() - tidegate_backup_last_success_timestamp_seconds "
    "< 1.5 * tidegate_backup_expected_interval_seconds + 3600)"
)
OF_DEPLOY = "* on (host, app, environment) group_left (version, release, kind) tidegate_deploy_info"

# A figure belongs to the first part that its name begins with; node_exporter and Prometheus cannot be left out.
PARTS = {
    "container_": "cadvisor",
    "probe_": "blackbox",
    "nginx_": "edge",
    "pg_": "postgres",
    "promtail_": "collector",
    "loki_write_": "collector",
    "loki_": "loki",
    "http_request": "app",
    "app:": "app",
    "tidegate:slo_": "app",
}
_NOT_METRICS = re.compile(
    r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]'  # strings, labels, ranges
    r"|\w+\s+(?:by|without)\s*\([^)]*\)|\b(?:on|ignoring|group_left|group_right)\b\s*(?:\([^)]*\))?"
    r"|\w+\s*\(|\b(?:and|or|unless|bool|Inf)\b|\b\d[\w.]*"
)


def metrics(expr: str) -> list[str]:
    """Return the names of the series that a PromQL expression reads."""
    return list(dict.fromkeys(re.findall(r"[a-zA-Z_:][\w:]*", _NOT_METRICS.sub(" ", expr))))


@dataclass(frozen=True)
class Query:
    """An expression, and how its series are called; in a table the name and the unit of its column."""

    expr: str
    legend: str = "{{host}}"
    unit: str | None = None
    source: Datasource = "prometheus"

    @property
    def needs(self) -> frozenset[str]:
        """The parts of the stack without which it can find nothing."""
        if self.source == "loki":
            return frozenset(("loki", "collector"))
        return frozenset(part for name in metrics(self.expr) if (part := _part(name)))


def _part(metric: str) -> str | None:
    return next((part for prefix, part in PARTS.items() if metric.startswith(prefix)), None)
