"""What containers use of what they may."""

from __future__ import annotations

from monitoring.dashboards.panels import HOSTS, YES, Area, Board, Choice, Graph, Panel, Row, Switches, at_least, rising
from monitoring.dashboards.queries import CONTAINERS, HOST, RATE, Query

ONE = f'{HOST},container=~"$container",container!=""'
NAME = "{{container}} {{slot}}"
BY = "host, container, slot"
PERIODS = f"sum by ({BY}) (rate(container_cpu_cfs_{{}}_total{{{{{ONE}}}}}{RATE}))"

STATE: tuple[Panel, ...] = (
    Switches(
        "Expected containers", "Whether each container that ops.toml names runs.",
        (Query(f"({CONTAINERS}) and on (host) up{{{HOST}}}", "{{container}} on {{host}}"),),
        thresholds=YES, alerts=("ContainerMissing",),
    ),
    Switches(
        "Health checks", "What each container's own health check says; those without one are not here.",
        (Query(f"min by ({BY}) (container_health_state{{{ONE}}} >= 0)", NAME),), thresholds=YES, alerts=("ContainerUnhealthy",),
    ),
    Graph(
        "Restarts", "How often a container was started anew within 15 minutes; deploys make new ones, which do not count.",
        (Query(f"sum by ({BY}) (changes(container_start_time_seconds{{{ONE}}}[15m]))", NAME),),
        thresholds=at_least(3), alerts=("ContainerRestarting",),
    ),
)  # fmt: skip

CPU: tuple[Panel, ...] = (
    Area("CPU", "Cores that each uses.", (Query(f"sum by ({BY}) (rate(container_cpu_usage_seconds_total{{{ONE}}}{RATE}))", NAME),)),
    Graph(
        "Throttled", "Share of the moments in which a container had to wait because of its CPU limit.",
        (Query(f"{PERIODS.format('throttled_periods')} / {PERIODS.format('periods')}", NAME),),
        unit="percentunit", thresholds=rising(0.25, 0.5),
    ),
)  # fmt: skip

MEMORY: tuple[Panel, ...] = (
    Graph(
        "Memory", "What each uses, without what the kernel could drop.",
        (Query(f"sum by ({BY}) (container_memory_working_set_bytes{{{ONE}}})", NAME),), unit="bytes",
    ),
    Graph(
        "Memory of its limit", "At 100 % the kernel ends a program in the container; those without a limit are not here.",
        (Query(
            f"max by ({BY}) (container_memory_working_set_bytes{{{ONE}}} / (container_spec_memory_limit_bytes > 0))", NAME,
        ),),
        unit="percentunit", thresholds=rising(0.8, 0.9), alerts=("ContainerMemoryHigh",),
    ),
)  # fmt: skip

NETWORK = tuple(
    Graph(
        title, f"Bytes a second that each {what}.",
        (Query(f"sum by ({BY}) (rate(container_network_{how}_bytes_total{{{ONE}}}{RATE}))", NAME),), unit="Bps",
    )
    for title, what, how in (("Received", "receives", "receive"), ("Sent", "sends", "transmit"))
)  # fmt: skip

BOARD = Board(
    "containers", "Containers", "What containers use of what they may, and whether those that are expected run.",
    (Row(8, STATE), Row(8, CPU, "CPU"), Row(8, MEMORY, "Memory"), Row(8, NETWORK, "Network")),
    (HOSTS, Choice("container", "container", "container_start_time_seconds")),
)  # fmt: skip
