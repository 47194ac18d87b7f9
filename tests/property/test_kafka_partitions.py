"""Partitions of a market, restored from their records, add up to the whole market."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.adapters.kafka.market_state import MarketState
from mdtool.adapters.kafka.records import OFFSET, Aggregates, RecordError, decode_bar
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Frames, Reason, TradeRun, Trades
from mdtool.core.units import parse_duration
from mdtool.engine.live_bars import LiveBars
from mdtool.engine.market import Market
from mdtool.engine.saved_state import SESSION, SavedState
from mdtool.services.aggregator.config import INTERVALS, AggregatorConfig
from mdtool.services.aggregator.partition import Partition
from mdtool.wire.batches import BatchError
from mdtool.wire.partitions import PartitionEncoder, partition_of

SYMBOLS = ["AAPL", "BTC/USD", "MSFT", "TSLA", "X"]
LENGTHS = [parse_duration(interval) for interval in INTERVALS]
CONFIG = AggregatorConfig(bars_lateness_ms=2_500)
NOON_NS = 1_735_214_400 * 10**9

frame = st.one_of(
    st.tuples(st.integers(0, len(SYMBOLS) - 1), st.integers(1, 99), st.integers(0, 200)),
    st.sampled_from(list(Reason)),
)
stream = st.sampled_from(["one", "two"])


class Topics:
    """What is kept of compacted topics of one partition."""

    def __init__(self, state: MarketState | None = None) -> None:
        self.aggregates: dict[bytes, bytes] = {}
        self.bars: dict[bytes, bytes] = {}
        self._state = state or MarketState(LENGTHS, 1, 1)

    def commit(self, changes) -> None:
        for key, value in changes.aggregates:
            self._state.apply_aggregate(0, key, value)
        for key, value in changes.bars:
            self._state.apply_bar(key, value)
        for key, value in changes.aggregates:
            self.aggregates.pop(key, None)
            self.aggregates[key] = value
        self.bars.update(changes.bars)

    def read(self) -> Aggregates:
        saved = Aggregates()
        for key, value in self.aggregates.items():
            saved.apply(key, value or None)
        assert saved.is_whole
        return saved


def run_of(frames):
    """A run of frames, a tick as (symbol, price, tenths of seconds after noon)."""
    ticks = [(at, each) for at, each in enumerate(frames) if not isinstance(each, Reason)]
    refused = [(at, each) for at, each in enumerate(frames) if isinstance(each, Reason)]
    times = np.array([NOON_NS + each[2] * 10**8 for _, each in ticks], np.int64)
    return Frames(
        Trades(
            symbol=np.array([each[0] for _, each in ticks], np.uint32),
            price=np.array([each[1] for _, each in ticks], np.int64),
            size=np.array([each[1] * 3 for _, each in ticks], np.int64),
            ts_event=times,
            ts_recv=times + 5,
        ),
        offset=np.array([at for at, _ in ticks], np.uint32),
        count=len(frames),
        refused_offset=np.array([at for at, _ in refused], np.uint32),
        refused_reason=np.array([reason for _, reason in refused], np.uint8),
    )


def whole_market():
    bars = LiveBars(LENGTHS, 10_000, CONFIG.bars_lateness_ms * 10**6)
    market = Market(bars, 100, 100)
    market.restore(SavedState.empty())
    for symbol in SYMBOLS:
        market.intern(symbol)
    return market


def by_key(market):
    """The bars of a market by symbol, length, whether they are open, and start."""
    return {
        (market.symbols[row[0]], row[1], row[2], row[3]): row[4:]
        for row in market.bars.saved_since(0).tolist()
    }


@given(
    st.lists(st.tuples(stream, st.lists(frame, max_size=12), st.integers(0, 15)), max_size=25),
    st.integers(1, 3),
    st.lists(st.integers(0, 5), min_size=25, max_size=25),
)
def test_partitions_restored_at_any_time_add_up_to_the_market(batches, partitions, fates):
    symbols = SymbolTable(SYMBOLS)
    encoder = PartitionEncoder(symbols, partitions)
    whole = whole_market()
    states = [MarketState(LENGTHS, 1, 10_000) for _ in range(partitions)]
    topics = [Topics(state) for state in states]
    running = [Partition(p, partitions, CONFIG, Aggregates()) for p in range(partitions)]
    logs: list[list[bytes]] = [[] for _ in range(partitions)]
    taken: dict[str, list] = {"one": [], "two": []}
    for (name, frames, resent), fate in zip(batches, fates, strict=False):
        # What comes may begin with what came before.
        again = min(resent, len(taken[name]))
        first = len(taken[name]) - again
        run = taken[name][first:] + frames
        taken[name] += frames
        whole.apply(name, first, run_of(run))
        for p, data in encoder.encode(TradeRun(symbols, name, first, run_of(run))):
            logs[p].append(data)
        for p, partition in enumerate(running):
            for offset in range(partition.offset or 0, len(logs[p])):
                partition.take(logs[p][offset], offset)
            if fate == 0:  # killed before it has committed, or after
                running[p] = Partition(p, partitions, CONFIG, topics[p].read())
            elif fate > 1:
                topics[p].commit(partition.changes())
            if fate == 5:
                running[p] = Partition(p, partitions, CONFIG, topics[p].read())
    for p, partition in enumerate(running):
        for offset in range(partition.offset or 0, len(logs[p])):
            partition.take(logs[p][offset], offset)
        topics[p].commit(partition.changes())
        running[p] = Partition(p, partitions, CONFIG, topics[p].read())

    traded = [symbol for k, symbol in enumerate(SYMBOLS) if whole.session(k) is not None]
    assert sessions_in(topics) == {
        symbol: whole.session(SYMBOLS.index(symbol)).tolist() for symbol in traded
    }
    assert bars_in(topics) == by_key(whole)
    for symbol in traded:
        state = states[partition_of(symbol, partitions)]
        for length in LENGTHS:
            history = whole.bars.history(SYMBOLS.index(symbol), length, 1_000).tolist()
            assert [row[:7] for row in state.bars(symbol, length, 1_000, 0)] == [
                row[1:] for row in history
            ]
            older = history[1:4]
            page = state.bars(symbol, length, 3, history[0][1])
            assert [row[:7] for row in page] == [row[1:] for row in older]
    for name in ("ticks", "duplicates", "late", *(f"refused.{reason}" for reason in Reason)):
        assert sum(partition.market.totals()[name] for partition in running) == whole.totals()[name]


def sessions_in(topics):
    return {
        symbol: np.frombuffer(value, SESSION)[0].tolist()
        for each in topics
        for symbol, value in each.read().sessions.items()
    }


def bars_in(topics):
    """The bars of all records, as `by_key` has them."""
    bars = {}
    for each in topics:
        for (symbol, length), value in each.read().open_bars.items():
            _, _, is_open, start, *rest = decode_bar(value).tolist()
            bars[symbol, length, is_open, start] = tuple(rest)
        for key, value in each.bars.items():
            symbol, length, start = key.decode().rsplit("/", 2)
            _, _, is_open, _, *rest = decode_bar(value).tolist()
            bars[symbol, int(length), is_open, int(start)] = tuple(rest)
    return bars


def part_of(symbols, partitions=2, stream_id="s"):
    table = SymbolTable(symbols)
    encoder = PartitionEncoder(table, partitions)
    run = run_of([(k, 1, 0) for k in range(len(symbols))])
    return dict(encoder.encode(TradeRun(table, stream_id, 0, run)))


def test_an_invalid_record_changes_nothing_but_the_offset():
    partition = Partition(0, 2, CONFIG, Aggregates())
    good = part_of(SYMBOLS)
    bad = {
        "not a TickBatch": b"\xff\xff",
        "belongs in partition": good[1],
        "not as ingest servers write": part_of(["aapl"], 1)[0],
        "stream id": part_of(["X"], 1, "bad\nid")[0],
    }
    for offset, (reason, data) in enumerate(bad.items()):
        with pytest.raises(BatchError, match=reason):
            partition.take(data, offset)
    partition.take(good[0], len(bad))
    topics = Topics()
    topics.commit(partition.changes())
    again = Partition(0, 2, CONFIG, topics.read())
    assert again.offset == len(bad) + 1
    assert again.dead_letters == len(bad)
    assert again.market.totals() == partition.market.totals()
    assert topics.read().totals[OFFSET] == len(bad) + 1


def test_forgotten_streams_lose_their_records():
    config = AggregatorConfig(max_streams=2)
    partition = Partition(0, 1, config, Aggregates())
    topics = Topics()
    for offset, stream_id in enumerate(["a", "b", "c"]):
        partition.take(part_of(["X"], 1, stream_id)[0], offset)
        topics.commit(partition.changes())
    assert list(topics.read().positions) == ["b", "c"]
    assert topics.aggregates[b"p/a"] == b""


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"x/AAPL", b""), (b"s/AAPL", b"short"), (b"o/AAPL", b""), (b"p/s", b"many"), (None, b"")],
)
def test_foreign_records_are_rejected(key, value):
    with pytest.raises(RecordError, match="not a record of mdtool"):
        Aggregates().apply(key, value)


def test_a_session_that_rolled_is_restored_and_read():
    state, partition = MarketState(LENGTHS, 1, 1), Partition(0, 1, CONFIG, Aggregates())
    topics = Topics(state)
    day = 864_000  # in tenths of seconds
    run = run_of([(0, 5, 0), (0, 7, day), (0, 6, 10), (0, 8, 3 * day), (0, 9, day + 1), (0, 1, 0)])
    table = SymbolTable(["X"])
    for offset, frames in enumerate([run.first(3), run.after(3)]):
        first = 3 * offset
        (data,) = dict(
            PartitionEncoder(table, 1).encode(TradeRun(table, "s", first, frames))
        ).values()
        partition.take(data, offset)
        topics.commit(partition.changes())
        closes = (6, 7) if offset == 0 else (9, 8)
        assert state.past_session("X").close == closes[0]
        partition = Partition(0, 1, CONFIG, topics.read())
        assert partition.market.past_session(0)["close"] == closes[0]
        assert partition.market.session(0)["close"] == closes[1]
    assert partition.market.totals()["late_for_sessions"] == 1


def test_lots_are_in_records_and_restored():
    table = SymbolTable(SYMBOLS[:2])
    table.give_lots({SYMBOLS[0]: 20})
    state = MarketState(LENGTHS, 1, 10)
    topics = Topics(state)
    run = run_of([(0, 1, 0), (1, 1, 0)])
    ((_, data),) = PartitionEncoder(table, 1).encode(TradeRun(table, "s", 0, run))
    partition = Partition(0, 1, CONFIG, Aggregates())
    partition.take(data, 0)
    topics.commit(partition.changes())
    assert state.lots == topics.read().lots == {SYMBOLS[0]: 20}

    # Another ingest server has another lot of the symbol: its sizes are halved, or refused.
    other = SymbolTable(SYMBOLS[:1])
    other.give_lots({SYMBOLS[0]: 10})
    sizes = np.array([4, 3], np.int64)
    run = run_of([(0, 1, 0), (0, 1, 0)]).with_sizes(sizes)
    ((_, data),) = PartitionEncoder(other, 1).encode(TradeRun(other, "t", 0, run))
    restored = Partition(0, 1, CONFIG, topics.read())
    before = int(restored.market.session(0)["volume"])
    restored.take(data, 1)
    assert int(restored.market.session(0)["volume"]) == before + 2
    assert restored.market.counts.refused[Reason.VOLUME] == 1
    topics.commit(restored.changes())
    assert state.lots == {SYMBOLS[0]: 20}
