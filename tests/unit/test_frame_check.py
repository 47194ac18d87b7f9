"""A peer's symbols in the market's terms, and what becomes of those that it has no room for."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest

from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Reason
from mdtool.engine.live_bars import LiveBars
from mdtool.engine.market import Market
from mdtool.services.aggregator.markets import FrameCheck
from mdtool.wire.batches import BatchError
from tests.reference.market import Tick, batch

NOON_NS = 1_735_214_400 * 10**9


def ticks(*symbols):
    """Frames of those symbols, refused ones where there is a reason instead."""
    return batch(
        [
            each if isinstance(each, Reason) else Tick(each, 100 + number, 1, NOON_NS, NOON_NS)
            for number, each in enumerate(symbols)
        ]
    )


@pytest.fixture
def market():
    return Market(LiveBars([10**9]), max_symbols=3, max_streams=1)


def test_peers_with_different_tables_meet_in_the_markets(market):
    one = FrameCheck(market, SymbolTable(["AAPL", "MSFT"]))
    other = FrameCheck(market, SymbolTable(["GOOG", "AAPL"]))

    assert one.admit(ticks(0, 1, 0)).trades.symbol.tolist() == [0, 1, 0]
    assert other.admit(ticks(0, 1, 0)).trades.symbol.tolist() == [2, 0, 2]
    assert list(market.symbols) == ["AAPL", "MSFT", "GOOG"]


def test_a_table_may_grow(market):
    table = SymbolTable(["AAPL"])
    check = FrameCheck(market, table)
    check.admit(ticks(0))
    table.intern("MSFT")

    assert check.admit(ticks(1, 0)).trades.symbol.tolist() == [1, 0]


def test_sizes_are_in_the_lots_of_the_market(market, caplog):
    first, second = SymbolTable(["A", "B"]), SymbolTable(["B", "A"])
    first.give_lots({"A": 20})
    second.give_lots({"A": 10})
    assert FrameCheck(market, first).admit(ticks(0, 1)).trades.size.tolist() == [1, 1]
    check = FrameCheck(market, second)
    assert check.admit(ticks(0)).trades.size.tolist() == [1]
    admitted = check.admit(ticks(1, 0))
    assert admitted.trades.size.tolist() == [1]
    assert admitted.refused_reason.tolist() == [Reason.VOLUME]
    assert market.symbols.lots_since(0) == [(0, 20)]
    assert "A: comes in lots of 0.00000001, and is kept in lots of 0.00000002" in caplog.text


def test_a_symbol_without_a_lot_gets_the_first_that_is_told(market):
    table = SymbolTable(["A"])
    check = FrameCheck(market, table)
    check.admit(ticks(0))
    table.give_lot(0, 5)
    assert check.admit(ticks(0)).trades.size.tolist() == [1]
    assert market.symbols.lot(0) == 5


def test_ticks_without_room_are_refused_in_their_places(market, caplog):
    table = SymbolTable(["A", "B", "C", "D", "E"])
    check = FrameCheck(market, table)
    with caplog.at_level(logging.WARNING):
        admitted = check.admit(ticks(3, 0, Reason.PRICE, 4, 2, Reason.VOLUME, 3))

    assert admitted.count == 7
    assert list(market.symbols) == ["A", "C", "D"]
    assert admitted.trades.symbol.tolist() == [2, 0, 1, 2]
    assert admitted.trades.price.tolist() == [100, 101, 104, 106]
    assert admitted.offset.tolist() == [0, 1, 4, 6]
    assert admitted.refused_offset.tolist() == [2, 3, 5]
    assert admitted.refused_reason.tolist() == [Reason.PRICE, Reason.SYMBOL, Reason.VOLUME]
    assert [record.message.split(":")[0] for record in caplog.records] == ["no room for symbol E"]


def test_a_resend_after_such_refusals_still_finds_its_place(market):
    admitted = FrameCheck(market, SymbolTable(["A", "B", "C", "D"])).admit(ticks(0, 1, 2, 3))
    market.apply("s", 0, admitted)
    market.apply("s", 0, admitted)

    assert market.counts.ticks == 3
    assert market.counts.duplicates == 3
    assert market.counts.refused[Reason.SYMBOL] == 1


@pytest.mark.parametrize(
    ("column", "name"),
    [("size", "volume"), ("ts_event", "exchange_timestamp")],
)
def test_values_that_no_accepted_tick_has_are_rejected(market, column, name):
    good = ticks(0, 0)
    trades = dataclasses.replace(good.trades, **{column: np.array([NOON_NS, 0])})
    bad = dataclasses.replace(good, trades=trades)

    with pytest.raises(BatchError, match=f"a tick with a {name} of 0"):
        FrameCheck(market, SymbolTable(["AAPL"])).admit(bad)


@pytest.mark.parametrize("symbol", ["", "aapl", " AAPL", "CAFÉ", "A\tB", "A" * 71])
def test_symbols_that_no_accepted_tick_has_are_rejected(market, symbol):
    with pytest.raises(BatchError, match="is not as ingest servers write it"):
        FrameCheck(market, SymbolTable([symbol])).admit(ticks(0))

    assert len(market.symbols) == 0


@pytest.mark.parametrize("symbol", ["A", "BRK B", "6E.FUT", "ES|M4", "A" * 70])
def test_symbols_of_every_accepted_kind_are_taken(market, symbol):
    FrameCheck(market, SymbolTable([symbol])).admit(ticks(0))

    assert list(market.symbols) == [symbol]
