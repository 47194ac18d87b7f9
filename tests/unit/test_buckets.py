"""Days, weeks and months of time zones, also where the clock changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.buckets import CalendarBuckets, EvenBuckets, parse_buckets
from mdtool.core.errors import UsageError

ZONES = ["UTC", "America/New_York", "America/Chicago", "Asia/Kolkata", "Australia/Lord_Howe"]
MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001 - UTC below


def ns(moment: datetime) -> int:
    since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1_000


def bucket(buckets, moment):
    """Return the bucket of a moment, as two times in UTC."""
    number = buckets.numbers(np.array([ns(moment)]))
    both = buckets.starts(np.concatenate([number, number + 1])).tolist()
    return [datetime.fromtimestamp(bound // 10**9, UTC) for bound in both]


def plain_start(moment, unit, zone, hour):
    """Return the start of a moment's bucket: walk its local dates backwards."""
    day = moment.astimezone(zone).date() + timedelta(days=2)
    while True:
        is_first = {"d": True, "w": day.weekday() == 0, "mo": day.day == 1}[unit]
        evening = timedelta(days=int(hour >= 12))
        local = datetime.combine(day - evening, datetime.min.time().replace(hour=hour), zone)
        if is_first and local.astimezone(UTC) <= moment:
            return local.astimezone(UTC)
        day -= timedelta(days=1)


@given(
    MOMENTS,
    st.sampled_from(["d", "w", "mo"]),
    st.sampled_from(ZONES),
    st.sampled_from([0, 9, 17]),
)
def test_a_bucket_begins_where_a_walk_over_local_dates_ends(moment, unit, zone, hour):
    moment = moment.replace(tzinfo=UTC)
    buckets = CalendarBuckets(unit, zone, f"{hour:02d}:00")
    start, end = bucket(buckets, moment)
    assert start == plain_start(moment, unit, ZoneInfo(zone), hour)
    assert start <= moment < end
    assert bucket(buckets, end)[0] == end


@pytest.mark.parametrize(
    ("zone", "session", "day", "hours"),
    [
        ("America/New_York", "00:00", (2024, 3, 10), 23),
        ("America/New_York", "00:00", (2024, 11, 3), 25),
        ("America/Chicago", "17:00", (2024, 3, 9), 24),
        ("Australia/Lord_Howe", "00:00", (2024, 4, 6), 24.5),
        ("Asia/Kolkata", "00:00", (2024, 4, 6), 24),
    ],
)
def test_a_day_is_as_long_as_the_clock_makes_it(zone, session, day, hours):
    buckets = CalendarBuckets("d", zone, session)
    start, end = bucket(buckets, datetime(*day, 20, tzinfo=UTC))
    assert end - start == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("zone", "session", "day", "change"),
    [
        ("America/New_York", "02:30", (2024, 3, 10), "2024-03-10T07:00"),
        ("Asia/Beirut", "00:00", (2024, 3, 31), "2024-03-30T22:00"),
    ],
)
def test_a_session_whose_time_is_skipped_begins_with_the_change(zone, session, day, change):
    start, _ = bucket(CalendarBuckets("d", zone, session), datetime(*day, 12, tzinfo=UTC))
    assert start == datetime.fromisoformat(f"{change}Z")


def test_of_a_time_that_is_repeated_the_first_counts():
    buckets = CalendarBuckets("d", "America/New_York", "01:30")
    start, end = bucket(buckets, datetime(2024, 11, 3, 12, tzinfo=UTC))
    assert (start.hour, end.hour) == (5, 6)


def test_weeks_begin_on_monday_or_on_the_evening_before():
    friday = datetime(2024, 5, 3, 12, tzinfo=UTC)
    for session, begins in [("00:00", "2024-04-29T05:00Z"), ("17:00", "2024-04-28T22:00Z")]:
        start, _ = bucket(CalendarBuckets("w", "America/Chicago", session), friday)
        assert start == datetime.fromisoformat(begins)


def test_known_buckets_grow_to_both_sides():
    buckets = CalendarBuckets("mo")
    for year in (2024, 2030, 2020, 2024):
        start, end = bucket(buckets, datetime(year, 2, 10, tzinfo=UTC))
        assert (start.isoformat()[:7], end.isoformat()[:7]) == (f"{year}-02", f"{year}-03")
    assert np.all(np.diff(buckets.bounds(0, 0)) > 0)


def test_the_end_of_time_has_a_bucket():
    buckets = CalendarBuckets("d", "Asia/Kolkata")
    number = buckets.numbers(np.array([2**63 - 10**9 * 86_400 * 3]))
    assert buckets.starts(number)[0] < 2**63 - 10**9 * 86_400 * 3


def test_texts_name_even_buckets_or_those_of_the_calendar():
    assert isinstance(parse_buckets("1d"), EvenBuckets)
    assert parse_buckets("7m").length_ns == 420 * 10**9
    assert parse_buckets("1d", "UTC").length_ns is None
    assert parse_buckets("1w").cadence_ns is None
    for interval, zone, session, complaint in [
        ("2w", None, None, "1d, 1w and 1mo"),
        ("5m", "UTC", None, "tz is for 1d, 1w and 1mo"),
        ("1d", "Mars/Olympus", None, "Mars/Olympus: is not a time zone"),
        ("1d", "../etc/passwd", None, "is not a time zone"),
        ("1d", None, "25:00", "give its beginning as HH:MM"),
        ("0m", None, None, "longer than 0"),
    ]:
        with pytest.raises(UsageError, match=complaint):
            parse_buckets(interval, zone, session)
