"""Text forms read back as what was written."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.units import (
    UNDEF_PRICE,
    format_duration,
    format_price,
    format_time,
    parse_duration,
    parse_price,
    parse_time,
)


@given(st.integers(-UNDEF_PRICE + 1, UNDEF_PRICE - 1))
def test_a_price_reads_back(price):
    assert parse_price(format_price(price)) == price
    assert Decimal(format_price(price)) == Decimal(price).scaleb(-9)


@given(st.integers(0, 2**63 - 1))
def test_a_time_reads_back(ts_ns):
    assert parse_time(format_time(ts_ns)) == ts_ns
    assert parse_time(str(ts_ns)) == ts_ns


@given(st.lists(st.integers(0, 2**63 - 1), min_size=2))
def test_times_as_text_sort_as_times(times):
    assert sorted(map(format_time, times)) == list(map(format_time, sorted(times)))


@given(st.integers(1, 2**63 - 1))
def test_a_duration_reads_back(duration_ns):
    assert parse_duration(format_duration(duration_ns)) == duration_ns
