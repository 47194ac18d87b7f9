"""The last state of every symbol, live and filled from a store."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mdtool.adapters.stores import open_history, open_store
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import TradeRun
from mdtool.engine.vwap import Window
from mdtool.services.vwap.backfill import read_backfill
from mdtool.services.vwap.board import Board
from tests.reference.market import batch
from tests.support.aggregators import tick
from tests.support.stores import MS, NOON_NS, run, step


def told(board: Board, symbol: str) -> dict:
    return json.loads(board.line(symbol))


def trades(table: SymbolTable, *frames) -> TradeRun:
    return TradeRun(table, "s", 0, batch(frames))


def test_a_run_leaves_the_last_trade_of_each_symbol():
    board = Board(Window(trades=2))
    table = SymbolTable(["AAPL", "MSFT"])
    frames = [tick(100), tick(500, 2, symbol=1), tick(200, 3, at_s=1)]
    assert sorted(board.apply(trades(table, *frames))) == ["AAPL", "MSFT"]
    assert told(board, "AAPL") == {
        "symbol": "AAPL",
        "price": 2,
        "volume": 3,
        "vwap": 1.75,
        "window": 2,
        "timestamp": frames[2].exchange_timestamp,
    }
    assert told(board, "MSFT")["window"] == 1
    assert board.line("GOOG") == b""


def test_a_line_is_made_once_until_the_state_changes():
    board = Board(Window(trades=2))
    table = SymbolTable(["AAPL"])
    board.apply(trades(table, tick(100)))
    line = board.line("AAPL")
    assert board.line("AAPL") is line
    board.apply(trades(table, tick(300)))
    assert told(board, "AAPL")["vwap"] == 2


def test_another_table_of_symbols_means_the_same_symbols():
    board = Board(Window(trades=5))
    board.apply(trades(SymbolTable(["AAPL", "MSFT"]), tick(100), tick(700, symbol=1)))
    changed = board.apply(trades(SymbolTable(["GOOG", "AAPL"]), tick(200, symbol=1)))
    assert changed == ["AAPL"]
    assert told(board, "AAPL")["window"] == 2
    assert board.symbols() == ["AAPL", "MSFT"]


def test_a_trade_that_is_too_late_changes_nothing():
    board = Board(Window(span_ns=10**9))
    table = SymbolTable(["AAPL"])
    board.apply(trades(table, tick(100, at_s=10)))
    assert board.apply(trades(table, tick(900, at_s=1))) == []
    assert told(board, "AAPL")["price"] == 1


def test_more_symbols_than_there_was_room_for():
    board = Board(Window(trades=1))
    names = [f"S{number}" for number in range(300)]
    frames = [tick(number + 1, symbol=number) for number in range(300)]
    board.apply(trades(SymbolTable(names), *frames))
    assert [told(board, name)["price"] for name in names] == [n / 100 for n in range(1, 301)]


@pytest.fixture
def store(tmp_path) -> str:
    return f"sqlite:///{tmp_path}/trades.db?synchronous=normal"


def rows(n: int, symbol: int = 0, price: int = 10**9):
    return [(symbol, price + place, 1 + place, NOON_NS + place * MS) for place in range(n)]


def backfill_of(url: str, window: Window):
    with open_history(url) as history:
        return read_backfill(history, window)


def test_windows_are_filled_with_the_newest_trades_of_a_store(store):
    with open_store(store) as writer:
        writer.write(step(["AAPL", "MSFT"], run("s", 0, rows(25_000) + rows(3, symbol=1))))
    backfill = backfill_of(store, Window(trades=12_000))
    by_symbol = {
        name: backfill.price[backfill.symbol == index].tolist()
        for index, name in enumerate(backfill.symbols)
    }
    assert by_symbol["AAPL"] == [10**9 + place for place in range(13_000, 25_000)]
    assert by_symbol["MSFT"] == [10**9, 10**9 + 1, 10**9 + 2]
    assert backfill.positions == {"s": 25_003}
    board = Board(Window(trades=12_000))
    assert sorted(board.restart(backfill)) == ["AAPL", "MSFT"]
    assert told(board, "AAPL")["window"] == 12_000
    assert told(board, "AAPL")["volume"] == 25_000


def test_windows_of_time_reach_back_from_the_latest_trade(store):
    with open_store(store) as writer:
        writer.write(step(["AAPL"], run("s", 0, rows(30_000))))
    backfill = backfill_of(store, Window(span_ns=15_000 * MS))
    assert backfill.price.tolist() == [10**9 + place for place in range(15_000, 30_000)]


def test_what_is_committed_after_the_positions_were_read_is_left_to_come_live(store, monkeypatch):
    with open_store(store) as writer, open_history(store) as history:
        writer.write(step(["AAPL"], run("s", 0, rows(5))))
        streams = history.streams()
        writer.write(step(["AAPL"], run("s", 5, rows(3, price=2 * 10**9)), run("new", 0, rows(1))))
        monkeypatch.setattr(history, "streams", lambda: streams)
        backfill = read_backfill(history, Window(trades=4))
    assert backfill.price.tolist() == [10**9 + place for place in range(1, 5)]
    assert backfill.positions == {"s": 5}


def test_trades_of_datasets_have_no_position_and_are_taken(store):
    with open_store(store) as writer:
        writer.write(step(["AAPL"], run("day", 0, rows(5), is_part=True)))
    backfill = backfill_of(store, Window(trades=4))
    assert (len(backfill.price), backfill.positions) == (4, {})


def test_an_empty_store_fills_nothing(store):
    with open_store(store):
        backfill = backfill_of(store, Window(trades=4))
    assert len(backfill.price) == 0
    assert Board(Window(trades=4)).restart(backfill) == []
    assert backfill.symbol.dtype == np.int64
