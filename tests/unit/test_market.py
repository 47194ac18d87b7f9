"""The market's state: sessions, positions, counts and their bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mdtool.core.trades import PROBE, Frames, Probe, Reason, Trades
from mdtool.core.units import NS_PER_S
from mdtool.engine.live_bars import LiveBars
from mdtool.engine.market import Change, Market, SequenceGapError
from mdtool.engine.saved_state import SESSION
from tests.reference.market import Frame, Tick, batch

NOON_NS = 1_735_214_400 * NS_PER_S


def tick(price: int, volume: int = 1, symbol: int = 0, at_ns: int = NOON_NS) -> Tick:
    return Tick(symbol, price, volume, at_ns, at_ns + 5)


@pytest.fixture
def market() -> Market:
    market = Market(LiveBars([NS_PER_S]), max_symbols=1_000, max_streams=3)
    market.intern("AAPL")
    return market


def add(market: Market, frames: Frames) -> Change:
    return market.apply("s", market.position("s") or 0, frames)


def test_a_session_is_one_cache_line():
    assert SESSION.itemsize == 64


def test_open_and_close_are_the_first_and_last_to_arrive(market):
    add(market, batch([tick(5, at_ns=NOON_NS + 2), tick(9, 3), tick(1, at_ns=NOON_NS + 1)]))
    add(market, batch([tick(4, 6, at_ns=NOON_NS)]))

    assert market.session(0).item() == (5, 9, 1, 4, 11, 4, NOON_NS, NOON_NS + 5)


def test_a_volume_beyond_int64_stays_at_its_largest_value(market):
    add(market, batch([tick(1, 2**63 - 1), tick(1, 2**63 - 1), tick(1, 1)]))

    assert market.session(0)["volume"] == 2**63 - 1


def test_a_symbol_without_a_trade_has_no_session(market):
    market.intern("MSFT")
    add(market, batch([tick(1), Reason.PRICE]))

    assert market.session(1) is None
    assert market.changed_since(0).tolist() == [0]


def test_a_probe_moves_its_stream_and_nothing_else(market):
    add(market, batch([tick(1)]))
    before = market.totals()
    probes = Frames(
        Trades.empty(),
        np.empty(0, np.uint32),
        count=2,
        refused_offset=np.arange(2, dtype=np.uint32),
        refused_reason=np.full(2, PROBE, np.uint8),
    )
    change = add(market, probes)

    assert market.position("s") == 3
    assert change.changed.tolist() == []
    assert market.totals() == before
    assert list(market.probes_since(1)) == [Probe("s", 2)]
    assert list(market.probes_since(2)) == []
    market.apply("s", 1, probes)  # sent again
    assert list(market.probes_since(2)) == []


def test_a_gap_is_refused_and_changes_nothing(market):
    market.apply("a", 10, batch([tick(1), tick(2)]))

    with pytest.raises(SequenceGapError, match=r"'a' continues at 12, not at 13"):
        market.apply("a", 13, batch([tick(3)]))

    assert market.position("a") == 12
    assert market.counts.ticks == 2
    assert market.commit == 1


def test_an_unknown_stream_begins_anywhere_and_its_past_is_then_known(market):
    market.apply("a", 10, batch([tick(1)]))
    change = market.apply("a", 4, batch([tick(7), Reason.SYMBOL]))

    assert change.run.next_sequence == market.position("a") == 11
    assert len(change.changed) == 0
    assert market.counts.duplicates == 1
    assert sum(market.counts.refused) == 0


def test_a_batch_of_refused_frames_alone_moves_the_position(market):
    frames: list[Frame] = [Reason.PRICE, Reason.MALFORMED, Reason.PRICE]
    change = market.apply("a", 0, batch(frames))

    assert change.run.next_sequence == 3
    assert market.counts.refused[Reason.PRICE] == 2
    assert market.counts.refused[Reason.MALFORMED] == 1
    assert market.commit == 1


def test_the_stream_silent_for_longest_is_forgotten_first(market):
    for stream_id in ("a", "b", "c", "a", "d"):
        market.apply(stream_id, market.position(stream_id) or 0, batch([tick(1)]))

    known = {stream_id: market.position(stream_id) for stream_id in "abcd"}
    assert known == {"a": 2, "b": None, "c": 1, "d": 1}


def test_a_full_table_rejects_new_symbols():
    market = Market(LiveBars([NS_PER_S]), max_symbols=2, max_streams=1)

    assert [market.intern(s) for s in ("A", "B", "C", "A")] == [0, 1, None, 0]


def test_sessions_outlive_the_growth_of_the_table(market):
    add(market, batch([tick(7)]))
    for number in range(1, 1_000):
        assert market.intern(f"S{number}") == number
    add(market, batch([tick(8, symbol=999)]))

    assert market.session(0)["close"] == 7
    assert market.session(999)["close"] == 8
    assert market.changed_since(1).tolist() == [999]


def test_a_received_and_a_made_column_are_the_same_to_it(market):
    made = batch([tick(3)])
    price = np.frombuffer(made.trades.price.tobytes(), np.int64)
    received = replace(made, trades=replace(made.trades, price=price))

    assert add(market, received).changed.tolist() == [0]


def test_bars_follow_the_ticks(market):
    add(market, batch([tick(3), tick(5, 2, at_ns=NOON_NS + NS_PER_S)]))

    bars = market.bars.history(0, NS_PER_S, 10)
    assert bars["close"].tolist() == [5, 3]
    assert bars["start_ns"].tolist() == [NOON_NS + NS_PER_S, NOON_NS]


def test_past_sessions_are_saved_however_often_a_symbol_rolls_in_between(market):
    day_ns = 86_400 * NS_PER_S

    def past(commit: int) -> list[tuple[int, int]]:
        bars = market.past_since(commit)
        return sorted(
            ((start - NOON_NS) // day_ns + 1, count)
            for start, count in zip(bars["start_ns"].tolist(), bars["count"].tolist(), strict=True)
        )

    market.hold_past()
    days = [0, 1, 0, 2, 3]
    add(market, batch([tick(5, at_ns=NOON_NS + day * day_ns) for day in days]))
    assert past(0) == [(0, 2), (1, 1), (2, 1)]
    saved = market.commit
    add(market, batch([tick(5, at_ns=NOON_NS + 2 * day_ns)]))  # amends the previous one
    add(market, batch([tick(5, at_ns=NOON_NS + 4 * day_ns)]))
    assert past(saved) == [(2, 2), (3, 1)]
    assert past(market.commit) == []
