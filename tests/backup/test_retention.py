"""What the retention policy keeps, deletes and says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.agent.model import TYPES
from backup.agent.retention import DEFAULTS, Decision, Known, Policy, Rule, decide, span

NOW = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def backup(days: float, *types: str, good: bool = True, **more: object) -> Known:
    """Return a backup of that age in days, which is its id too."""
    known = Known(f"{days:g}", NOW - days * DAY, frozenset(types or ("daily",)), good)
    return replace(known, **more)  # type: ignore[arg-type]


FRESH = [backup(days) for days in (0.1, 1, 2)]  # the minimum, so that what is older has to have reasons of its own


def judge(*backups: Known, policy: Policy | None = None, now: datetime = NOW, points: tuple[str, ...] = ()) -> Decision:
    return decide(backups, policy or Policy(), now, points)


# ---- rules


@pytest.mark.parametrize(("kind", "days"), [(kind, rule.keep / DAY) for kind, rule in DEFAULTS.items() if rule.keep])
def test_each_type_is_kept_for_its_period_and_not_longer(kind: str, days: float) -> None:
    found = judge(*FRESH, backup(days - 0.01, kind), backup(days, kind))
    assert f"{days - 0.01:g}" in found.kept
    assert found.due == {f"{days:g}": f"{kind}: {days:g} d old, kept {days:g} d"}


def test_there_is_a_default_rule_for_every_type() -> None:
    assert set(DEFAULTS) == set(TYPES)


def test_a_backup_of_several_types_is_kept_as_long_as_any_of_them_says() -> None:
    found = judge(*FRESH, backup(40, "daily", "weekly"), backup(100, "daily", "weekly", "monthly"))
    assert found.kept["40"] == ("weekly: 40 d old, kept 90 d",)
    assert found.kept["100"] == ("monthly: 100 d old, kept 365 d",)
    assert judge(*FRESH, backup(95, "daily", "weekly")).due == {
        "95": "daily: 95 d old, kept 30 d; weekly: 95 d old, kept 90 d",
    }


def test_a_count_keeps_the_newest_of_the_type_however_old() -> None:
    policy = Policy({**DEFAULTS, "weekly": Rule(count=2)})
    found = judge(*FRESH, *(backup(days, "weekly") for days in (300, 400, 500)), policy=policy)
    assert found.kept["400"] == ("weekly: 1 newer, newest 2 kept",)
    assert found.due == {"500": "weekly: 2 newer, newest 2 kept"}


def test_period_and_count_each_keep() -> None:
    policy = Policy({"daily": Rule(5 * DAY, 4)})
    found = judge(*FRESH, *(backup(days) for days in (3, 4.5, 6, 7)), policy=policy)
    assert found.kept["4.5"] == ("daily: 4 d 12 h old, kept 5 d, 4 newer, newest 4 kept",)
    assert set(found.due) == {"6", "7"}
    assert "6" in judge(*FRESH, backup(6), policy=policy).kept, "fourth newest"


def test_a_count_of_one_type_does_not_count_the_others() -> None:
    policy = Policy({"daily": Rule(count=1), "weekly": Rule(count=1)})
    assert judge(*FRESH, backup(60, "weekly"), policy=policy).kept["60"] == ("weekly: 0 newer, newest 1 kept",)


@pytest.mark.parametrize(
    ("types", "reason"), [(("hourly",), "hourly: no rule for this type"), ((), "of no type: no rule is about it")]
)
def test_what_no_rule_is_about_is_kept(types: tuple[str, ...], reason: str) -> None:
    assert judge(*FRESH, backup(900, types=frozenset(types))).kept["900"] == (reason,)


@pytest.mark.parametrize(
    "make",
    [Rule, lambda: Rule(timedelta(0)), lambda: Rule(DAY, 0), lambda: Policy(minimum=0), lambda: Policy(shrink=1.1),
     lambda: Policy(shrink=-0.1), lambda: Policy(overdue=timedelta(0))],
)  # fmt: skip
def test_a_rule_or_policy_that_keeps_nothing_is_no_policy(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"needs a period|more than nothing"):
        make()


# ---- whatever the type


def test_the_minimum_is_kept_and_made_of_good_ones() -> None:
    policy = Policy({"daily": Rule(HOUR)})
    found = judge(backup(0.1), backup(0.5, good=False), backup(1), backup(2), backup(3), policy=policy)
    assert found.kept == {
        "0.1": ("the newest good one", "good one 1 of the 3 always kept"),
        "1": ("good one 2 of the 3 always kept",),
        "2": ("good one 3 of the 3 always kept",),
    }
    assert found.due == {"0.5": "not a good one; daily: 12 h old, kept 1 h", "3": "daily: 3 d old, kept 1 h"}


def test_the_newest_proven_by_a_restore_is_kept() -> None:
    found = judge(*FRESH, backup(100, good=False, proven=NOW), backup(200, proven=NOW - 150 * DAY), backup(300, proven=NOW))
    assert found.kept["200"] == ("the newest proven by a restore",)
    assert set(found.due) == {"100", "300"}


def test_a_pinned_one_is_kept_good_or_not() -> None:
    found = judge(*FRESH, backup(900, pinned="before the audit"), backup(901, good=False, pinned="evidence"))
    assert found.kept["900"] == ("pinned: before the audit",)
    assert found.kept["901"] == ("pinned: evidence",)


def test_restore_points_are_kept_as_long_as_their_release() -> None:
    point = backup(50, "deploy", release="20261004-1")
    assert judge(*FRESH, point, points=("50",)).kept["50"] == ("restore point of release 20261004-1",)
    assert judge(*FRESH, replace(point, release=""), points=("50",)).kept["50"] == ("restore point of a kept release",)
    assert set(judge(*FRESH, point, points=("gone",)).due) == {"50"}


# ---- failed ones


def test_a_failed_one_outlives_its_rule_until_a_good_one_is_newer() -> None:
    found = judge(*FRESH, backup(0.05, good=False), policy=Policy({"daily": Rule(HOUR)}))
    assert found.kept["0.05"] == ("no good one is newer",)


def test_failed_ones_do_not_push_good_ones_out_of_a_count() -> None:
    policy = Policy({"daily": Rule(HOUR), "weekly": Rule(count=1)})
    found = judge(*FRESH, backup(3, "weekly", good=False), backup(4, "weekly"), backup(5, "weekly", good=False), policy=policy)
    assert found.kept["3"] == found.kept["4"] == ("weekly: 0 newer, newest 1 kept",)
    assert found.due == {"5": "not a good one; weekly: 1 newer, newest 1 kept"}


def test_a_failed_one_of_several_types_is_kept_as_long_as_the_shortest_rule_says() -> None:
    types = "daily", "weekly", "monthly"
    found = judge(*FRESH, backup(29, *types, good=False), backup(31, *types, good=False))
    assert found.kept["29"][0] == "daily: 29 d old, kept 30 d"
    assert found.due == {"31": "not a good one; daily: 31 d old, kept 30 d"}


def test_failing_for_44_days_deletes_nothing() -> None:
    before = [backup(days) for days in range(45, 75)]
    failing = [backup(days, good=False) for days in range(45)]
    found = judge(*before, *failing)
    assert not found.due
    assert found.frozen == ("the newest good backup is 45 d old, expected every 1 d 2 h",)
    assert found.kept["50"] == ("frozen: else due, daily: 50 d old, kept 30 d",)
    assert not judge(*failing, policy=Policy({"daily": Rule(HOUR)})).due
    assert judge(*failing).frozen == ("there is no good backup",)


# ---- frozen


def test_deleting_waits_for_good_ones_in_a_row_after_a_gap() -> None:
    old = [backup(days) for days in range(45, 75)]
    words = ("no good backup for 44 d before 2026-11-22T10:30:00Z, expected every 1 d 2 h: waiting for 3 in a row",)
    first = judge(backup(1), *old)
    second = judge(backup(0), backup(1), *old)
    assert first.frozen == second.frozen == words
    assert not first.due
    assert not second.due
    third = judge(backup(-1), backup(0), backup(1), *old, now=NOW + DAY)
    assert third.frozen == ()
    assert len(third.due) == 30


def test_a_backup_from_the_future_freezes() -> None:
    found = judge(backup(-365, good=False), *FRESH, backup(900))
    assert found.frozen == (
        "backup -365 is 365 d ahead of the clock 2026-11-23T10:30:00Z: the clock is wrong, or was when it was taken",
    )
    assert found.kept["900"] == ("frozen: else due, daily: 900 d old, kept 30 d",)
    assert not found.due


def test_a_clock_a_year_ahead_freezes_and_a_run_under_it_does_not_end_that() -> None:
    usual = [backup(days) for days in range(30)]
    later = NOW + 365 * DAY
    assert judge(*usual, now=later).frozen == ("the newest good backup is 365 d old, expected every 1 d 2 h",)
    assert not judge(*usual, now=later).due
    assert not judge(backup(-365), *usual, now=later).due
    assert not judge(backup(-366), backup(-365), *usual, now=later + DAY).due


def test_a_sharp_fall_freezes_until_it_is_the_usual() -> None:
    old = [backup(days, measures={"blog bytes": 10_000, "blog tables": 12}) for days in (3, 4, 40)]
    small = [backup(days, measures={"blog bytes": 4_999, "blog tables": 6}) for days in (0.1, 1.1, 2.1)]
    assert judge(small[2], *old, now=NOW - 2 * DAY).frozen == (
        "blog bytes: 4,999 in the newest good backup, 10,000 in 3: less than 50%",
    )
    assert judge(*small[1:], *old, now=NOW - DAY).frozen
    assert set(judge(*small, *old).due) == {"40"}


def test_a_fall_that_was_no_more_than_one_backup_ends_the_freeze() -> None:
    whole, empty = {"blog bytes": 10_000}, {"blog bytes": 20}
    assert judge(backup(0.1, measures=empty), backup(1, measures=whole), backup(40)).frozen
    assert not judge(backup(0.1, measures=whole), backup(1, measures=empty), backup(2, measures=whole), backup(40)).frozen


def test_a_source_that_vanished_is_a_fall_and_a_new_one_is_none() -> None:
    one, both = {"blog tables": 12}, {"blog tables": 12, "shop tables": 7}
    assert judge(backup(0.1, measures=one), backup(1, measures=both), backup(2)).frozen == (
        "shop tables: 0 in the newest good backup, 7 in 1: less than 50%",
    )
    assert not judge(backup(0.1, measures=both), backup(1, measures=one), backup(2)).frozen


def test_a_fall_of_what_is_not_good_is_none_and_a_share_of_0_ignores_falls() -> None:
    old = [backup(days, measures={"blog bytes": 10_000}) for days in (0.2, 1, 2)]
    assert not judge(backup(0.1, good=False), *old).frozen
    assert judge(backup(0.1), *old).frozen
    assert not judge(backup(0.1), *old, policy=Policy(shrink=0)).frozen


def test_a_minimum_of_one_still_notices_a_fall() -> None:
    pair = backup(0.1, measures={"blog bytes": 1}), backup(1, measures={"blog bytes": 9})
    assert judge(*pair, policy=Policy(minimum=1)).frozen


def test_nothing_at_all_is_due_of_nothing() -> None:
    assert judge() == Decision({}, {}, ("there is no good backup",))


# ---- time


@pytest.mark.parametrize(
    ("length", "words"),
    [(timedelta(0), "0 min"), (timedelta(seconds=59), "0 min"), (timedelta(minutes=5), "5 min"), (HOUR, "1 h"),
     (timedelta(hours=5, minutes=10), "5 h 10 min"), (3 * DAY + 2 * HOUR, "3 d 2 h"), (30 * DAY, "30 d"),
     (DAY + timedelta(minutes=5), "1 d"), (26 * HOUR, "1 d 2 h")],
)  # fmt: skip
def test_lengths_of_time_are_short_and_exact(length: timedelta, words: str) -> None:
    assert span(length) == words


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        judge(now=datetime(2026, 11, 23))  # noqa: DTZ001
    with pytest.raises(ValueError, match="no time zone"):
        Known("x", datetime(2026, 11, 23), frozenset(), True)  # noqa: DTZ001


def test_the_hour_that_a_zone_has_twice_makes_nothing_older_or_younger() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    first = datetime(2026, 10, 25, 2, 30, tzinfo=berlin)  # CEST
    again = first.replace(fold=1)  # an hour later, CET
    policy = Policy({"manual": Rule(HOUR)}, minimum=1)
    known = [Known("first", first, frozenset({"manual"}), True), Known("again", again, frozenset({"manual"}), True)]
    found = decide(known, policy, again)
    assert list(found.kept) == ["again"]
    assert found.due == {"first": "manual: 1 h old, kept 1 h"}


# ---- properties

MOMENTS = st.timedeltas(timedelta(0), 500 * DAY).map(lambda age: NOW - age)
KINDS = ("daily", "weekly", "monthly")
BACKUPS = st.lists(
    st.builds(
        Known,
        id=st.uuids().map(str),
        taken=MOMENTS | st.sampled_from([NOW - days * DAY for days in (0, 0.5, 1, 2, 7, 30, 90, 365)]),
        types=st.frozensets(st.sampled_from(KINDS), min_size=1, max_size=2)
        | st.sampled_from([frozenset(), frozenset({"hourly"})]),
        good=st.integers(0, 4).map(bool),
        proven=st.none() | MOMENTS,
        measures=st.sampled_from([{"bytes": size} for size in (1000, 1001, 1002, 1003, 1004, 400)]),
        pinned=st.sampled_from(["", "", "", "", "note"]),
    ),
    min_size=4,
    max_size=16,
    unique_by=lambda one: one.id,
)
PERIODS = st.sampled_from([HOUR, DAY, 7 * DAY, 90 * DAY])
RULES = st.builds(Rule, PERIODS) | st.builds(Rule, PERIODS, st.integers(1, 4)) | st.builds(Rule, count=st.integers(1, 4))
POLICIES = st.builds(
    Policy,
    st.fixed_dictionaries(dict.fromkeys(KINDS, RULES)),
    minimum=st.integers(1, 4),
    overdue=st.sampled_from([26 * HOUR, 1000 * DAY, 1000 * DAY, 1000 * DAY, 1000 * DAY]),  # mostly not frozen
    shrink=st.sampled_from([0.0, 0.5]),
)


def expired(one: Known, kind: str, policy: Policy, backups: list[Known]) -> bool:
    if kind not in policy.rules:
        return False
    rule = policy.rules[kind]
    newer = [other for other in backups if other.good and kind in other.types and (other.taken, other.id) > (one.taken, one.id)]
    return (rule.keep is None or NOW - one.taken >= rule.keep) and (rule.count is None or len(newer) >= rule.count)


def newest(backups: list[Known]) -> list[Known]:
    return sorted(backups, key=lambda one: (one.taken, one.id), reverse=True)


@given(backups=BACKUPS, policy=POLICIES)
def test_every_backup_is_either_kept_or_due_and_has_a_reason(backups: list[Known], policy: Policy) -> None:
    found = decide(backups, policy, NOW)
    assert sorted([*found.kept, *found.due]) == sorted(one.id for one in backups)
    assert all(reasons and all(reasons) for reasons in found.kept.values())
    assert all(found.due.values())
    assert not (found.frozen and found.due)


@given(backups=BACKUPS, policy=POLICIES)
def test_the_minimum_of_good_ones_remains_and_the_newest_proven_among_them(backups: list[Known], policy: Policy) -> None:
    found = decide(backups, policy, NOW)
    good = newest([one for one in backups if one.good])
    assert {one.id for one in good[: policy.minimum]} <= set(found.kept)
    assert not {one.id for one in [one for one in good if one.proven][:1]} & set(found.due)


@given(backups=BACKUPS, policy=POLICIES, data=st.data())
def test_what_nothing_speaks_for_is_due_and_nothing_else(backups: list[Known], policy: Policy, data: st.DataObject) -> None:
    points = data.draw(st.frozensets(st.sampled_from([one.id for one in backups]), max_size=2))
    found = decide(backups, policy, NOW, points)
    good = newest([one for one in backups if one.good])
    safe = {one.id for one in [*good[: policy.minimum], *[one for one in good if one.proven][:1]]} | points
    unneeded = {
        one.id
        for one in backups
        if one.id not in safe
        and not one.pinned
        and any((other.taken, other.id) >= (one.taken, one.id) for other in good)
        and one.types
        and (all if one.good else any)(expired(one, kind, policy, backups) for kind in one.types)
    }
    assert found.due.keys() == (set() if found.frozen else unneeded)


@given(backups=BACKUPS, policy=POLICIES)
def test_deleting_what_is_due_leaves_nothing_more_to_delete(backups: list[Known], policy: Policy) -> None:
    due = decide(backups, policy, NOW).due
    assert not decide([one for one in backups if one.id not in due], policy, NOW).due


@given(backups=BACKUPS, policy=POLICIES, age=st.timedeltas(timedelta(0), 500 * DAY))
def test_a_failed_backup_more_never_makes_another_one_due(backups: list[Known], policy: Policy, age: timedelta) -> None:
    failed = Known("failed", NOW - age, frozenset(TYPES), False)
    more = decide([*backups, failed], policy, NOW).due
    assert set(more) - {"failed"} == set(decide(backups, policy, NOW).due)


@given(backups=BACKUPS, policy=POLICIES, ahead=st.timedeltas(timedelta(seconds=1), 365 * DAY))
def test_with_the_clock_set_back_nothing_is_due(backups: list[Known], policy: Policy, ahead: timedelta) -> None:
    latest = max((one.taken for one in backups), default=NOW)
    assert not decide(backups, policy, latest - ahead).due


@given(backups=BACKUPS, policy=POLICIES, zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]))
def test_the_zone_that_times_are_given_in_does_not_matter(backups: list[Known], policy: Policy, zone: str) -> None:
    moved = [replace(one, taken=one.taken.astimezone(ZoneInfo(zone))) for one in backups]
    assert decide(moved, policy, NOW.astimezone(ZoneInfo(zone))) == decide(backups, policy, NOW)


@given(backups=BACKUPS, policy=POLICIES, data=st.data())
def test_the_order_they_are_listed_in_does_not_matter(backups: list[Known], policy: Policy, data: st.DataObject) -> None:
    assert decide(data.draw(st.permutations(backups)), policy, NOW) == decide(backups, policy, NOW)
