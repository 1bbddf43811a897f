"""The policy applied to what lies on the disk: from backups to decisions, and from decisions to deletions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from backup.agent import releases
from backup.agent.model import Settings, utc
from backup.agent.retention import DEFAULTS, ELSE_DUE, Decision, Known, Policy, Rule, decide
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


def thawed(decision: Decision) -> Decision:
    """Return what a frozen decision would have deleted as due; what is kept for another reason stays kept."""
    due = {id: reasons[0].removeprefix(ELSE_DUE) for id, reasons in decision.kept.items() if reasons[0].startswith(ELSE_DUE)}
    kept = {id: reasons for id, reasons in decision.kept.items() if id not in due}
    return Decision(kept, {**decision.due, **due}, decision.frozen)


def expire(store: Store, decision: Decision, deleted: Callable[[str, str], None]) -> None:
    """Delete what is due, telling of each; under the store's lock."""
    for id, why in decision.due.items():
        store.delete(id)
        deleted(id, why)
