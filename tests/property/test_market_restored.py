"""A market that is interrupted and taken up again is none other than one that never was."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtool.core.units import NS_PER_S
from mdtool.engine.live_bars import LiveBars
from mdtool.engine.market import Market
from tests.property.test_market import INTERVALS_NS, SYMBOLS, deliveries
from tests.reference.market import Frame, Tick, batch
from tests.reference.market_copies import MarketCopy

LATENESS_NS = 5 * NS_PER_S
STREAMS = ["stream-0", "stream-1", "stream-2"]


def new_market(keep: int) -> Market:
    bars = LiveBars(INTERVALS_NS, keep=keep, lateness_ns=LATENESS_NS)
    return Market(bars, max_symbols=8, max_streams=8)


def of_market(market: Market, frames: list[Frame]) -> list[Frame]:
    """Return the frames with the market's indices of their symbols."""
    return [
        dataclasses.replace(frame, symbol=market.intern(SYMBOLS[frame.symbol]))
        if isinstance(frame, Tick)
        else frame
        for frame in frames
    ]


def session(market: Market, symbol: str) -> tuple[int, ...] | None:
    index = market.symbols.find(symbol)
    row = None if index is None else market.session(index)
    return None if row is None else row.item()


def history(market: Market, symbol: str, interval_ns: int) -> list[tuple[int, ...]]:
    index = market.symbols.find(symbol)
    if index is None:
        return []
    return [row[1:] for row in market.bars.history(index, interval_ns, 1_000).tolist()]


@settings(max_examples=200)
@given(
    deliveries(),
    st.lists(st.sampled_from(["go on", "save", "interrupt"]), min_size=1, max_size=20),
    st.integers(1, 4),
)
def test_a_market_saved_step_by_step_and_restored_equals_one_never_interrupted(
    sent: list[tuple[str, int, list[Frame]]], fates: list[str], keep: int
) -> None:
    whole, market, kept = new_market(1_000), new_market(keep), MarketCopy()
    kept.restore(market, LATENESS_NS)

    for number, (stream_id, first_sequence, frames) in enumerate(sent):
        whole.apply(stream_id, first_sequence, batch(of_market(whole, frames)))
        market.apply(stream_id, first_sequence, batch(of_market(market, frames)))
        fate = fates[number % len(fates)]
        if fate != "go on" or number == len(sent) - 1:
            kept.save(market, STREAMS)
        if fate == "interrupt":
            market = new_market(keep)
            kept.restore(market, LATENESS_NS)

    read_back = new_market(1_000)
    kept.restore(read_back, None)
    assert market.totals() == read_back.totals() == whole.totals()
    for stream_id in STREAMS:
        assert market.position(stream_id) == whole.position(stream_id)
        assert read_back.position(stream_id) == whole.position(stream_id)
    for symbol in SYMBOLS:
        assert session(market, symbol) == session(read_back, symbol) == session(whole, symbol)
        for interval_ns in INTERVALS_NS:
            bars = history(whole, symbol, interval_ns)
            newest = history(market, symbol, interval_ns)
            assert history(read_back, symbol, interval_ns) == bars
            assert newest == bars[: len(newest)]
            assert bool(newest) == bool(bars)


@settings(max_examples=50)
@given(deliveries(), st.integers(0, 15), st.integers(1, 4))
def test_readers_of_a_restored_market_get_everything_first(
    sent: list[tuple[str, int, list[Frame]]], interrupted_at: int, keep: int
) -> None:
    market, kept = new_market(keep), MarketCopy()
    kept.restore(market, LATENESS_NS)
    for stream_id, first_sequence, frames in sent[: interrupted_at + 1]:
        market.apply(stream_id, first_sequence, batch(of_market(market, frames)))
        kept.save(market, STREAMS)
    restored = new_market(keep)
    kept.restore(restored, LATENESS_NS)

    changed = restored.changed_since(0)

    sessions = restored.sessions(changed).tolist()
    told = {restored.symbols[i]: row for i, row in zip(changed.tolist(), sessions, strict=True)}
    traded = [symbol for symbol in SYMBOLS if session(market, symbol) is not None]
    assert told == {symbol: session(market, symbol) for symbol in traded}
    for interval_ns in INTERVALS_NS:
        newest = restored.bars.changed_since(0, changed, interval_ns)
        assert sorted(row[1:] for row in newest.tolist()) == sorted(
            history(market, symbol, interval_ns)[0] for symbol in traded
        )
    assert not len(restored.bars.saved_since(restored.bars.step))
    assert np.array_equal(restored.changed_since(restored.commit), np.empty(0, np.uint32))
