"""Which backups are kept, which are due for deletion, and why. Pure: the time is an argument, ages come from manifests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import pairwise, takewhile

from backup.agent.model import written

ROW = 3  # good ones in a row that end a freeze


@dataclass(frozen=True)
class Rule:
    """How long backups of a type are kept: while younger than `keep`, or among the newest `count` good ones of the type.

    Of several types the longest rule holds for a good backup, the shortest for one that is not.
    """

    keep: timedelta | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if self.keep is None and self.count is None:
            raise ValueError("a rule needs a period, a count or both")
        if (self.keep is not None and self.keep <= timedelta(0)) or (self.count is not None and self.count < 1):
            raise ValueError("a rule's period and count must be more than nothing")


ELSE_DUE = "frozen: else due, "

DEFAULTS: Mapping[str, Rule] = {
    "daily": Rule(timedelta(days=30)),
    "weekly": Rule(timedelta(days=90)),
    "monthly": Rule(timedelta(days=365)),
    "manual": Rule(timedelta(days=30)),
    "deploy": Rule(timedelta(days=7)),
    "safety": Rule(timedelta(days=7)),
}


@dataclass(frozen=True)
class Policy:
    """What is kept whatever its type, and when to delete nothing at all.

    `minimum` good ones are always kept. Nothing is deleted while the newest of them are further apart or older than
    `overdue`, or while one of the newest good one's figures is below `shrink` (a share) of what it was among them.
    """

    rules: Mapping[str, Rule] = field(default_factory=lambda: DEFAULTS)
    minimum: int = 3
    overdue: timedelta = timedelta(hours=26)
    shrink: float = 0.5

    def __post_init__(self) -> None:
        if self.minimum < 1 or self.overdue <= timedelta(0) or not 0 <= self.shrink <= 1:
            raise ValueError("minimum must be 1 or more, overdue more than nothing, shrink between 0 and 1")


@dataclass(frozen=True)
class Known:
    """A backup as the policy sees it.

    `taken` is the manifest's time; `good` means complete and decoded to its end; `proven` is when a restore of it last
    passed; `measures` are figures that must not fall sharply, by name ("blog bytes", "blog tables"); `pinned` is a note.
    """

    id: str
    taken: datetime
    types: frozenset[str]
    good: bool
    proven: datetime | None = None
    measures: Mapping[str, int] = field(default_factory=dict)
    pinned: str = ""
    release: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "taken", in_utc(self.taken))
        object.__setattr__(self, "proven", self.proven and in_utc(self.proven))


@dataclass(frozen=True)
class Decision:
    """Every backup by its id, newest first: kept with all reasons, or due with one; `frozen` says why none is due."""

    kept: Mapping[str, tuple[str, ...]]
    due: Mapping[str, str]
    frozen: tuple[str, ...]


def decide(backups: Collection[Known], policy: Policy, now: datetime, restore_points: Collection[str] = ()) -> Decision:
    """Decide about all backups of one app; `restore_points` are the ids that kept releases name."""
    now = in_utc(now)
    ordered = sorted(backups, key=lambda one: (one.taken, one.id), reverse=True)
    good = [one for one in ordered if one.good]
    frozen = tuple(_freezes(ordered, good, policy, now))
    always = _always(ordered, good, policy.minimum)
    newer: Counter[str] = Counter()
    kept: dict[str, tuple[str, ...]] = {}
    due: dict[str, str] = {}
    for one in ordered:
        protected = [*_named(one, restore_points), *always.get(one.id, ())]
        by_rule, expired = _by_rules(one, policy.rules, now, newer)
        if protected or by_rule:
            kept[one.id] = (*protected, *by_rule)
        elif frozen:
            kept[one.id] = (f"{ELSE_DUE}{expired}",)
        else:
            due[one.id] = expired
        newer.update(one.types if one.good else ())
    return Decision(kept, due, frozen)


def in_utc(moment: datetime) -> datetime:
    """Return a moment in UTC: within another zone Python subtracts and compares wall clocks. Raises ValueError without a zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone")
    return moment.astimezone(timezone.utc)  # noqa: UP017  # 3.10


