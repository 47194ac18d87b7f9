"""A store equals a plain reference whatever is written, in whatever parts, by several writers."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mdtool.adapters.stores import open_history, open_store
from mdtool.adapters.stores.errors import StoreGapError
from mdtool.adapters.stores.port import Store, StreamRun, TradeHistory
from mdtool.adapters.stores.sqlite import layers
from tests.reference.store import PlainStore
from tests.support.stores import NOON_NS, STORES, NewUrl, run, step

SYMBOLS = ["AAPL", "MSFT", "IBM"]
STREAMS = ["stream-0", "stream-1", "stream-2"]
INTERVALS_NS = [10, 60]
FRAMES = 40
WRITERS = 2


@pytest.fixture(params=[*STORES, "blocks"])
def new_url(request, tmp_path, monkeypatch):
    """Where stores are; `blocks` are SQLite's, of so few trades that those of a test have many."""
    kind = request.param
    if kind == "blocks":
        kind = "sqlite"
        for name, value in (("MIN", 2), ("MAX", 3)):
            monkeypatch.setattr(layers, f"{name}_TRADES", value)
        monkeypatch.setattr(layers, "LAYERS", 3)
        monkeypatch.setattr(layers, "LEAST_LAYERS", 2)
    with STORES[kind](tmp_path) as new_url:
        yield new_url


@dataclass(frozen=True)
class Turn:
    """What a writer does next."""

    writer: int
    reopens: bool
    runs: list[tuple[int, int, int, bool]]
    """Number of the stream, first frame, how many, and whether they are a part out of order."""
    market: dict


def frames() -> st.SearchStrategy:
    """The frames of a stream, None where one was refused, many of them at the same time."""
    trade = st.tuples(
        st.integers(0, len(SYMBOLS) - 1),
        st.integers(1, 2**63 - 1),
        st.integers(1, 1_000),
        st.integers(NOON_NS, NOON_NS + 3),
    )
    return st.lists(st.none() | trade, min_size=FRAMES, max_size=FRAMES)


def markets() -> st.SearchStrategy:
    """Sessions, bars and counts that go with a step."""
    value = st.integers(0, 3)
    session = st.tuples(*[value] * 5, st.integers(0, 5), value, value)
    bar = st.tuples(
        st.integers(0, len(SYMBOLS) - 1),
        st.sampled_from(INTERVALS_NS),
        st.booleans(),
        st.integers(0, 5).map(lambda n: n * 60),
        *[value] * 5,
        st.integers(0, 5),
        value,
        value,
    )
    return st.fixed_dictionaries(
        {
            "sessions": st.dictionaries(st.integers(0, len(SYMBOLS) - 1), session),
            "bars": st.lists(bar, max_size=4, unique_by=_series_or_bar),
            "counts": st.dictionaries(st.sampled_from(["ticks", "late"]), st.integers(0, 9)),
        }
    )


def _series_or_bar(bar: tuple) -> tuple:
    """Return what a step has once: the open bar of a series, and each closed one."""
    symbol, interval, is_open, start_ns, *_ = bar
    return symbol, interval, None if is_open else start_ns


def turns() -> st.SearchStrategy:
    a_run = st.tuples(
        st.integers(0, len(STREAMS) - 1),
        st.integers(0, FRAMES - 1),
        st.integers(0, FRAMES),
        st.sampled_from([False, False, False, True]),
    )
    turn = st.builds(
        Turn,
        st.integers(0, WRITERS - 1),
        st.sampled_from([False, False, False, True]),
        st.lists(a_run, max_size=3),
        markets(),
    )
    return st.lists(turn, min_size=1, max_size=15)


def run_of(streams: list[list], number: int, first: int, count: int, is_part: bool) -> StreamRun:
    whole = run(STREAMS[number], first, streams[number][first : first + count], is_part=is_part)
    if not is_part:
        return whole
    shuffled = np.random.default_rng(first).permutation(len(whole))
    columns = whole.sequence[shuffled], whole.trades[shuffled]
    return StreamRun(whole.stream_id, first, whole.next_sequence, *columns, is_part=True)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(frames(), min_size=3, max_size=3), turns(), st.integers(1, 7))
def test_a_store_equals_a_plain_one(
    new_url: NewUrl, streams: list[list], sent: list[Turn], limit: int
) -> None:
    url = new_url()
    plain = PlainStore()
    with contextlib.ExitStack() as opened, open_history(url) as history:
        stores = [opened.enter_context(open_store(url)) for _ in range(WRITERS)]
        for turn in sent:
            if turn.reopens:
                stores[turn.writer].__exit__(None, None, None)
                stores[turn.writer] = opened.enter_context(open_store(url))
            runs = [run_of(streams, *each) for each in turn.runs]
            each = step(SYMBOLS, *runs, **turn.market)
            try:
                plain.write(each)
            except StoreGapError:
                with pytest.raises(StoreGapError):
                    stores[turn.writer].write(each)
            else:
                stores[turn.writer].write(each)
        for reader in (*stores, history):
            check_trades(reader, plain, limit)
        for store in stores:
            check_state(store, plain)


def check_trades(reader: TradeHistory, plain: PlainStore, limit: int) -> None:
    assert [(*each, 0) for each in plain.symbols()] == reader.symbols()
    assert reader.recount() == []
    known = reader.streams()
    numbers = {stream.stream_id: stream.number for stream in known}
    assert {each.stream_id: each.next_sequence for each in known} == {
        stream_id: plain.positions.get(stream_id) for stream_id in plain.streams
    }
    for symbol in SYMBOLS:
        wanted = plain.newest(symbol, numbers)
        assert reader.has(symbol) == bool(wanted)
        found, before = [], None
        while len(page := reader.page(symbol, limit, before)):
            assert len(page) <= limit
            found += rows(page)
            before = page.key(-1)
        assert found == wanted
        assert [row for page in reader.trades(symbol) for row in rows(page)] == wanted[::-1]
        within = reader.trades(symbol, NOON_NS + 1, NOON_NS + 3)
        assert [row for page in within for row in rows(page)] == [
            row for row in wanted[::-1] if NOON_NS + 1 <= row[0] < NOON_NS + 3
        ]
        for interval in INTERVALS_NS if wanted else ():
            closed = plain.closed(symbol, interval, 240)
            assert reader.bars(symbol, interval, 2, 240).tolist() == closed[:2]


def check_state(store: Store, plain: PlainStore) -> None:
    for max_streams, lateness_ns in ((10, 100), (1, 0)):
        found = store.load(max_streams, lateness_ns)
        wanted = plain.load(max_streams, lateness_ns, list(found.symbols))
        assert found.sessions.tolist() == wanted.sessions.tolist()
        assert found.bars.tolist() == wanted.bars.tolist()
        assert list(found.positions.items()) == list(wanted.positions.items())
        assert found.counts == wanted.counts
    for stream_id in STREAMS:
        assert store.position(stream_id) == plain.positions.get(stream_id)


def rows(page) -> list[tuple[int, ...]]:
    trades = page.trades
    columns = trades.ts_event, page.stream, page.sequence, trades.price, trades.size, trades.ts_recv
    return list(zip(*(each.tolist() for each in columns), strict=True))
