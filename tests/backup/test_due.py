"""When a scheduled run takes a backup, and of which types."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.agent.due import ATTEMPTS, SCHEDULED, drill_due, last_proof, next_runs, types_due
from backup.agent.retention import Known

AT = time(3)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ALL = frozenset(SCHEDULED)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def taken(when: str, *types: str, good: bool = True) -> Known:
    return Known(when, utc(when), frozenset(types or SCHEDULED), good)


def test_the_first_run_takes_everything_at_once() -> None:
    assert types_due(utc("2026-11-23 10:30"), AT, []) == ALL


@pytest.mark.parametrize(
    ("now", "last", "expected"),
    [
        ("2026-11-24 02:59", "2026-11-23 03:05", set()),  # a Tuesday
        ("2026-11-24 03:00", "2026-11-23 03:05", {"daily"}),
        ("2026-11-24 03:00", "2026-11-24 03:00", set()),
        ("2026-11-23 02:59", "2026-11-22 03:05", set()),  # a Monday
        ("2026-11-23 03:00", "2026-11-22 03:05", {"daily", "weekly"}),
        ("2026-12-01 02:59", "2026-11-30 03:05", set()),
        ("2026-12-01 03:00", "2026-11-30 03:05", {"daily", "monthly"}),
        ("2027-02-01 03:00", "2027-01-31 03:05", {"daily", "weekly", "monthly"}),  # a Monday and a first
        ("2027-01-01 02:00", "2026-12-31 03:05", set()),
        ("2027-01-01 04:00", "2026-12-31 03:05", {"daily", "monthly"}),
        ("2028-02-29 03:00", "2028-02-28 03:05", {"daily"}),  # a leap day, after a Monday
        ("2028-03-01 03:00", "2028-02-29 03:05", {"daily", "monthly"}),
        ("2026-11-27 17:00", "2026-11-20 09:00", {"daily", "weekly"}),  # away for a week
        ("2026-11-23 10:00", "2026-11-23 02:50", {"daily", "weekly"}),  # taken just before its time
    ],
)
def test_a_type_is_due_from_its_time_until_it_is_taken(now: str, last: str, expected: set[str]) -> None:
    assert types_due(utc(now), AT, [taken(last)]) == expected


@pytest.mark.parametrize("weekday", range(7))
def test_the_weekday_can_be_chosen(weekday: int) -> None:
    monday = utc("2026-11-23 03:00")
    runs = [monday + days * DAY for days in range(7)]
    before = taken("2026-11-22 12:00")
    due = [run for run in runs if "weekly" in types_due(run, AT, [before], weekday)]
    assert due == runs[weekday:]
    assert next_runs(utc("2026-11-22 12:00"), AT, [before], weekday)["weekly"] == runs[weekday]


def test_a_failed_backup_is_tried_again_the_next_hour() -> None:
    yesterday, failed = taken("2026-11-23 03:00"), taken("2026-11-24 03:00", good=False)
    assert types_due(utc("2026-11-24 04:00"), AT, [yesterday, failed]) == {"daily"}


def test_partial_backups_are_not_piled_up_by_trying_every_hour() -> None:
    last, now = taken("2026-11-22 03:00"), utc("2026-11-23 02:00")  # a Monday follows
    backups, tried = [last], []
    for _ in range(48):
        now += HOUR
        if types_due(now, AT, backups):
            tried.append(now)
            backups.append(Known(f"{now}", now, types_due(now, AT, backups), False))
    assert [one.hour for one in tried] == [*range(3, 3 + ATTEMPTS)] * 2
    assert next_runs(utc("2026-11-23 12:00"), AT, backups) == {
        "daily": utc("2026-11-24 03:00"),
        "weekly": utc("2026-11-24 03:00"),
        "monthly": utc("2026-12-01 03:00"),
    }


def test_partial_backups_of_other_types_do_not_stop_the_schedule() -> None:
    others = [taken(f"2026-11-24 03:{n}0", "deploy", good=False) for n in range(ATTEMPTS)]
    assert types_due(utc("2026-11-24 04:00"), AT, others) == ALL


def test_only_partial_backups_since_its_time_are_attempts() -> None:
    early = [taken(f"2026-11-24 02:{n}0", good=False) for n in range(ATTEMPTS)]
    ahead = [taken(f"2027-11-24 03:{n}0", good=False) for n in range(ATTEMPTS)]
    daily = [taken(f"2026-11-24 03:{n}0", "daily") for n in range(ATTEMPTS)]
    assert types_due(utc("2026-11-24 04:00"), AT, [*early, *ahead]) == ALL
    assert types_due(utc("2026-11-24 04:00"), AT, daily) == {"weekly", "monthly"}


def test_only_backups_of_the_type_count() -> None:
    others = taken("2026-11-24 03:30", "manual", "deploy", "safety")
    assert types_due(utc("2026-11-24 04:00"), AT, [others]) == ALL
    assert types_due(utc("2026-11-24 04:00"), AT, [others, taken("2026-11-24 03:10", "daily")]) == {"weekly", "monthly"}


def test_a_backup_from_the_future_does_not_stop_backups() -> None:
    assert types_due(utc("2026-11-24 04:00"), AT, [taken("2027-11-24 04:00")]) == ALL


def test_the_next_runs_are_now_or_the_next_time() -> None:
    now = utc("2026-11-24 04:00")
    assert next_runs(now, AT, []) == dict.fromkeys(SCHEDULED, now)
    assert next_runs(now, AT, [taken("2026-11-24 03:10")]) == {
        "daily": utc("2026-11-25 03:00"),
        "weekly": utc("2026-11-30 03:00"),
        "monthly": utc("2026-12-01 03:00"),
    }


@pytest.mark.parametrize(
    ("last", "following"),
    [("2027-01-31", "2027-02-01"), ("2028-01-30", "2028-02-01"), ("2028-02-29", "2028-03-01"), ("2026-12-31", "2027-01-01")],
)
def test_the_next_month_begins_after_28_to_31_days(last: str, following: str) -> None:
    assert next_runs(utc(f"{last} 05:00"), AT, [taken(f"{last} 04:00")])["monthly"] == utc(f"{following} 03:00")


def test_a_time_in_another_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="not in UTC"):
        types_due(utc("2026-11-24 04:00"), time(3, tzinfo=timezone(HOUR)), [])


def test_hourly_calls_over_a_leap_year_take_each_day_week_and_month_once() -> None:
    now, backups, count = utc("2028-01-01 00:00"), [taken("2027-12-31 12:00")], Counter[str]()
    while now.year == 2028:
        if types := types_due(now, AT, backups):
            backups = [*backups[-31:], Known(f"{now}", now, types, True)]
            count.update(types)
            assert now.hour == 3
        now += HOUR
    assert count == {"daily": 366, "weekly": 52, "monthly": 12}


def test_hourly_calls_take_one_a_day_on_the_days_when_clocks_change() -> None:
    for zone, day in (("Europe/Berlin", "2026-03-29"), ("Europe/Berlin", "2026-10-25"), ("America/New_York", "2026-11-01")):
        start = utc(f"{day} 00:00")
        backups: list[Known] = [Known("before", start - 20 * HOUR, ALL, True)]
        for hour in range(48):
            local = (start + hour * HOUR).astimezone(ZoneInfo(zone))
            if types := types_due(local, AT, backups):
                backups.append(Known(f"{hour}", local, types, True))
        assert [one.id for one in backups if "daily" in one.types] == ["before", "3", "27"]


MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2034, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
TIMES = st.times()
BACKUPS = st.lists(st.builds(Known, st.text(), MOMENTS, st.frozensets(st.sampled_from(SCHEDULED)), st.booleans()), max_size=6)


@given(now=MOMENTS, at=TIMES, weekday=st.integers(0, 6), backups=BACKUPS)
def test_what_a_good_run_serves_is_not_due_again_before_the_next_time(
    now: datetime, at: time, weekday: int, backups: list[Known]
) -> None:
    backups = [one for one in backups if one.good]
    done = [*backups, Known("new", now, types_due(now, at, backups, weekday), True)]
    assert not types_due(now, at, done, weekday)
    for kind, following in next_runs(now, at, done, weekday).items():
        assert now < following <= now + {"daily": 1, "weekly": 7, "monthly": 31}[kind] * DAY
        assert following.time() == at
        assert kind != "weekly" or following.weekday() == weekday
        assert kind != "monthly" or following.day == 1
        past = [one for one in done if one.taken <= now]  # those of the future are not from this clock
        assert kind not in types_due(following - timedelta(microseconds=1), at, past, weekday)
        assert kind in types_due(following, at, past, weekday)


@given(now=MOMENTS, backups=BACKUPS, zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]))
def test_the_zone_that_now_is_given_in_does_not_matter(now: datetime, backups: list[Known], zone: str) -> None:
    local = now.astimezone(ZoneInfo(zone))
    assert types_due(local, AT, backups) == types_due(now, AT, backups)
    assert next_runs(local, AT, backups) == next_runs(now, AT, backups)


@pytest.mark.parametrize(
    ("last", "due"),
    [
        (None, True),
        ("2026-11-16 04:00", True),
        ("2026-11-16 04:01", False),
        ("2026-11-23 04:00", False),
        ("2027-11-23 04:00", True),
    ],
)
def test_a_restore_is_due_when_the_last_proof_is_too_old_or_from_the_future(last: str | None, due: bool) -> None:
    assert drill_due(utc("2026-11-23 04:00"), last and utc(last), 7 * DAY) is due  # type: ignore[arg-type]


def test_the_last_proof_is_the_newest_that_is_not_from_the_future() -> None:
    now = utc("2026-11-23 04:00")
    proofs = [None, utc("2027-01-01 00:00"), utc("2026-11-01 00:00"), utc("2026-11-20 00:00")]
    backups = [Known(f"{n}", utc("2026-10-01 03:00"), ALL, True, proven=proof) for n, proof in enumerate(proofs)]
    assert last_proof(now, backups) == utc("2026-11-20 00:00")
    assert last_proof(now, backups[:2]) is None