def span(length: timedelta) -> str:
    """Return a length of time in words: "3 d 2 h", "5 h 10 min", "0 min"."""
    days, rest = divmod(int(length.total_seconds()) // 60, 24 * 60)
    hours, minutes = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h")] if days else [(hours, "h"), (minutes, "min")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 min"


def _named(one: Known, restore_points: Collection[str]) -> Iterator[str]:
    """Say what names this very backup, good or not."""
    if one.pinned:
        yield f"pinned: {one.pinned}"
    if one.id in restore_points:
        yield f"restore point of release {one.release}" if one.release else "restore point of a kept release"


def _always(ordered: Sequence[Known], good: Sequence[Known], minimum: int) -> dict[str, list[str]]:
    """Return reasons that hold whatever the type, by id; both sequences are newest first."""
    found: dict[str, list[str]] = {one.id: [] for one in good}
    for one in takewhile(lambda one: not one.good, ordered):
        found[one.id] = ["no good one is newer"]
    if good:
        found[good[0].id].append("the newest good one")
    proven = next((one for one in good if one.proven), None)
    if proven:
        found[proven.id].append("the newest proven by a restore")
    for number, one in enumerate(good[:minimum], 1):
        found[one.id].append(f"good one {number} of the {minimum} always kept")
    return found


def _by_rules(one: Known, rules: Mapping[str, Rule], now: datetime, newer: Mapping[str, int]) -> tuple[list[str], str]:
    """Return the reasons of the types that keep it, and what to say if there are none."""
    if not one.types:
        return ["of no type: no rule is about it"], ""
    keeping: list[str] = []
    expired: list[str] = []
    for kind in sorted(one.types):
        rule = rules.get(kind)
        keeps, words = _by_rule(rule, now - one.taken, newer[kind]) if rule else (True, "no rule for this type")
        (keeping if keeps else expired).append(f"{kind}: {words}")
    if one.good:
        return keeping, "; ".join(expired)
    # One that is not good stands for none of its types wholly: the shortest rule, or a month of failures stays for a year.
    return ([] if expired else keeping), "not a good one; " + "; ".join(expired)


def _by_rule(rule: Rule, age: timedelta, newer: int) -> tuple[bool, str]:
    keeps, words = [], []
    if rule.keep is not None:
        keeps.append(age < rule.keep)
        words.append(f"{_old(age)}, kept {span(rule.keep)}")
    if rule.count is not None:
        keeps.append(newer < rule.count)
        words.append(f"{newer} newer, newest {rule.count} kept")
    return any(keeps), ", ".join(words)


def _old(age: timedelta) -> str:
    return f"{span(age)} old" if age >= timedelta(0) else f"{span(-age)} ahead of the clock"


def _freezes(ordered: Sequence[Known], good: Sequence[Known], policy: Policy, now: datetime) -> Iterator[str]:
    """Say why nothing may be deleted now; both sequences are newest first."""
    if ordered and ordered[0].taken > now:
        ahead = span(ordered[0].taken - now)
        yield f"backup {ordered[0].id} is {ahead} ahead of the clock {written(now)}: the clock is wrong, or was when it was taken"
    if not good:
        yield "there is no good backup"
        return
    expected = f"expected every {span(policy.overdue)}"
    if now - good[0].taken > policy.overdue:
        yield f"the newest good backup is {span(now - good[0].taken)} old, {expected}"
    # The newest `minimum` are never deleted: a gap between them is one of failures or of the clock, never the policy's own.
    # Few are enough: who keeps a hundred must not wait for a hundred after each night that a server was down.
    row = min(policy.minimum, ROW)
    for later, earlier in pairwise(good[:row]):
        if later.taken - earlier.taken > policy.overdue:
            gap = span(later.taken - earlier.taken)
            yield f"no good backup for {gap} before {written(later.taken)}, {expected}: waiting for {row} in a row"
    yield from _falls(good[: max(row, 2)], policy.shrink)


def _falls(good: Sequence[Known], shrink: float) -> Iterator[str]:
    """Say which of the newest good one's figures are far below those of the others; a missing one is 0."""
    newest, *others = good
    for name in sorted({name for one in others for name in one.measures}):
        largest = max(others, key=lambda one: one.measures.get(name, 0))
        before, after = largest.measures[name], newest.measures.get(name, 0)
        if after < before * shrink:
            yield f"{name}: {after:,} in the newest good backup, {before:,} in {largest.id}: less than {shrink:.0%}"
