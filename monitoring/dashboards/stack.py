"""Whether the monitoring itself works."""

from __future__ import annotations

from monitoring.dashboards.panels import NO, YES, Board, Graph, Panel, Row, Stat, Switches, rising
from monitoring.dashboards.queries import RATE, TARGETS, Query

JOB = "{{job}}"

TELLING: tuple[Panel, ...] = (
    Switches(
        "Targets", "Whether Prometheus gets figures from each thing that it asks.", (Query(TARGETS, "{{job}} {{host}}"),),
        thresholds=YES, alerts=("TargetDown", "JobAbsent", "HostDown", "AppMetricsDown"), width=2,
    ),
    Graph(
        "Slowest answers", "How long a target takes to tell its figures; 10 s is too long.",
        (Query("topk(5, max by (host, job) (scrape_duration_seconds))", "{{job}} {{host}}"),), unit="s", thresholds=rising(5, 10),
    ),
)  # fmt: skip

PROMETHEUS: tuple[Panel, ...] = (
    Graph(
        "Samples", "Samples a second that Prometheus stores.",
        (Query(f"rate(prometheus_tsdb_head_samples_appended_total{RATE})", "{{type}}"),), unit="cps",
    ),
    Graph("Series", "Series that are written to.", (Query("prometheus_tsdb_head_series", "series"),)),
    Graph("Disk", "What Prometheus keeps on disk, in whole blocks.", (Query("prometheus_tsdb_storage_blocks_bytes", "blocks"),), unit="bytes"),
    Graph("Memory", "What each part of the stack uses.", (Query("max by (job) (process_resident_memory_bytes)", JOB),), unit="bytes"),
)  # fmt: skip

RULES: tuple[Panel, ...] = (
    Graph(
        "Rules", "How long the evaluation of each group takes; it has 15 s.",
        (Query('label_replace(prometheus_rule_group_last_duration_seconds, "group", "$1", "rule_group", ".*;(.*)")', "{{group}}"),),
        unit="s", thresholds=rising(5, 15),
    ),
    Graph(
        "Rules that fail", "Evaluations that failed, an hour.",
        (Query("sum(increase(prometheus_rule_evaluation_failures_total[1h]))", "failed"),),
        thresholds=NO, alerts=("RuleEvaluationFailing",),
    ),
    Graph(
        "Alerts", "Alerts that Alertmanager holds, by state.", (Query("sum by (state) (alertmanager_alerts)", "{{state}}"),),
        alerts=("NoAlertmanager",),
    ),
    Stat(
        "Configuration", "Whether each took its configuration when it was loaded last.",
        (
            Query("prometheus_config_last_reload_successful", "Prometheus"),
            Query("alertmanager_config_last_reload_successful", "Alertmanager"),
        ),
        unit="bool_yes_no", thresholds=YES, alerts=("PrometheusReloadFailed", "AlertmanagerReloadFailed"),
    ),
)  # fmt: skip

DELIVERY: tuple[Panel, ...] = (
    Graph(
        "Notices sent", "What Alertmanager sent in an hour, by kind of receiver.",
        (Query("topk(3, sum by (integration) (increase(alertmanager_notifications_total[1h])))", "{{integration}}"),),
    ),
    Graph(
        "Notices that failed", "What did not arrive within an hour.",
        (
            Query("topk(3, sum by (integration) (increase(alertmanager_notifications_failed_total[1h])))", "{{integration}}"),
            Query("sum(increase(prometheus_notifications_dropped_total[1h]))", "Prometheus to Alertmanager"),
        ),
        thresholds=NO, alerts=("AlertDeliveryFailing", "NoAlertmanager"),
    ),
    Graph("Silences", "Silences that hold, wait or have ended.", (Query("alertmanager_silences", "{{state}}"),)),
)  # fmt: skip

LOGS: tuple[Panel, ...] = (
    Graph(
        "Lines taken", "Lines a second that Loki takes.", (Query(f"sum(rate(loki_distributor_lines_received_total{RATE}))", "lines"),),
        unit="cps", alerts=("NoLogsIngested",),
    ),
    Graph("Streams", "Streams that Loki writes to; many are a sign of a label with too many values.", (Query("loki_ingester_memory_streams", "streams"),)),
    Graph(
        "Lines sent", "Lines a second that each collector sends.",
        (
            Query(f"sum by (host) (rate(loki_write_sent_entries_total{RATE}))"),
            Query(f"sum by (host) (rate(promtail_sent_entries_total{RATE}))"),
        ),
        unit="cps", alerts=("NoLogsIngested",),
    ),
    Graph(
        "Lines lost", "Lines that a collector gave up, an hour.",
        (
            Query("sum by (host, reason) (increase(loki_write_dropped_entries_total[1h]))", "{{host}} {{reason}}"),
            Query("sum by (host, reason) (increase(promtail_dropped_entries_total[1h]))", "{{host}} {{reason}}"),
        ),
        thresholds=NO, alerts=("CollectorDroppingLogs",),
    ),
)  # fmt: skip

BOARD = Board(
    "stack", "Monitoring", "Whether the monitoring itself works: targets, rules, notices, logs.",
    (
        Row(9, TELLING), Row(8, PROMETHEUS, "Prometheus"), Row(8, RULES, "Rules"), Row(8, DELIVERY, "Alertmanager"),
        Row(8, LOGS, "Logs"),
    ),
)  # fmt: skip
