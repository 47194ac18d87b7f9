"""Time bars, fillers and sized bars equal the plain reference, however the stream is cut."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.trades import Trades
from mdtool.engine.bar_stream import GapFill
from mdtool.engine.bars import Size, SizedBars, TimeBars
from mdtool.engine.timed_trades import TimedTrades
from tests.reference import bars as reference

INTERVAL = 10

instruments = st.sampled_from([1, 2, 5, 4_000])
streams = st.lists(
    st.builds(
        reference.Trade,
        instrument=instruments,
        price=st.integers(-9, 9),
        size=st.integers(0, 5),
        ts=st.integers(0, 300),
    ),
    max_size=80,
)
sorted_streams = streams.map(lambda trades: sorted(trades, key=lambda trade: trade.ts))
cuts = st.lists(st.integers(0, 80), max_size=4)


def trades_of(trades: list[reference.Trade]) -> TimedTrades:
    instrument, price, size, ts = np.array(trades, np.int64).reshape(-1, 4).T.copy()
    seen = np.maximum.accumulate(ts)
    columns = Trades(instrument.astype(np.uint32), price, size, ts, ts)
    return TimedTrades(columns, ts, seen, int(seen[-1]) if len(seen) else -1)


def parts(trades: list[reference.Trade], cuts: list[int]) -> list[TimedTrades]:
    edges = [0, *sorted(cut for cut in cuts if cut < len(trades)), len(trades)]
    return [trades_of(trades[begin:end]) for begin, end in pairwise(edges)]


def plain(bars) -> list[reference.Bar]:
    return [reference.Bar(*row) for row in bars.tolist()]


def all_bars(engine: TimeBars | SizedBars, batches: list[TimedTrades]) -> list[reference.Bar]:
    closed = [bar for batch in batches for bar in plain(engine.update(batch))]
    return closed + plain(engine.close_all())


@given(streams, st.integers(0, 100), cuts)
def test_time_bars_equal_the_reference(trades, lateness, cuts):
    engine = TimeBars(INTERVAL, lateness)
    expected, late = reference.time_bars(trades, INTERVAL, lateness)
    assert all_bars(engine, parts(trades, cuts)) == expected
    assert engine.late == late


@given(streams, st.integers(0, 100), cuts)
def test_a_bar_comes_out_as_soon_as_the_stream_has_passed_it(trades, lateness, cuts):
    engine = TimeBars(INTERVAL, lateness)
    latest = -1
    out: list[reference.Bar] = []
    for batch in parts(trades, cuts):
        out += plain(engine.update(batch))
        latest = max(latest, batch.latest_ns)
        ended = [bar for bar in out if bar.start_ns + INTERVAL + lateness <= latest]
        assert ended == out
    left = plain(engine.close_all())
    assert all(bar.start_ns + INTERVAL + lateness > latest for bar in left)


@given(sorted_streams, cuts)
def test_bars_of_short_intervals_add_up_to_those_of_long_ones(trades, cuts):
    short = all_bars(TimeBars(INTERVAL), parts(trades, cuts))
    long = all_bars(TimeBars(6 * INTERVAL), parts(trades, []))
    for bar in long:
        inside = [
            each
            for each in short
            if each.instrument == bar.instrument
            and bar.start_ns <= each.start_ns < bar.start_ns + 6 * INTERVAL
        ]
        assert bar.open == inside[0].open
        assert bar.high == max(each.high for each in inside)
        assert bar.low == min(each.low for each in inside)
        assert bar.close == inside[-1].close
        assert bar.volume == sum(each.volume for each in inside)
        assert bar.count == sum(each.count for each in inside)
    assert sum(bar.count for bar in short) == sum(bar.count for bar in long) == len(trades)


@given(sorted_streams, st.randoms(use_true_random=False), st.integers(1, 60), cuts)
def test_disorder_within_the_lateness_changes_nothing(trades, random, lateness, cuts):
    # No two trades at one moment, for there the first to arrive sets the open.
    in_order = list({trade.ts: trade for trade in trades}.values())
    delayed = sorted(in_order, key=lambda trade: trade.ts + random.uniform(0, lateness))
    engine = TimeBars(INTERVAL, lateness)
    assert all_bars(engine, parts(delayed, cuts)) == all_bars(
        TimeBars(INTERVAL), parts(in_order, [])
    )
    assert engine.late == 0


@given(sorted_streams, st.sampled_from(["none", "prev", "zero"]), cuts)
def test_fillers_stand_between_an_instruments_bars_and_nowhere_else(trades, mode, cuts):
    engine, fill = TimeBars(INTERVAL), GapFill(mode, INTERVAL)
    closed = [engine.update(batch) for batch in parts(trades, cuts)] + [engine.close_all()]
    got = [bar for bars in closed for block in fill.expand(bars) for bar in plain(block)]
    unfilled = [bar for bars in closed for bar in plain(bars)]
    assert got == reference.filled(unfilled, INTERVAL, mode)


@given(streams, st.sampled_from(["volume", "ticks", "notional"]), st.integers(1, 40), cuts)
def test_sized_bars_equal_the_reference(trades, measure, amount, cuts):
    # Prices here are billionths: only a billionth of a unit is reached by them.
    size = Size(measure, Decimal(amount).scaleb(-9 if measure == "notional" else 0))
    got = all_bars(SizedBars(size), parts(trades, cuts))
    assert got == reference.bars_by(trades, measure, amount)
