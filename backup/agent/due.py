"""Which backups a scheduled run has to take, and when the next ones are. Pure, and in UTC, where no hour is missing or twice.

The schedule calls every hour. A type is due until a good backup of it was taken since the last time it should have been:
so a run that was missed or failed is made up for within the hour, and one backup serves every type that is due. Runs that
leave a partial backup are repeated `ATTEMPTS` times a day at most: while good ones are missing, nothing is deleted.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, time, timedelta, timezone

from backup.agent.retention import Known, in_utc

SCHEDULED = ("daily", "weekly", "monthly")
ATTEMPTS = 3


def types_due(now: datetime, at: time, backups: Collection[Known], weekday: int = 0) -> frozenset[str]:
    """Return the types that one backup taken now is to serve; `at` is in UTC, weekday 0 is Monday."""
    now = in_utc(now)
    return frozenset() if _exhausted(now, at, backups) else _missing(now, at, backups, weekday)


def next_runs(now: datetime, at: time, backups: Collection[Known], weekday: int = 0) -> dict[str, datetime]:
    """Return when each type is taken next; `now` for those that are due already."""
    now = in_utc(now)
    missing = _missing(now, at, backups, weekday)
    retry = _following("daily", now, at, weekday) if _exhausted(now, at, backups) else now
    return {kind: retry if kind in missing else _following(kind, now, at, weekday) for kind in SCHEDULED}


def last_proof(now: datetime, backups: Collection[Known]) -> datetime | None:
    """Return when a restore last passed; a proof from the future counts as none."""
    return max((one.proven for one in backups if one.proven and one.proven <= in_utc(now)), default=None)


def drill_due(now: datetime, last: datetime | None, every: timedelta) -> bool:
    """Tell whether it is time to restore a backup to prove it; a proof from the future counts as none."""
    return last is None or not timedelta(0) <= in_utc(now) - in_utc(last) < every


def _missing(now: datetime, at: time, backups: Collection[Known], weekday: int) -> frozenset[str]:
    """Return the types without a good backup since they were to be taken."""
    # One from the future, taken while the clock was wrong, says nothing: it would stop all backups until the clock is there.
    good = [one for one in backups if one.good and one.taken <= now]
    since = {kind: _latest(kind, now, at, weekday) for kind in SCHEDULED}
    return frozenset(kind for kind in SCHEDULED if not any(kind in one.types and one.taken >= since[kind] for one in good))


def _exhausted(now: datetime, at: time, backups: Collection[Known]) -> bool:
    today = _latest("daily", now, at, 0)
    return sum(not one.good and bool(one.types & {*SCHEDULED}) and today <= one.taken <= now for one in backups) >= ATTEMPTS


def _latest(kind: str, now: datetime, at: time, weekday: int) -> datetime:
    """Return the last time, now included, that a type should have been taken."""
    today = _at(now, at)
    day = today if today <= now else today - timedelta(days=1)
    if kind == "weekly":
        return day - timedelta(days=(day.weekday() - weekday) % 7)
    return day.replace(day=1) if kind == "monthly" else day


def _following(kind: str, now: datetime, at: time, weekday: int) -> datetime:
    """Return the next time after now that a type is to be taken."""
    latest = _latest(kind, now, at, weekday)
    if kind == "monthly":
        return (latest + timedelta(days=31)).replace(day=1)
    return latest + timedelta(days=7 if kind == "weekly" else 1)


def _at(day: datetime, at: time) -> datetime:
    if at.tzinfo not in (None, timezone.utc):  # noqa: UP017  # 3.10
        raise ValueError(f"{at} is not in UTC")
    return datetime.combine(day.date(), at, timezone.utc)  # noqa: UP017  # 3.10
