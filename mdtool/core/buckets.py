"""Buckets of time that bars and windows have: even ones, or days, weeks and months of a time zone.

A bucket has a number; the next one begins where it ends. Which moments are midnight in a time zone
is looked up here, so that engines get the boundaries as numbers.
"""

from __future__ import annotations

import functools
import re
import zoneinfo
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mdtool.core.errors import UsageError
from mdtool.core.units import NS_PER_DAY, NS_PER_S, parse_duration, parse_option

Integers: TypeAlias = NDArray[np.int64]

UTC_ZONE: Final = "UTC"
MIDNIGHT: Final = "00:00"
NEVER: Final = "never"
"""The sessions of which there is one."""
_CALENDAR: Final = re.compile(r"(\d+)(d|w|mo)")
_EPOCH: Final = date(1970, 1, 1)
_FIRST_MONDAY: Final = date(1969, 12, 29)
_NOON: Final = time(12)
_LAST_DAY: Final = (2**63 - 1) // NS_PER_DAY - 1
_SESSION: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


class Buckets(Protocol):
    """Consecutive buckets of time."""

    @property
    def length_ns(self) -> int | None:
        """The length of all of them; None where they differ."""
        ...

    @property
    def cadence_ns(self) -> int | None:
        """The length of most of them: of all even ones, and of days; else None."""
        ...

    @property
    def grain_ns(self) -> int:
        """All of them begin at multiples of it."""
        ...

    def bounds(self, first_ns: int, last_ns: int) -> Integers:
        """Return where buckets begin, rising: those of two times, all between, and one behind.

        Perhaps more; none for even buckets, which need no list.
        """
        ...

    def numbers(self, ts_ns: Integers) -> Integers:
        """Return the number of the bucket that each time is in; times are 0 or above."""
        ...

    def starts(self, numbers: Integers) -> Integers:
        """Return where buckets begin; each ends where the next one begins."""
        ...


class EvenBuckets:
    """Buckets of one length, which begin at whole multiples of it since the epoch.

    Parameters
    ----------
    length_ns : int

    Raises
    ------
    UsageError
        When it is not above 0.
    """

    def __init__(self, length_ns: int) -> None:
        if length_ns < 1:
            raise UsageError("bars need an interval above 0")
        self.length_ns: int | None = length_ns
        self.cadence_ns: int | None = length_ns
        self.grain_ns = length_ns
        self._length_ns = length_ns

    def bounds(self, _first_ns: int, _last_ns: int) -> Integers:
        """Return none."""
        return np.empty(0, np.int64)

    def numbers(self, ts_ns: Integers) -> Integers:
        """Return the number of the bucket that each time is in."""
        return ts_ns // self._length_ns

    def starts(self, numbers: Integers) -> Integers:
        """Return where buckets begin."""
        return numbers * self._length_ns


