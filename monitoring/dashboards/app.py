"""What users of an app get: traffic, errors, latency, by slot and version."""

from __future__ import annotations

from monitoring.dashboards.logs import ERRORS
from monitoring.dashboards.panels import APPS, HOSTS, Area, Board, Graph, Lines, Panel, Row, Stat, falling, rising
from monitoring.dashboards.queries import APP, HOST, RATE, Query

BY = "{{slot}} {{version}}"
REQUESTS = f"http_requests_total{{{APP}}}"
FAILED = f'http_requests_total{{{APP},code=~"5.."}}'
EVERY = f"sum by (slot, version) (rate({REQUESTS}{RATE}))"
CHOSEN = '{app=~"$app"}'
ALLOWED = f"(1 - tidegate:slo_availability:objective{CHOSEN})"
SLOW_ALLOWED = f"(1 - tidegate:slo_latency:objective{CHOSEN})"
DOMAIN = "{{domain}}"


def left(bad: str, every: str, allowed: str) -> str:
    """Return the share of what 30 days may have that is not used up."""
    return f"1 - avg_over_time({bad}{CHOSEN}[30d]) / avg_over_time({every}{CHOSEN}[30d]) / {allowed}"


def quantile(share: float, by: str = "app") -> str:
    """Return within what time a share of the requests is answered."""
    return f"histogram_quantile({share}, sum by ({by}, le) (rate(http_request_duration_seconds_bucket{{{APP}}}{RATE})))"


NOW: tuple[Panel, ...] = (
    Stat(
        "Requests", "Requests a second.", (Query(f"sum by (app) (rate({REQUESTS}{RATE}))", "{{app}}"),), unit="reqps",
    ),
    Stat(
        "Errors", "Share of the requests of 5 minutes that failed through our fault.", (Query(f"app:http_requests_errors:ratio5m{CHOSEN}", "{{app}}"),),
        unit="percentunit", thresholds=rising(0.001, 0.01), alerts=("ErrorBudgetBurn",),
    ),
    Stat(
        "Error budget left", "Share of the errors that 30 days may have which is not used up.",
        (Query(left("app:http_requests_errors:rate5m", "app:http_requests:rate5m", ALLOWED), "{{app}}"),),
        unit="percentunit", thresholds=falling(0, 0.25), alerts=("ErrorBudgetBurn",),
    ),
    Stat(
        "Latency budget left", "Share of the slow requests that 30 days may have which is not used up.",
        (Query(left("app:http_requests_slow:rate5m", "app:http_requests_timed:rate5m", SLOW_ALLOWED), "{{app}}"),),
        unit="percentunit", thresholds=falling(0, 0.25), alerts=("LatencyBudgetBurn",),
    ),
    Stat(
        "Certificate", "How long the certificate that the public address shows is still good.",
        (Query('min by (domain) (probe_ssl_earliest_cert_expiry{app=~"$app"} - time())', DOMAIN),),
        unit="s", thresholds=falling(0, 10 * 86400), alerts=("CertificateExpiring", "CertificateExpired"),
    ),
)  # fmt: skip

TRAFFIC: tuple[Panel, ...] = (
    Area(
        "Requests by slot and version", "A swap shows as one colour giving way to another.",
        (Query(EVERY, BY),), unit="reqps",
    ),
    Area(
        "Requests by answer", "HTTP status of the answers.", (Query(f"sum by (code) (rate({REQUESTS}{RATE}))", "{{code}}"),),
        unit="reqps",
    ),
    Graph(
        "Errors by slot and version", "Share of requests that failed, in the version that answered them.",
        (Query(f"(sum by (slot, version) (rate({FAILED}{RATE})) or {EVERY} * 0) / {EVERY}", BY),), unit="percentunit", alerts=("ErrorBudgetBurn",),
    ),
)  # fmt: skip

