"""Fixed-point prices, nanosecond times and durations, and their text forms.

Prices are int64 at 1e-9, times are nanoseconds since the epoch, UTC. DBN's sentinels stand for
"no value" and are never scaled or shown as numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Final, TypeVar

from mdtool.core.errors import UsageError

T = TypeVar("T")

PRICE_SCALE: Final = 1_000_000_000
NS_PER_S: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000
NS_PER_DAY: Final = 86_400 * NS_PER_S

MIN_TIMESTAMP_NS: Final = 10**17
"""Times before March 1973 in nanoseconds: what is lower can only be in a coarser unit."""

UNDEF_PRICE: Final = 2**63 - 1
UNDEF_TIMESTAMP: Final = 2**64 - 1
UNDEF_ORDER_SIZE: Final = 2**32 - 1
ANY_PRICE: Final = "any"
PRICES: Final = ("positive", ANY_PRICE)
"""Which prices a Tick may have, by settings."""
_WHOLE_DIGITS: Final = 18
_PRICE_DIGITS: Final = 10
"""Digits before the point of the largest price."""

_TO_UNITS: Final = tuple(int(10**n) for n in range(9, -1, -1))
"""The factor to units of 1e-9 of a number without its point, by its decimals."""

_DURATION_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "ms": NS_PER_MS,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "h": 3_600 * NS_PER_S,
    "d": NS_PER_DAY,
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h|d)")
_ISO_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2})?)(?:\.(\d{1,9}))?)?(Z|[+-]\d{2}:?\d{2})?"
)


def format_price(price: int) -> str:
    """Return a fixed-point price as a decimal without trailing zeros, `""` for UNDEF_PRICE."""
    if price == UNDEF_PRICE:
        return ""
    sign = "-" if price < 0 else ""
    whole, fraction = divmod(abs(price), PRICE_SCALE)
    return f"{sign}{whole}.{fraction:09d}".rstrip("0") if fraction else f"{sign}{whole}"


def parse_price(text: str) -> int:
    """Return the fixed-point price of a decimal number.

    Raises
    ------
    UsageError
        When `text` is not a finite decimal, has more than nine decimals, or exceeds int64.
    """
    try:
        number = Decimal(text)
    except InvalidOperation as error:
        raise UsageError(f"{text!r} is not a price") from error
    if not number.is_finite():
        raise UsageError(f"{text!r} is not a price")
    # A number that is too large, perhaps by millions of digits, is not written out.
    price = int(number.scaleb(9)) if number.adjusted() < _PRICE_DIGITS else UNDEF_PRICE
    if Decimal(price).scaleb(-9) != number or not -UNDEF_PRICE < price < UNDEF_PRICE:
        raise UsageError(f"{text!r} does not fit a price in units of 1e-9")
    return price


def fixed_point(text: str) -> int | None:
    """Return a decimal number of up to nine decimals in units of 1e-9, None for other texts.

    It is for millions of texts: fast where there is no sign or exponent. Numbers of more than 18
    digits before the point are none either.
    """
    whole, _, fraction = text.partition(".")
    digits = whole + fraction
    if digits.isdecimal() and len(fraction) <= 9 and len(whole) <= _WHOLE_DIGITS:
        return int(digits) * _TO_UNITS[len(fraction)]
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    if not number.is_finite() or number.adjusted() >= _WHOLE_DIGITS or "_" in text:
        return None
    units = int(number.scaleb(9))
    return units if Decimal(units).scaleb(-9) == number else None


def format_time(ts_ns: int) -> str:
    """Return a time as ISO-8601 with nanoseconds and `Z`, `""` for UNDEF_TIMESTAMP."""
    if ts_ns == UNDEF_TIMESTAMP:
        return ""
    seconds, nanos = divmod(ts_ns, NS_PER_S)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"


def parse_time(text: str) -> int:
    """Return nanoseconds since the epoch for an ISO-8601 time or a whole number of nanoseconds.

    A time without an offset is UTC, a date alone is its midnight.

    Raises
    ------
    UsageError
        When `text` is neither.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    match = _ISO_TIME.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a time: give ISO-8601 or nanoseconds since the epoch")
    date, clock, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{clock or '00:00'}{offset or 'Z'}")
    except ValueError as error:
        raise UsageError(f"{text!r} is not a time: {error}") from error
    since_epoch = moment - datetime.fromtimestamp(0, UTC)
    seconds = since_epoch.days * 86_400 + since_epoch.seconds
    return seconds * NS_PER_S + int((fraction or "0").ljust(9, "0"))


def parse_moment(text: str) -> int:
    """Return `parse_time`, for times of markets in options.

    Raises
    ------
    UsageError
        When `text` is not a time, or a number of seconds, milli- or microseconds.
    """
    time_ns = parse_time(text)
    if text.isdigit() and 0 < time_ns < MIN_TIMESTAMP_NS:
        raise UsageError(f"{text} is not in nanoseconds since the epoch: give those, or ISO-8601")
    return time_ns


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: `1 file`, `2,000 files`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def format_bytes(n_bytes: int) -> str:
    """Return a number of bytes as a person reads it: `512 B`, `1.5 MiB`, `20.0 GiB`."""
    size, units = float(n_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:,.0f} B" if units[0] == "B" else f"{size:,.1f} {units[0]}"


def parse_option(option: str, parse: Callable[[str], T], text: str) -> T:
    """Return the value of an option, or raise a UsageError that names it."""
    try:
        return parse(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from error


def parse_duration(text: str, others: str = "") -> int:
    """Return the nanoseconds of a duration such as `250ms`, `1.5s`, `5m` or `1h30m`.

    Parameters
    ----------
    text : str
    others : str
        What may be given instead of a duration, for the message.

    Raises
    ------
    UsageError
        When `text` is not a duration, not longer than 0, or too long for int64.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(
            f"{text!r} is not a duration: give a number and ns, us, ms, s, m, h or d{others}"
        )
    total = sum(Decimal(number) * _DURATION_NS[unit] for number, unit in parts)
    if total < 1:
        raise UsageError(f"{text!r} is not a duration longer than 0")
    if total >= 2**63:
        raise UsageError(f"{text!r} is longer than 292 years")
    return int(total)


def format_duration(duration_ns: int) -> str:
    """Return the shortest text that `parse_duration` reads back as `duration_ns`."""
    for unit in ("d", "h", "m", "s", "ms", "us"):
        if duration_ns % _DURATION_NS[unit] == 0:
            return f"{duration_ns // _DURATION_NS[unit]}{unit}"
    return f"{duration_ns}ns"
