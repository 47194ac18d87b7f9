"""A peer's symbols in the market's terms, and what becomes of those that it has no room for."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from mdtool.core.symbols import SymbolTable
from mdtool.engine.live_bars import LiveBars
from mdtool.engine.market import Market
from mdtool.services.aggregator.intake import Translation
from mdtool.wire.batches import BatchError
from mdtool.wire.ticks import Reason
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
    one = Translation(market, SymbolTable(["AAPL", "MSFT"]))
    other = Translation(market, SymbolTable(["GOOG", "AAPL"]))

    assert one.translate(ticks(0, 1, 0)).symbol.tolist() == [0, 1, 0]
    assert other.translate(ticks(0, 1, 0)).symbol.tolist() == [2, 0, 2]
    assert list(market.symbols) == ["AAPL", "MSFT", "GOOG"]


def test_a_table_may_grow(market):
    table = SymbolTable(["AAPL"])
    translation = Translation(market, table)
    translation.translate(ticks(0))
    table.intern("MSFT")

    assert translation.translate(ticks(1, 0)).symbol.tolist() == [1, 0]


def test_ticks_without_room_are_refused_in_their_places(market, caplog):
    table = SymbolTable(["A", "B", "C", "D", "E"])
    translation = Translation(market, table)
    with caplog.at_level(logging.WARNING):
        translated = translation.translate(ticks(3, 0, Reason.PRICE, 4, 2, Reason.VOLUME, 3))

    assert translated.frames == 7
    assert translated.symbol.tolist() == [0, 2]
    assert translated.price.tolist() == [101, 104]
    assert translated.offset.tolist() == [1, 4]
    assert translated.refused_offset.tolist() == [0, 2, 3, 5, 6]
    assert translated.refused_reason.tolist() == [
        Reason.SYMBOL, Reason.PRICE, Reason.SYMBOL, Reason.VOLUME, Reason.SYMBOL
    ]  # fmt: skip
    assert [record.message.split(":")[0] for record in caplog.records] == ["no room for symbol D"]


def test_a_resend_after_such_refusals_still_finds_its_place(market):
    translated = Translation(market, SymbolTable(["A", "B", "C", "D"])).translate(ticks(3, 0, 3, 1))
    market.apply("s", 0, translated)
    market.apply("s", 0, translated)

    assert market.counts.ticks == 2
    assert market.counts.duplicates == 2
    assert market.counts.refused[Reason.SYMBOL] == 2


@pytest.mark.parametrize("column", ["price", "volume", "exchange_timestamp"])
def test_values_that_no_accepted_tick_has_are_the_peers_error(market, column):
    bad = ticks(0, 0)
    setattr(bad, column, np.array([NOON_NS, 0]))

    with pytest.raises(BatchError, match=f"a tick with a {column} of 0"):
        Translation(market, SymbolTable(["AAPL"])).translate(bad)


@pytest.mark.parametrize("symbol", ["", "aapl", " AAPL", "CAFÉ", "A\tB", "A" * 71])
def test_symbols_that_no_accepted_tick_has_are_the_peers_error(market, symbol):
    with pytest.raises(BatchError, match="is not as ingest servers write it"):
        Translation(market, SymbolTable([symbol])).translate(ticks(0))

    assert len(market.symbols) == 0


@pytest.mark.parametrize("symbol", ["A", "BRK B", "6E.FUT", "ES|M4", "A" * 70])
def test_symbols_of_every_accepted_kind_are_taken(market, symbol):
    Translation(market, SymbolTable([symbol])).translate(ticks(0))

    assert list(market.symbols) == [symbol]
