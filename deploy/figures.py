"""What a deploy tells Prometheus of itself, as a file that node_exporter reads. Pure.

A deploy that was killed leaves the file of its beginning: in progress, and for too long.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from ops.names import METRICS


def path(app: str) -> str:
    """Return the file on a server."""
    return f"{METRICS}/{app}_deploy.prom"


def begun(labels: Mapping[str, str], about: Mapping[str, str], started: datetime) -> str:
    """Return the figures of a deploy that has begun; `about`: release, version and kind."""
    return _text(labels, {"in_progress": 1, "started_timestamp_seconds": started.timestamp()}, about)


def ended(labels: Mapping[str, str], about: Mapping[str, str], started: datetime, finished: datetime, *, ok: bool) -> str:
    """Return the figures of a deploy that has ended."""
    values = {
        "in_progress": 0, "started_timestamp_seconds": started.timestamp(), "finished_timestamp_seconds": finished.timestamp(),
        "success": ok, "duration_seconds": (finished - started).total_seconds(),
    }  # fmt: skip
    return _text(labels, values, about)


def _text(labels: Mapping[str, str], values: Mapping[str, float], about: Mapping[str, str]) -> str:
    lines = [_lines(name, labels, value) for name, value in values.items()]
    return "".join([*lines, _lines("info", {**labels, **about}, 1)])


def _lines(name: str, labels: Mapping[str, str], value: float) -> str:
    metric = f"tidegate_deploy_{name}"
    pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"# HELP {metric} {_HELP[name]}\n# TYPE {metric} gauge\n{metric}{{{pairs}}} {round(float(value), 3):.15g}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


_HELP = {
    "in_progress": "Whether a deploy, rollback or prune is being carried out.",
    "started_timestamp_seconds": "When the last one began.",
    "finished_timestamp_seconds": "When the last one ended; absent while one is carried out.",
    "success": "Whether the last one did what was planned; absent while one is carried out.",
    "duration_seconds": "How long the last one took.",
    "info": "What the last one was about.",
}
