"""What containers and servers write."""

from __future__ import annotations

from monitoring.dashboards.panels import Area, Board, Choice, Graph, Lines, Panel, Row
from monitoring.dashboards.queries import Query

# Some value is demanded of `job`, which every stream has: a selector that the empty one fits finds nothing in Loki.
STREAMS = '{job=~".+",host=~"$host",app=~"$app",container=~"$container"}'
SEARCHED = f"{STREAMS} |~ `(?i)$search`"
ERRORS = r"|~ `(?i)\b(error|exception|traceback|panic|fatal)\b`"  # as the rule LogErrorSpike has it
EVERY = "[$__auto]"


def choice(name: str) -> Choice:
    """Return a variable with the values of a label in Loki."""
    return Choice(name, name, '{job=~".+"}', "loki")


VOLUME: tuple[Panel, ...] = (
    Area(
        "Lines", "How many lines a second, by container; those of the server itself have none.",
        (Query(f"sum by (host, container) (rate({SEARCHED} {EVERY}))", "{{host}} {{container}}", source="loki"),),
        unit="cps", alerts=("NoLogsIngested", "CollectorDroppingLogs"),
    ),
    Area(
        "By level", "How many lines of each level, as Loki makes it out; what tells none is unknown.",
        (Query(f"sum by (detected_level) (count_over_time({SEARCHED} {EVERY}))", "{{detected_level}}", source="loki"),),
    ),
    Graph(
        "Errors by app", "How many lines tell of errors, by app and the version's slot.",
        (Query(f"sum by (app, slot) (count_over_time({SEARCHED} {ERRORS} {EVERY}))", "{{app}} {{slot}}", source="loki"),),
        alerts=("LogErrorSpike",),
    ),
    Area(
        "Bytes", "Bytes a second, by container.",
        (Query(f"sum by (host, container) (bytes_rate({STREAMS} {EVERY}))", "{{host}} {{container}}", source="loki"),), unit="Bps",
    ),
)  # fmt: skip

BOARD = Board(
    "logs", "Logs", "What containers and servers write: how much, what tells of errors, and the lines themselves.",
    (
        Row(7, VOLUME),
        Row(8, (Lines("Errors", "The newest lines that tell of errors.", (Query(f"{SEARCHED} {ERRORS}", source="loki"),),
                      alerts=("LogErrorSpike",)),)),
        Row(16, (Lines("All lines", "The newest lines; `search` is a regular expression.", (Query(SEARCHED, source="loki"),)),)),
    ),
    (choice("host"), choice("app"), choice("container"), Choice("search")), since="now-1h",
)  # fmt: skip
