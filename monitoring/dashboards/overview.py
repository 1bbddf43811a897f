"""Is everything all right? One screen."""

from __future__ import annotations

from monitoring.dashboards.panels import NO, Bars, Board, Graph, Panel, Row, Stat, Table, at_least, falling, rising
from monitoring.dashboards.queries import CONTAINERS, DISKS, LATE_BACKUPS, OF_DEPLOY, RATE, TARGETS, Query

FIRING = 'ALERTS{alertstate="firing",severity!="none"}'
BUDGET = (
    "1 - avg_over_time(app:http_requests_errors:rate5m[30d]) / avg_over_time(app:http_requests:rate5m[30d])"
    " / (1 - tidegate:slo_availability:objective)"
)
P95 = f"histogram_quantile(0.95, sum by (app, le) (rate(http_request_duration_seconds_bucket{RATE})))"
DISK = f"max by (host) (1 - node_filesystem_avail_bytes{{{DISKS}}} / node_filesystem_size_bytes)"
MEMORY = "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes"
LOAD = 'max by (host) (node_load5) / count by (host) (node_cpu_seconds_total{mode="idle"})'
BACKUP_AGE = "(time() - tidegate_backup_last_success_timestamp_seconds) / tidegate_backup_expected_interval_seconds"


def _count(expr: str) -> tuple[Query, ...]:
    """Count series: none is 0, not nothing."""
    return (Query(f"count({expr}) or vector(0)", ""),)


STATE: tuple[Panel, ...] = (
    Stat(
        "Critical alerts", "Alerts that fire now and need somebody at once.",
        _count('ALERTS{alertstate="firing",severity="critical"}'), thresholds=NO,
    ),
    Stat(
        "Warnings", "Alerts that fire now and can wait for working hours.",
        _count('ALERTS{alertstate="firing",severity="warning"}'), thresholds=at_least(1, "orange"),
    ),
    Stat(
        "Addresses not answering", "Public addresses whose last probe failed.",
        _count("probe_success == 0"), thresholds=NO, alerts=("ProbeFailed",), board="app",
    ),
    Stat(
        "Error budget left", "Share of the errors that 30 days may have which is not used up; below 0 the promise is broken.",
        (Query(BUDGET, "{{app}}"),), unit="percentunit", thresholds=falling(0, 0.25), alerts=("ErrorBudgetBurn",), board="app",
    ),
    Stat(
        "Containers missing", "Containers that ops.toml names and that do not run.",
        _count(f"{CONTAINERS} == 0"), thresholds=NO, alerts=("ContainerMissing",), board="containers",
    ),
    Stat(
        "Targets down", "What Prometheus asks for figures and gets none from.",
        _count(f"{TARGETS} == 0"), thresholds=NO, alerts=("TargetDown", "JobAbsent"), board="stack",
    ),
    Stat(
        "Backups late", "Apps whose newest good backup is older than one and a half intervals and an hour, or that have none.",
        _count(LATE_BACKUPS), thresholds=NO, alerts=("BackupStale", "BackupAbsent"), board="backups",
    ),
)  # fmt: skip

LISTS: tuple[Panel, ...] = (
    Table(
        "Alerts that fire", "What fires now and for how long; silenced ones are listed too.",
        (Query(f"time() - ALERTS_FOR_STATE and ignoring (alertstate) {FIRING}", "since", "s"),),
        labels=("severity", "alertname", "host", "app", "container"), empty="no alert fires",
    ),
    Table(
        "Newest deploy", "What was deployed last on each server, and how it went; an empty moment means that one is running.",
        (
            Query("tidegate_deploy_info", ""),
            Query(f"tidegate_deploy_finished_timestamp_seconds * 1000 {OF_DEPLOY}", "finished", "dateTimeFromNow"),
            Query(f"tidegate_deploy_duration_seconds {OF_DEPLOY}", "took", "s"),
            Query(f"tidegate_deploy_success {OF_DEPLOY}", "success", "bool_yes_no"),
        ),
        labels=("app", "host", "version", "release", "kind"), alerts=("DeployFailed", "DeployStuck"), empty="nothing was deployed",
    ),
)  # fmt: skip

HOSTS: tuple[Panel, ...] = (
    Bars(
        "Fullest disk", "The fullest file system of each server.", (Query(DISK),),
        unit="percentunit", thresholds=rising(0.85, 0.95), alerts=("DiskFull", "DiskWillFill"), board="host",
    ),
    Bars(
        "Memory", "Memory that cannot be given to anybody else.", (Query(MEMORY),),
        unit="percentunit", thresholds=rising(0.85, 0.92), alerts=("MemoryLow",), board="host",
    ),
    Bars(
        "Load per core", "Programs that run or wait, over 5 minutes; above 1 some wait.", (Query(LOAD),),
        thresholds=rising(1, 2), alerts=("LoadHigh",), board="host",
    ),
    Bars(
        "Age of the newest backup", "100 % is the interval at which one is expected.", (Query(BACKUP_AGE, "{{app}} on {{host}}"),),
        unit="percentunit", thresholds=rising(1, 1.5), alerts=("BackupStale",), board="backups",
    ),
)  # fmt: skip

USERS: tuple[Panel, ...] = (
    Graph(
        "Requests", "Requests a second.", (Query(f"sum by (app) (rate(http_requests_total{RATE}))", "{{app}}"),),
        unit="reqps", board="app",
    ),
    Graph(
        "Errors", "Share of the requests of 5 minutes that failed through our fault.", (Query("app:http_requests_errors:ratio5m", "{{app}}"),),
        unit="percentunit", alerts=("ErrorBudgetBurn",), board="app",
    ),
    Graph(
        "Slow requests", "19 of 20 requests are answered within this time.", (Query(P95, "{{app}}"),),
        unit="s", alerts=("LatencyBudgetBurn",), board="app",
    ),
)  # fmt: skip

BOARD = Board(
    "overview", "Overview", "Is everything all right, on one screen: alerts, users, containers, servers, backups, deploys.",
    (Row(4, STATE), Row(7, LISTS), Row(6, HOSTS), Row(6, USERS)),
)  # fmt: skip