class CalendarBuckets:
    """Days, weeks or months of a time zone, also across its changes of daylight saving.

    A day begins when its session does. A session that begins at noon or later is that of the next
    day: with 17:00, the day, the week and the month of a Monday begin on Sunday evening. Otherwise
    weeks begin on Monday. A time that a change of the clock skips is the moment of the change; of
    one that it repeats the first counts.

    Parameters
    ----------
    unit : str
        `d`, `w` or `mo`.
    zone : str
        A name of the IANA time zone database.
    session : str
        When sessions begin, `HH:MM` of the zone's clock.

    Raises
    ------
    UsageError
        When there is no such time zone or time.
    """

    length_ns: int | None = None

    def __init__(self, unit: str, zone: str = UTC_ZONE, session: str = MIDNIGHT) -> None:
        self._unit = unit
        self.cadence_ns: int | None = NS_PER_DAY if unit == "d" else None
        self._zone = _zone(zone)
        match = _SESSION.fullmatch(session)
        if match is None:
            raise UsageError(f"session {session!r}: give its beginning as HH:MM")
        self._time = time(int(match[1]), int(match[2]))
        # Zones differ from UTC by minutes, few by other than quarters of an hour.
        is_even = zone == UTC_ZONE and session == MIDNIGHT
        self.grain_ns = NS_PER_DAY if is_even else 60 * NS_PER_S
        self._is_evening = self._time >= _NOON
        self._first = 0
        """The number of the first bucket of `_starts`."""
        self._starts = np.empty(0, np.int64)

    def bounds(self, first_ns: int, last_ns: int) -> Integers:
        """Return where buckets begin that cover two times, all between, and one behind."""
        if not len(self._starts) or first_ns < self._starts[0] or last_ns >= self._starts[-1]:
            numbers = [self._number_of(_date(ns)) for ns in (first_ns, last_ns)]
            least, most = numbers[0] - 2, numbers[1] + 3
            if len(self._starts):
                least = min(least, self._first)
                most = max(most, self._first + len(self._starts))
            known = range(self._first, self._first + len(self._starts))
            self._starts = np.concatenate(
                [
                    self._made(range(least, known.start if known else most)),
                    self._starts,
                    self._made(range(known.stop, most) if known else ()),
                ]
            )
            self._first = least
        return self._starts

    def numbers(self, ts_ns: Integers) -> Integers:
        """Return the number of the bucket that each time is in."""
        if not len(ts_ns):
            return np.empty(0, np.int64)
        bounds = self.bounds(int(ts_ns.min()), int(ts_ns.max()))
        return np.searchsorted(bounds, ts_ns, side="right") - 1 + self._first

    def starts(self, numbers: Integers) -> Integers:
        """Return where buckets begin, of numbers that `numbers` returned, or up to one behind."""
        return self._starts[numbers - self._first]

    def _made(self, numbers: Iterable[int]) -> Integers:
        return np.fromiter((self._start_of(number) for number in numbers), np.int64)

    def _number_of(self, day: date) -> int:
        if self._unit == "mo":
            return (day.year - _EPOCH.year) * 12 + day.month - 1
        if self._unit == "w":
            return (day - _FIRST_MONDAY).days // 7
        return (day - _EPOCH).days

    def _start_of(self, number: int) -> int:
        if self._unit == "mo":
            day = date(_EPOCH.year + number // 12, number % 12 + 1, 1)
        elif self._unit == "w":
            day = _FIRST_MONDAY + timedelta(weeks=number)
        else:
            day = _EPOCH + timedelta(days=number)
        day -= timedelta(days=int(self._is_evening))
        moment = datetime.combine(day, self._time, self._zone)
        # A skipped time has no moment of its own: read back, it is later by what was skipped.
        if moment.astimezone(UTC).astimezone(self._zone).replace(tzinfo=None) != moment.replace(
            tzinfo=None
        ):
            moment = _change_near(moment)
        since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * NS_PER_S


def parse_buckets(interval: str, zone: str | None = None, session: str | None = None) -> Buckets:
    """Return the buckets that texts describe.

    Parameters
    ----------
    interval : str
        A duration such as `5m`; or `1d`, `1w` or `1mo`, of the calendar.
    zone, session : str, optional
        Of `CalendarBuckets`, for which alone they are; a session may name its zone behind it.

    Raises
    ------
    UsageError
        When a text is not valid, or `zone` or `session` is given with another interval.
    """
    match = _CALENDAR.fullmatch(interval)
    count, unit = (int(match[1]), match[2]) if match else (0, "")
    is_of_zone = zone is not None or session is not None
    if unit in ("w", "mo") or (unit == "d" and is_of_zone):
        if count != 1:
            raise UsageError(f"interval {interval}: of the calendar there are 1d, 1w and 1mo")
        if session is not None and zone is None and " " in session:
            session, zone = session.split(" ", 1)
        return CalendarBuckets(unit, zone or UTC_ZONE, session or MIDNIGHT)
    length_ns = parse_option("--interval", _parse_length, interval)
    if is_of_zone:
        given = (
            "session is" if zone is None else "tz is" if session is None else "tz and session are"
        )
        raise UsageError(f"interval {interval}: {given} for 1d, 1w and 1mo")
    return EvenBuckets(length_ns)


_parse_length: Final = functools.partial(parse_duration, others="; or 1w or 1mo")


def parse_sessions(text: str) -> Buckets:
    """Return the sessions that a setting names: `17:00 America/Chicago`, `00:00` (UTC), `never`.

    Raises
    ------
    UsageError
        When it names none.
    """
    if text == NEVER:
        return EvenBuckets(2**63 - 1)
    clock, _, zone = text.partition(" ")
    sessions = CalendarBuckets("d", zone.strip() or UTC_ZONE, clock)
    return EvenBuckets(NS_PER_DAY) if sessions.grain_ns == NS_PER_DAY else sessions


def parse_day(text: str) -> int:
    """Return the number of a day, as YYYY-MM-DD, since the epoch.

    Raises
    ------
    UsageError
        When it is not a date.
    """
    try:
        return (date.fromisoformat(text) - _EPOCH).days
    except ValueError as error:
        raise UsageError(f"{text!r} is not a date: give YYYY-MM-DD") from error


@functools.cache
def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(
            f"{name}: is not a time zone of this machine; give one such as America/New_York"
        ) from error


def _date(ts_ns: int) -> date:
    return _EPOCH + timedelta(days=min(ts_ns // NS_PER_DAY, _LAST_DAY))


def _change_near(skipped: datetime) -> datetime:
    """Return the moment of the change of the clock that skips a time."""
    before = skipped.replace(fold=1).astimezone(UTC)
    after = skipped.replace(fold=0).astimezone(UTC)
    earlier, later = sorted((before, after))
    offset = earlier.astimezone(skipped.tzinfo).utcoffset()
    while later - earlier > timedelta(seconds=1):
        middle = earlier + (later - earlier) / 2
        if middle.astimezone(skipped.tzinfo).utcoffset() == offset:
            earlier = middle
        else:
            later = middle
    return later.replace(microsecond=0)
