"""Prices, times and durations as text."""

from __future__ import annotations

import pytest

from mdtool.core.errors import UsageError
from mdtool.core.units import (
    UNDEF_PRICE,
    UNDEF_TIMESTAMP,
    counted,
    format_duration,
    format_price,
    format_time,
    parse_duration,
    parse_moment,
    parse_option,
    parse_price,
    parse_time,
)


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("0", 0),
        ("150.25", 150_250_000_000),
        ("-0.5", -500_000_000),
        ("0.000000001", 1),
        ("9223372036.854775806", 2**63 - 2),
        ("-9223372036.854775806", -(2**63) + 2),
        ("1e3", 1_000_000_000_000),
    ],
)
def test_prices_are_exact(text, price):
    assert parse_price(text) == price


@pytest.mark.parametrize(
    "text",
    [
        "", "abc", "nan", "inf", "-inf", "1e300",
        "0.0000000001", "1.0000000000000000000000000000001",
        "9223372036.854775807", "-9223372036.854775807",
        "1e10", "1e1000000", "1e999999999999", "1e-1000000",
    ],
)  # fmt: skip
def test_what_is_no_price_is_refused(text):
    with pytest.raises(UsageError):
        parse_price(text)


@pytest.mark.parametrize(
    ("price", "text"),
    [
        (0, "0"),
        (100_000_000_000, "100"),
        (150_250_000_000, "150.25"),
        (-1, "-0.000000001"),
        (-500_000_000, "-0.5"),
        (-UNDEF_PRICE, "-9223372036.854775807"),
        (UNDEF_PRICE, ""),
    ],
)
def test_prices_print_without_trailing_zeros(price, text):
    assert format_price(price) == text


@pytest.mark.parametrize(
    ("text", "ts_ns"),
    [
        ("1609160400000429831", 1_609_160_400_000_429_831),
        ("1970-01-01", 0),
        ("2020-12-28T13:00:00.000429831Z", 1_609_160_400_000_429_831),
        ("2020-12-28 13:00", 1_609_160_400_000_000_000),
        ("2020-12-28T13:00:00.5", 1_609_160_400_500_000_000),
        ("2020-12-28T14:00:00+01:00", 1_609_160_400_000_000_000),
        ("2020-12-28T07:30:00-0530", 1_609_160_400_000_000_000),
        ("1969-12-31T23:59:59.999999999Z", -1),
    ],
)
def test_times_are_iso_or_nanoseconds(text, ts_ns):
    assert parse_time(text) == ts_ns


@pytest.mark.parametrize("text", ["1758744000", "1758744000123", "1758744000123456"])
def test_a_moment_in_a_coarser_unit_than_nanoseconds_is_refused(text):
    with pytest.raises(UsageError, match="not in nanoseconds"):
        parse_moment(text)
    assert parse_moment(text.ljust(19, "0")) == int(text.ljust(19, "0"))


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "-5", "12:00", "2020-13-01", "2020-02-30", "2020-12-28T25:00",
        "2020-12-28T13:00:00.1234567891",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError):
        parse_time(text)


@pytest.mark.parametrize(
    ("ts_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (1_609_160_400_000_429_831, "2020-12-28T13:00:00.000429831Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (UNDEF_TIMESTAMP, ""),
    ],
)
def test_times_print_with_nanoseconds(ts_ns, text):
    assert format_time(ts_ns) == text


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [
        ("1ns", 1),
        ("250us", 250_000),
        ("1.5s", 1_500_000_000),
        ("1h30m", 5_400_000_000_000),
        ("1m", 60_000_000_000),
        ("1ms", 1_000_000),
        ("1d", 86_400_000_000_000),
    ],
)
def test_durations(text, duration_ns):
    assert parse_duration(text) == duration_ns


@pytest.mark.parametrize(
    "text",
    ["", "5", "s", "-1s", "0s", "1 s", "1x", "1s,", "0.1ns", "1S", "106752d", "9" * 99 + "d"],
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UsageError):
        parse_duration(text)


@pytest.mark.parametrize("text", ["1ns", "1500ms", "1us", "90m", "1h", "7d", "1s", "5m"])
def test_durations_print_in_their_largest_whole_unit(text):
    assert format_duration(parse_duration(text)) == text


def test_one_thing_is_not_told_in_the_plural():
    assert [counted(n, "file") for n in (0, 1, 2, 2_000)] == [
        "0 files",
        "1 file",
        "2 files",
        "2,000 files",
    ]


def test_an_option_that_is_not_valid_is_named():
    assert parse_option("--gap", parse_duration, "5m") == 300 * 10**9
    with pytest.raises(UsageError, match=r"^--start: 'yesterday' is not a time: give ISO-8601"):
        parse_option("--start", parse_moment, "yesterday")
