"""How the backups stand, for node_exporter's textfile collector; what nobody knows is left out rather than 0."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from backup.agent.model import FULL, RESTORE, Settings, utc
from backup.agent.retention import Decision
from backup.agent.store import Backup, Store
from ops.agent import files


@dataclass(frozen=True)
class Standing:
    """The figures; times are seconds since 1970, None is unknown."""

    app: str
    environment: str
    interval: float
    good: int
    frozen: bool
    last_success: float | None = None
    last_attempt: float | None = None
    last_attempt_ok: bool | None = None
    verified: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    bytes: int | None = None
    sources: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class _Metric:
    name: str
    help: str
    samples: Sequence[tuple[Mapping[str, str], float | None]]


def standing(
    settings: Settings, backups: Sequence[Backup], history: Sequence[Mapping[str, Any]], frozen: Sequence[str], now: datetime
) -> Standing:
    """Return how things stand, whatever command ran last; backups and history are oldest first."""
    good = [one for one in backups if one.whole and one.taken <= now]  # one from the future would look fresh for ever
    newest = max(good, key=lambda one: one.taken, default=None)
    attempts = [one for one in history if one.get("event") == "run"]
    attempt = attempts[-1] if attempts else None
    return Standing(
        settings.app, settings.environment, settings.interval.total_seconds(), len(good), bool(frozen),
        last_success=newest.taken.timestamp() if newest else None,
        last_attempt=_when(attempt) if attempt else None,
        last_attempt_ok=bool(attempt.get("ok")) if attempt else None,
        verified=dict(_verified(backups)),
        seconds=newest.manifest.seconds if newest else None,
        bytes=newest.manifest.bytes if newest else None,
        sources=_sources(settings, attempt, backups) if attempt else {},
    )  # fmt: skip


def _when(record: Mapping[str, Any]) -> float | None:
    try:
        return utc(str(record.get("finished", ""))).timestamp()
    except ValueError:
        return None


def _verified(backups: Sequence[Backup]) -> Iterator[tuple[str, float]]:
    for level, proving in ((FULL, (FULL, RESTORE)), (RESTORE, (RESTORE,))):  # before a restore everything is decoded
        times = [utc(proof.time).timestamp() for one in backups for proof in one.proofs if proof.level in proving and proof.ok]
        if times:
            yield level, max(times)


def _sources(settings: Settings, attempt: Mapping[str, Any], backups: Sequence[Backup]) -> dict[str, bool]:
    """Return what the last attempt saved; it left nothing behind where none of them could be saved."""
    manifest = next((one.manifest for one in backups if one.id == attempt.get("id")), None)
    names = [one.name for one in settings.sources]
    if manifest is None:
        return {} if attempt.get("ok") else dict.fromkeys(names, False)
    return {name: name not in manifest.failed for name in names if manifest.item(name) or name in manifest.failed}


def render(known: Standing) -> str:
    """Return the figures as Prometheus reads them."""
    return "".join(line for metric in _metrics(known) for line in _lines(metric, known))


def _metrics(known: Standing) -> Iterator[_Metric]:
    yield _Metric("last_success_timestamp_seconds", "Moment of the newest good backup.", [({}, known.last_success)])
    yield _Metric("last_attempt_timestamp_seconds", "When the last attempt at a backup ended.", [({}, known.last_attempt)])
    yield _Metric("last_attempt_success", "Whether the last attempt saved every source.", [({}, known.last_attempt_ok)])
    yield _Metric("last_verified_timestamp_seconds", "When a backup last passed: full, decoded to its end; restore, restored.",
                  [({"level": level}, when) for level, when in known.verified.items()])  # fmt: skip
    yield _Metric("duration_seconds", "How long the newest good backup took.", [({}, known.seconds)])
    yield _Metric("bytes", "Size on disk of the newest good backup.", [({}, known.bytes)])
    yield _Metric("good_copies", "Backups that are complete and proven.", [({}, known.good)])
    yield _Metric("expected_interval_seconds", "How often a good backup is expected.", [({}, known.interval)])
    yield _Metric("frozen", "Whether nothing is deleted because something looks wrong.", [({}, known.frozen)])
    yield _Metric("source_success", "Whether the last attempt saved the source.",
                  [({"source": name}, ok) for name, ok in known.sources.items()])  # fmt: skip


def _lines(metric: _Metric, known: Standing) -> Iterator[str]:
    name = f"tidegate_backup_{metric.name}"
    samples = [(labels, value) for labels, value in metric.samples if value is not None]
    if samples:
        yield f"# HELP {name} {metric.help}\n# TYPE {name} gauge\n"
    for labels, value in samples:
        pairs = {"app": known.app, "environment": known.environment, **labels}
        written = ",".join(f'{key}="{_escaped(text)}"' for key, text in pairs.items())
        yield f"{name}{{{written}}} {_number(value)}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}"


def write(settings: Settings, store: Store, decision: Decision, now: datetime) -> None:
    """Put the figures where node_exporter reads them: readable by all, and whole or not there."""
    folder = Path(settings.home) / "metrics"
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o755)  # noqa: S103  # node_exporter is another user, and our umask keeps all others out
    os.chown(folder, os.stat(settings.home).st_uid, -1)  # deploys write there too, and are not root
    text = render(standing(settings, store.backups()[0], store.history(), decision.frozen, now))
    files.write(str(folder / f"{settings.app}_backup.prom"), text, 0o644)
