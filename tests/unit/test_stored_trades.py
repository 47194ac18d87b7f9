"""Stored trades in order, and the dedup index of a store."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtool.adapters.datasets.trade_rows import TradeRows
from mdtool.adapters.stores import open_history, open_store
from mdtool.core.config import load
from mdtool.core.errors import InputError
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Trades
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.store import export
from mdtool.services.store.dedup_index import _Sequences
from mdtool.services.store.export import StoredTrades
from mdtool.services.store.writer import RowWriter

NOON_NS = 1_758_715_200 * 10**9
CONFIG = load(AggregatorConfig, "aggregate", {})
TRADES = st.lists(
    st.tuples(
        st.integers(0, 2),  # symbol
        st.integers(0, 2),  # stream
        st.sampled_from([0, 0, 1, 2, 10**9, 10**13, 10**18]),  # time after noon
    ),
    min_size=1,
    max_size=60,
)


def rows_of(trades, streams=("z", "y", "x")) -> TradeRows:
    """Trades whose sequences are their places in the list."""
    symbol, stream, times = np.array(trades, np.int64).T
    place = np.arange(len(trades))
    return TradeRows(
        symbols=SymbolTable(["B", "A", "C"]),
        streams=SymbolTable(streams),
        stream=stream.astype(np.uint32),
        sequence=place,
        trades=Trades(
            symbol=symbol.astype(np.uint32),
            price=place * 7 + 1,
            size=place + 1,
            ts_event=NOON_NS + times,
            ts_recv=NOON_NS + times + place,
        ),
    )


def values(rows: TradeRows) -> list[tuple]:
    """Rows as plain values that sort as datasets are sorted."""
    return [
        (ts, rows.symbols[symbol], rows.streams[stream], sequence, price, volume, ingest)
        for ts, symbol, stream, sequence, price, volume, ingest in zip(
            rows.trades.ts_event.tolist(),
            rows.trades.symbol.tolist(),
            rows.stream.tolist(),
            rows.sequence.tolist(),
            rows.trades.price.tolist(),
            rows.trades.size.tolist(),
            rows.trades.ts_recv.tolist(),
            strict=True,
        )
    ]


@settings(max_examples=20)
@given(TRADES, st.integers(1, 8))
def test_trades_come_in_order_however_few_are_held(tmp_path_factory, trades, held):
    where = f"sqlite:///{tmp_path_factory.mktemp('s')}/s.db?synchronous=normal"
    rows = rows_of(trades)
    with open_store(where) as store:
        RowWriter(store, CONFIG).write(rows)
    with pytest.MonkeyPatch.context() as patch, open_history(where) as history:
        patch.setattr(export, "_ROWS", held)
        by_time = [each for part in StoredTrades(history).by_time() for each in values(part)]
        by_symbol = [each for part in StoredTrades(history).by_symbol() for each in values(part)]
        some = StoredTrades(history, frozenset("AC"), NOON_NS + 1, NOON_NS + 10**13)
        part = [each for rows in some.by_time() for each in values(rows)]
    wanted = sorted(values(rows))
    assert by_time == wanted
    assert by_symbol == sorted(wanted, key=lambda each: (each[1], each))
    within = range(NOON_NS + 1, NOON_NS + 10**13)
    assert part == [each for each in wanted if each[0] in within and each[1] != "B"]


@settings(max_examples=20)
@given(TRADES, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=6))
def test_parts_in_any_order_and_number_store_each_trade_once(tmp_path_factory, trades, parts):
    where = f"sqlite:///{tmp_path_factory.mktemp('s')}/s.db?synchronous=normal"
    rows = rows_of(trades)
    seen: set[int] = set()
    with open_store(where) as store:
        writer = RowWriter(store, CONFIG)
        for begin, end in [*parts, (0, 60), (0, 60)]:
            some = set(range(len(rows))[begin:end])
            new, known = writer.new, writer.known
            writer.write(rows[begin:end])
            assert writer.new - new == len(some - seen)
            assert writer.known - known == len(some & seen)
            seen |= some
    with open_history(where) as history:
        found = [each for part in StoredTrades(history).by_time() for each in values(part)]
        counts = {total.symbol: total.trade_count for total in history.symbols()}
    assert found == sorted(values(rows))
    assert sum(counts.values()) == len(rows)


@pytest.mark.parametrize("column", ["price", "size", "ts_event", "symbol"])
@pytest.mark.parametrize("is_again", [False, True])
def test_another_trade_in_the_same_place_is_rejected(tmp_path, column, is_again):
    where = f"sqlite:///{tmp_path}/s.db"
    rows = rows_of([(0, 0, 0), (1, 0, 5), (1, 0, 7), (1, 0, 9)])
    changed = getattr(rows.trades, column).copy()
    changed[2] += 1
    other = dataclasses.replace(rows, trades=dataclasses.replace(rows.trades, **{column: changed}))
    with open_store(where) as store:
        writer = RowWriter(store, CONFIG)
        writer.write(rows)
        if is_again:  # another process, later
            writer = RowWriter(store, CONFIG)
        with pytest.raises(InputError, match="stream 'z' is not the one that was stored: at 2 "):
            writer.write(other)
    with open_history(where) as history:
        found = [each for part in StoredTrades(history).by_time() for each in values(part)]
    assert found == sorted(values(rows))


@given(st.lists(st.sets(st.integers(0, 40), min_size=1)), st.sets(st.integers(-3, 45)))
def test_sequences_are_in_the_set_once_they_were_added(parts, asked):
    taken, sequences = set(), _Sequences(np.empty((2, 0), np.int64))
    for part in parts:
        added = np.array(sorted(part - taken), np.int64)
        if len(added):
            sequences.add(added)
        taken |= part
    wanted = np.array(sorted(asked), np.int64)
    assert sequences.has(wanted).tolist() == [each in taken for each in wanted.tolist()]


def test_symbols_beyond_the_bound_are_rejected(tmp_path):
    config = load(AggregatorConfig, "aggregate", {"max_symbols": 2})
    with open_store(f"sqlite:///{tmp_path}/s.db") as store:
        writer = RowWriter(store, config)
        writer.write(rows_of([(0, 0, 0), (1, 0, 1), (2, 0, 2), (2, 0, 3)]))
        assert (writer.new, writer.rejected) == (2, 2)
        assert [total.symbol for total in store.symbols()] == ["A", "B"]