LATENCY: tuple[Panel, ...] = (
    Graph(
        "Latency", "Half, 19 of 20, 99 of 100 requests are answered within this time.",
        tuple(Query(quantile(share), f"{{{{app}}}} p{share * 100:g}") for share in (0.5, 0.95, 0.99)),
        unit="s", alerts=("LatencyBudgetBurn",),
    ),
    Graph(
        "Latency by slot and version", "19 of 20 requests, in the version that answered them.",
        (Query(quantile(0.95, "slot, version"), BY),), unit="s", alerts=("LatencyBudgetBurn",),
    ),
    Graph(
        "Fast requests", "Share answered within the promised time, and the share that is promised.",
        (
            Query(f"1 - app:http_requests_slow:ratio5m{CHOSEN}", "{{app}}"),
            Query(f"tidegate:slo_latency:objective{CHOSEN}", "{{app}} promised"),
        ), unit="percentunit", alerts=("LatencyBudgetBurn",),
    ),
    Graph(
        "Burn", "Errors and slow requests of an hour; 1 uses up the budget of 30 days in 30 days, 14.4 calls somebody.",
        (
            Query(f"app:http_requests_errors:ratio1h{CHOSEN} / {ALLOWED}", "{{app}} errors"),
            Query(f"app:http_requests_slow:ratio1h{CHOSEN} / {SLOW_ALLOWED}", "{{app}} slow"),
        ),
        thresholds=rising(6, 14.4), alerts=("ErrorBudgetBurn", "LatencyBudgetBurn"),
    ),
)  # fmt: skip

OUTSIDE: tuple[Panel, ...] = (
    Graph(
        "Probes", "How long a request from the stack to the public address takes, by what it waits for.",
        (Query('sum by (domain, phase) (probe_http_duration_seconds{app=~"$app"})', "{{domain}} {{phase}}"),),
        unit="s", alerts=("ProbeSlow", "ProbeFailed"),
    ),
    Graph(
        "Probes that succeed", "Share of 5 minutes in which the public address answered as it should.",
        (Query('avg by (domain) (avg_over_time(probe_success{app=~"$app"}[5m]))', DOMAIN),),
        unit="percentunit", thresholds=falling(0.9, 0.99), alerts=("ProbeFailed",),
    ),
    Graph(
        "Connections of the edge", "Open connections to nginx, of all apps of the server.",
        (Query(f"sum by (host) (nginx_connections_active{{{HOST}}})"),), alerts=("EdgeDown",),
    ),
    Graph(
        "Requests at the edge", "Requests a second that nginx takes, of all apps of the server.",
        (Query(f"sum by (host) (rate(nginx_http_requests_total{{{HOST}}}{RATE}))"),), unit="reqps", alerts=("EdgeDown",),
    ),
)  # fmt: skip

DATABASE: tuple[Panel, ...] = (
    Graph(
        "Database connections", "Connections to PostgreSQL, as a share of what it takes.",
        (Query(f"sum by (host) (pg_stat_database_numbackends{{{HOST}}}) / max by (host) (pg_settings_max_connections{{{HOST}}})"),),
        unit="percentunit", thresholds=rising(0.8, 0.95), alerts=("PostgresConnectionsHigh", "PostgresDown"),
    ),
    Graph(
        "Transactions", "Committed and rolled back, a second.",
        tuple(
            Query(f"sum by (host) (rate(pg_stat_database_xact_{how}{{{HOST}}}{RATE}))", f"{{{{host}}}} {how}")
            for how in ("commit", "rollback")
        ),
        unit="ops",
    ),
    Graph("Size", "Bytes on disk, by database.", (Query(f"pg_database_size_bytes{{{HOST}}}", "{{datname}}"),), unit="bytes"),
)  # fmt: skip

INSIDE: tuple[Panel, ...] = (
    Graph(
        "CPU", "Cores that the app's containers use.",
        (Query(f"sum by (container, slot) (rate(container_cpu_usage_seconds_total{{{APP}}}{RATE}))", "{{container}} {{slot}}"),),
        board="containers",
    ),
    Graph(
        "Memory", "Memory that the app's containers use.",
        (Query(f"sum by (container, slot) (container_memory_working_set_bytes{{{APP}}})", "{{container}} {{slot}}"),),
        unit="bytes", alerts=("ContainerMemoryHigh",), board="containers",
    ),
)  # fmt: skip

ERROR_LINES = Lines(
    "Errors in the log", "The newest lines that tell of errors.",
    (Query(f'{{app=~"$app",host=~"$host",job="containers"}} {ERRORS}', source="loki"),), alerts=("LogErrorSpike",), board="logs",
)  # fmt: skip

BOARD = Board(
    "app", "App", "What users of an app get: traffic, errors and latency by slot and version, with deploys marked.",
    (
        Row(4, NOW), Row(8, TRAFFIC, "Traffic"), Row(8, LATENCY, "Latency and promises"), Row(8, OUTSIDE, "From outside"),
        Row(8, DATABASE, "PostgreSQL"), Row(8, INSIDE, "Containers"), Row(9, (ERROR_LINES,), "Log"),
    ),
    (APPS, HOSTS), since="now-3h",
)  # fmt: skip
