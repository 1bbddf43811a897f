"""The policy applied to what lies on the disk: from backups to decisions, and from decisions to deletions."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from backup.agent import releases
from backup.agent.model import Settings, utc
from backup.agent.retention import DEFAULTS, Decision, Known, Policy, Rule, decide
from backup.agent.store import Backup, Store

SCHEDULES = ("/etc/cron.d/tidegate-{app}", "/etc/systemd/system/tidegate-backup-{app}.timer")
NEVER = timedelta(days=36500)
OVERDUE = timedelta(hours=26)


def scheduled(settings: Settings) -> bool:
    """Tell whether a schedule is installed, so that daily backups can be expected."""
    return any(Path(path.format(app=settings.app)).exists() for path in SCHEDULES)


def policy(settings: Settings) -> Policy:
    """Return the policy that the settings describe; types they do not mention have the default rule."""
    rules = {kind: _rule(rule) for kind, rule in settings.keep.items()}
    return Policy({**DEFAULTS, **rules}, settings.minimum, OVERDUE if scheduled(settings) else NEVER)


def _rule(rule: dict[str, float] | object) -> Rule:
    known = dict(rule) if isinstance(rule, dict) else {}
    keep, count = known.get("keep"), known.get("count")
    return Rule(timedelta(seconds=keep) if keep else None, int(count) if count else None)


def known(backup: Backup, points: dict[str, str]) -> Known:
    """Return a backup as the policy sees it."""
    proof = backup.restored
    measures = {f"{item.source} {name}": value for item in backup.manifest.items
                for name, value in (("bytes", item.bytes), ("tables", len(item.counts)))}  # fmt: skip
    return Known(
        backup.id, backup.taken, frozenset(backup.manifest.types), backup.whole, utc(proof.time) if proof else None,
        measures, backup.pinned, points.get(backup.id, ""),
    )  # fmt: skip


def judge(settings: Settings, store: Store, now: datetime) -> Decision:
    """Decide about every backup that lies there."""
    points = releases.restore_points(settings)
    return decide([known(one, points) for one in store.backups()[0]], policy(settings), now, points)


def expire(settings: Settings, store: Store, now: datetime) -> Decision:
    """Delete what is due, and nothing while the policy is frozen; under the store's lock."""
    decision = judge(settings, store, now)
    for id in decision.due:
        store.delete(id)
    return decision
