"""Ten years of backups with failures, deploys, pins, wrong clocks and shrunken databases; every day's decision is carried out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from random import Random

import pytest

from backup.agent.due import drill_due, last_proof, types_due
from backup.agent.retention import DEFAULTS, Decision, Known, Policy, Rule, decide

START = datetime(2024, 1, 1, 3, tzinfo=UTC)
DAY = timedelta(days=1)
YEARS = range((datetime(2034, 1, 1, 3, tzinfo=UTC) - START).days)  # three leap days


@dataclass
class Server:
    """A server that is backed up once a day, and whatever happens to it."""

    policy: Policy = field(default_factory=Policy)
    known: dict[str, Known] = field(default_factory=dict)
    releases: tuple[str, ...] = ()
    deleted: int = 0
    frozen_days: int = 0
    most: int = 0

    def take(self, now: datetime, types: Collection[str], *, good: bool = True, size: int = 1000) -> Known:
        taken = Known(f"{now:%Y%m%d}-{len(self.known)}-{self.deleted}", now, frozenset(types), good, measures={"bytes": size})
        self.known[taken.id] = taken
        return taken

    def day(self, now: datetime, *, good: bool = True, size: int = 1000) -> None:
        """Back up as scheduled, prove a restore weekly, delete what is due."""
        if types := types_due(now, time(3), self.known.values()):
            taken = self.take(now, types, good=good, size=size)
            if good and drill_due(now, last_proof(now, self.known.values()), 7 * DAY):
                self.known[taken.id] = replace(taken, proven=now)
        self.prune(now)

    def prune(self, now: datetime) -> Decision:
        found = decide(self.known.values(), self.policy, now, self.releases)
        hold(found, self, now)
        self.known = {id: one for id, one in self.known.items() if id in found.kept}
        self.deleted += len(found.due)
        self.frozen_days += bool(found.frozen)
        if not found.frozen:
            self.most = max(self.most, sum(not one.pinned for one in self.known.values()))
        return found


def hold(found: Decision, server: Server, now: datetime) -> None:
    """Check what has to be so on every day of the ten years."""
    known, policy = server.known, server.policy
    assert found.kept.keys() | found.due.keys() == known.keys()
    assert not found.kept.keys() & found.due.keys()
    assert all(found.kept.values())
    assert not (found.frozen and found.due)
    good = sorted((one for one in known.values() if one.good), key=lambda one: one.taken)
    assert all(one.id in found.kept for one in good[-policy.minimum :])
    assert all(one.id in found.kept for one in [one for one in good if one.proven][-1:])
    for one in map(known.__getitem__, found.due):
        assert not one.pinned
        assert one.id not in server.releases
        assert now - one.taken >= longest(one, policy.rules)


def longest(one: Known, rules: Mapping[str, Rule]) -> timedelta:
    return (max if one.good else min)(rules[kind].keep or timedelta(0) for kind in one.types)


def test_ten_years_without_incident_keep_what_the_rules_say_and_nothing_else() -> None:
    server, everything = Server(), dict[str, Known]()
    for day in YEARS:
        now = START + day * DAY
        server.day(now)
        everything |= server.known
        live = {one.id for one in everything.values() if now - one.taken < longest(one, DEFAULTS)}
        assert live == server.known.keys()
        everything = {id: one for id, one in everything.items() if id in live}
    assert server.frozen_days == 0
    assert 30 + 8 + 10 <= len(server.known) <= server.most <= 30 + 13 + 13
    months = {(one.taken.year, one.taken.month) for one in server.known.values() if "monthly" in one.types}
    assert months == {(2033, month) for month in range(1, 13)}


class Fate:
    """What happens to a server, from a seed: the same every time."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.failing = self.small = self.wrong = 0
        self.offset = timedelta(0)

    def strikes(self, per_year: float) -> bool:
        return self.chance.random() < per_year / 365

    def days(self, *choices: int) -> int:
        return self.chance.choice(choices)

    def tomorrow(self) -> None:
        """Begin and end troubles."""
        self.failing = self.days(1, 1, 2, 5, 44) if self.strikes(6) else max(0, self.failing - 1)
        self.small = self.days(1, 3, 10) if self.strikes(2) else max(0, self.small - 1)
        self.wrong = max(0, self.wrong - 1)
        if not self.wrong:
            self.offset = timedelta(0)
            if self.strikes(0.5):
                self.wrong, self.offset = self.days(1, 2), self.days(-365, -30, -1, 1, 30, 365) * DAY


def live_a_day(server: Server, fate: Fate, true: datetime) -> None:
    now = true + fate.offset
    if not fate.wrong:  # with the clock right again the operator removes what is dated ahead, as the freeze asks
        server.known = {id: one for id, one in server.known.items() if one.taken <= now}
    if not fate.strikes(10):  # else it is switched off
        server.day(now, good=not fate.failing, size=100 if fate.small else 1000)
    if fate.strikes(30):
        point = server.take(now + timedelta(hours=7), ["deploy"])
        server.releases = (*server.releases, point.id)[-5:]
    if fate.strikes(10):
        manual = server.take(now + timedelta(hours=8), ["manual"], good=not fate.failing)
        if fate.strikes(100):
            server.known[manual.id] = replace(manual, pinned="before a clean-up")


@pytest.mark.parametrize("seed", range(2))
def test_ten_years_of_incidents_lose_nothing_and_stay_bounded(seed: int) -> None:
    server, fate = Server(), Fate(seed)
    for day in YEARS:
        fate.tomorrow()
        live_a_day(server, fate, START + day * DAY)
    assert 50 < server.most <= 65
    assert server.deleted > 3000
    assert 100 < server.frozen_days < 1200


@pytest.mark.parametrize("ahead", [-365, -30, -1, 1, 2, 30, 365])
def test_a_clock_that_is_wrong_for_two_days_deletes_nothing_before_its_time(ahead: int) -> None:
    server = Server()
    for day in range(600):
        server.day(START + day * DAY)
    before = server.known
    for day in (600, 601):
        server.day(START + (day + ahead) * DAY)
    now = START + 602 * DAY
    server.day(now)
    assert {id for id, one in before.items() if now - one.taken < longest(one, DEFAULTS)} <= server.known.keys()


def test_failing_for_44_days_deletes_nothing_and_three_good_ones_resume() -> None:
    server = Server()
    for day in range(401):
        server.day(START + day * DAY, good=day < 400)
    before, deleted = set(server.known), server.deleted
    for day in range(401, 446):
        server.day(START + day * DAY, good=day >= 444)
        assert before <= server.known.keys()
        assert server.deleted == deleted
    server.day(START + 446 * DAY)
    assert server.deleted > deleted
