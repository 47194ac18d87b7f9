"""Live bars equal the plain reference on any stream, however it is cut into batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdtool.engine.live_bars import LiveBars
from tests.reference import bars as reference

INTERVALS = (10, 20, 100)

trades = st.lists(
    st.builds(
        reference.Trade,
        instrument=st.integers(0, 3),
        price=st.integers(-4, 4),
        size=st.one_of(st.integers(1, 5), st.just(2**62)),
        ts=st.integers(0, 600),
    ),
    max_size=80,
)


def fed(bars: LiveBars, ticks: list[reference.Trade], cuts: list[int]) -> LiveBars:
    edges = [0, *sorted(cut for cut in cuts if cut < len(ticks)), len(ticks)]
    for begin, end in pairwise(edges):
        columns = np.array(ticks[begin:end], np.int64).reshape(-1, 4).T
        bars.update(columns[0].astype("u4"), *columns[1:])
    return bars


def history(bars: LiveBars, symbol: int, interval: int, limit: int = 10**6, before: int = 0):
    return [reference.Bar(*row) for row in bars.history(symbol, interval, limit, before).tolist()]


@given(trades, st.integers(0, 300), st.lists(st.integers(0, 80), max_size=4))
def test_every_bar_equals_the_reference(ticks, lateness, cuts):
    bars = fed(LiveBars(INTERVALS, lateness_ns=lateness), ticks, cuts)
    expected, late = reference.live_bars(ticks, INTERVALS, lateness)
    assert bars.late == late
    for symbol in range(5):
        for interval in INTERVALS:
            assert history(bars, symbol, interval) == expected.get((symbol, interval), [])


@given(trades, st.integers(1, 40), st.integers(0, 50), st.integers(0, 700))
def test_limit_and_before_cut_the_history(ticks, keep, limit, before):
    bars = fed(LiveBars(INTERVALS, keep=keep), ticks, [])
    expected, _ = reference.live_bars(ticks, INTERVALS)
    for (symbol, interval), newest_first in expected.items():
        kept = newest_first[: keep + 1]
        wanted = [bar for bar in kept if not before or bar.start_ns < before][:limit]
        assert history(bars, symbol, interval, limit, before) == wanted


@given(trades, st.integers(0, 300))
def test_bars_of_short_intervals_add_up_to_those_of_long_ones(ticks, lateness):
    bars = fed(LiveBars(INTERVALS, lateness_ns=lateness), ticks, [])
    for symbol in range(4):
        for long in history(bars, symbol, 100):
            short = [
                bar
                for bar in history(bars, symbol, 10)
                if bar.start_ns // 100 * 100 == long.start_ns
            ]
            assert long.open == short[-1].open
            assert long.high == max(bar.high for bar in short)
            assert long.low == min(bar.low for bar in short)
            assert long.close == short[0].close
            assert long.volume == min(sum(bar.volume for bar in short), 2**63 - 1)
            assert long.count == sum(bar.count for bar in short)


@given(
    trades,
    st.integers(0, 300),
    st.lists(st.integers(0, 80), max_size=12),
    st.lists(st.booleans(), min_size=1, max_size=13),
)
def test_a_reader_that_skips_updates_gets_exactly_the_bars_that_changed(
    ticks, lateness, cuts, looks
):
    bars = LiveBars(INTERVALS, lateness_ns=lateness)
    symbols = np.arange(5, dtype="u4")
    copies: dict[int, dict[tuple[int, int], reference.Bar]] = {}
    seen = 0
    edges = [0, *sorted(cut for cut in cuts if cut < len(ticks)), len(ticks)]
    for number, (begin, end) in enumerate(pairwise(edges)):
        fed(bars, ticks[begin:end], [])
        if not looks[number % len(looks)]:
            continue
        for interval in INTERVALS:
            told = [
                reference.Bar(*row) for row in bars.changed_since(seen, symbols, interval).tolist()
            ]
            state = {
                (bar.instrument, bar.start_ns): bar
                for symbol in range(4)
                for bar in reversed(history(bars, symbol, interval))
            }
            if interval in copies:
                known = copies[interval]
                assert told == [bar for key, bar in state.items() if known.get(key) != bar]
            else:
                newest = {bar.instrument: bar for bar in state.values()}
                assert told == list(newest.values())
            copies[interval] = state
        seen = bars.step
