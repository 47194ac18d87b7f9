"""However a stream is cut, repeated and mixed with others, each of its frames counts once."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtool.core.units import NS_PER_S
from mdtool.engine.live_bars import LiveBars
from mdtool.engine.market import Market
from tests.reference.market import Frame, PlainMarket, Tick, batch

SYMBOLS = ("AAPL", "MSFT", "GOOG")
INTERVALS_NS = (NS_PER_S, 60 * NS_PER_S)
NOON_NS = 1_735_214_400 * NS_PER_S

TICKS = st.builds(
    Tick,
    symbol=st.integers(0, len(SYMBOLS) - 1),
    price=st.integers(-(2**63), 2**63 - 2),
    volume=st.one_of(st.integers(1, 1_000), st.integers(1, 2**63 - 1)),
    exchange_timestamp=st.integers(NOON_NS, NOON_NS + 90 * NS_PER_S),
    ingest_timestamp=st.integers(NOON_NS, NOON_NS + NS_PER_S),
)
FRAMES = st.lists(st.one_of(TICKS, TICKS, st.integers(1, 5)), min_size=1, max_size=40)


@st.composite
def deliveries(draw: st.DrawFn) -> list[tuple[str, int, list[Frame]]]:
    """Batches `(stream_id, first_sequence, frames)` that together bring every frame of streams."""
    streams = draw(st.lists(FRAMES, min_size=1, max_size=3))
    begins = draw(st.lists(st.integers(0, 2**63), min_size=3, max_size=3))
    steps = st.tuples(st.integers(0, len(streams) - 1), st.integers(0, 20), st.integers(0, 30))
    moves = draw(st.lists(steps, max_size=15))
    moves += [(number, 0, len(frames)) for number, frames in enumerate(streams)]
    positions = [0] * len(streams)
    sent = []
    for number, back, length in moves:
        first = max(positions[number] - back, 0)
        frames = streams[number][first : first + length]
        sent.append((f"stream-{number}", begins[number] + first, frames))
        positions[number] = max(positions[number], first + len(frames))
    return sent


def new_market() -> Market:
    market = Market(LiveBars(INTERVALS_NS, lateness_ns=5 * NS_PER_S), max_symbols=8, max_streams=8)
    assert [market.intern(symbol) for symbol in SYMBOLS] == [0, 1, 2]
    return market


@settings(max_examples=150)
@given(deliveries())
def test_resends_overlaps_and_splits_leave_the_state_of_one_pass(
    sent: list[tuple[str, int, list[Frame]]],
) -> None:
    market, plain, once = new_market(), PlainMarket(), new_market()

    for stream_id, first_sequence, frames in sent:
        change = market.apply(stream_id, first_sequence, batch(frames))
        news = len(plain.ticks)
        for sequence, frame in enumerate(frames, first_sequence):
            plain.take(stream_id, sequence, frame)
        fresh = [tick.symbol for tick in plain.ticks[news:]]
        assert change.changed.tolist() == list(dict.fromkeys(fresh))
        assert change.run.trades.price.tolist() == [tick.price for tick in plain.ticks[news:]]
        assert change.run.next_sequence == market.position(stream_id)
    once.apply("once", 0, batch(plain.ticks))

    assert market.counts.ticks == len(plain.ticks)
    assert market.counts.duplicates == plain.duplicates
    assert market.counts.refused == plain.refused
    for stream_id in {stream_id for stream_id, _, _ in sent}:
        last = max(sequence for stream, sequence in plain.seen if stream == stream_id)
        assert market.position(stream_id) == last + 1
    for index in range(len(SYMBOLS)):
        session = market.session(index)
        assert (None if session is None else session.item()) == plain.session(index)
        for interval_ns in INTERVALS_NS:
            np.testing.assert_array_equal(
                market.bars.history(index, interval_ns, 1_000),
                once.bars.history(index, interval_ns, 1_000),
            )
    assert market.bars.late == once.bars.late


@settings(max_examples=100)
@given(deliveries(), st.lists(st.booleans(), min_size=1, max_size=20))
def test_a_reader_that_skips_steps_still_meets_every_change(
    sent: list[tuple[str, int, list[Frame]]], looks: list[bool]
) -> None:
    market = new_market()
    copy: dict[int, tuple[int, ...]] = {}
    seen = 0

    for number, (stream_id, first_sequence, frames) in enumerate(sent):
        market.apply(stream_id, first_sequence, batch(frames))
        if looks[number % len(looks)] or number == len(sent) - 1:
            changed = market.changed_since(seen)
            seen = market.commit
            copy |= dict(zip(changed.tolist(), market.sessions(changed).tolist(), strict=True))

    state = {index: market.session(index) for index in range(len(SYMBOLS))}
    assert copy == {index: row.item() for index, row in state.items() if row is not None}
