"""Closed bars that a reader of Kafka holds, against a plain dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mdtool.adapters.kafka.market_state import BarRow, Series

STARTS = st.integers(0, 40)
PUTS = st.lists(st.tuples(STARTS, st.integers(1, 1_000)), max_size=120)


@given(
    PUTS | PUTS.map(sorted),
    st.integers(1, 30),
    st.lists(st.tuples(STARTS, STARTS, st.integers(0, 50)), max_size=5),
)
def test_the_newest_bars_are_held_in_order_whatever_order_they_come_in(puts, keep, asked):
    series, held = Series(), {}
    for start, close in puts:
        row = BarRow(start, close - 1, close, -close, close, 10 * close, 1, start, start + 1)
        series.put(row, keep)
        held[start] = row
        if len(held) > keep:
            del held[min(held)]
        assert series.get(start) == held.get(start)
    oldest_first = [held[start] for start in sorted(held)]
    for begin, end, limit in [(0, 50, 1_000), *asked]:
        before = [row for row in reversed(oldest_first) if row.start < end]
        assert series.before(end, limit) == before[:limit]
        assert (
            series.since(begin, end, limit)
            == [row for row in oldest_first if begin <= row.start < end][:limit]
        )
