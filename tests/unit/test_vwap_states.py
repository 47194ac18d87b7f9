"""The state of every symbol, live and restored from a store."""

from __future__ import annotations

import json

import pytest

from mdtool.adapters.stores import open_history, open_store
from mdtool.core.symbols import SymbolTable
from mdtool.engine.vwap import Window
from mdtool.services.vwap.backfill import read_backfill
from mdtool.services.vwap.states import States
from tests.reference.market import batch
from tests.support.aggregators import tick
from tests.support.stores import MS, NOON_NS, run, step


def state(states: States, symbol: str) -> dict:
    return json.loads(states.line(symbol))


def apply(states: States, table: SymbolTable, *frames) -> list[str]:
    return states.apply(table, batch(frames).trades)


def test_a_run_leaves_the_last_trade_of_each_symbol():
    states = States(Window(trades=2))
    table = SymbolTable(["AAPL", "MSFT"])
    frames = [tick(100), tick(500, 2, symbol=1), tick(200, 3, at_s=1)]
    assert sorted(apply(states, table, *frames)) == ["AAPL", "MSFT"]
    assert state(states, "AAPL") == {
        "symbol": "AAPL",
        "price": 2,
        "volume": 3,
        "vwap": 1.75,
        "window": 2,
        "timestamp": frames[2].exchange_timestamp,
    }
    assert state(states, "MSFT")["window"] == 1
    assert states.line("GOOG") == b""


def test_a_line_is_encoded_once_until_the_state_changes():
    states = States(Window(trades=2))
    table = SymbolTable(["AAPL"])
    apply(states, table, tick(100))
    line = states.line("AAPL")
    assert states.line("AAPL") is line
    apply(states, table, tick(300))
    assert state(states, "AAPL")["vwap"] == 2


def test_another_table_of_symbols_means_the_same_symbols():
    states = States(Window(trades=5))
    apply(states, SymbolTable(["AAPL", "MSFT"]), tick(100), tick(700, symbol=1))
    changed = apply(states, SymbolTable(["GOOG", "AAPL"]), tick(200, symbol=1))
    assert changed == ["AAPL"]
    assert state(states, "AAPL")["window"] == 2
    assert states.symbols() == ["AAPL", "MSFT"]


def test_lots_come_with_the_table_and_stay():
    states = States(Window(trades=5))
    table = SymbolTable(["MSFT", "BTC/USD"])
    apply(states, table, tick(100), tick(700, 3, symbol=1))
    assert "lot" not in state(states, "BTC/USD")
    table.give_lot(1, 10_000)
    apply(states, table, tick(700, 3, symbol=1))
    assert state(states, "BTC/USD")["lot"] == 0.00001
    apply(states, SymbolTable(["BTC/USD"]), tick(700, 4))
    assert state(states, "BTC/USD")["lot"] == 0.00001
    assert "lot" not in state(states, "MSFT")


def test_a_trade_that_is_too_late_changes_nothing():
    states = States(Window(span_ns=10**9))
    table = SymbolTable(["AAPL"])
    apply(states, table, tick(100, at_s=10))
    assert apply(states, table, tick(900, at_s=1)) == []
    assert state(states, "AAPL")["price"] == 1


def test_more_symbols_than_there_was_room_for():
    states = States(Window(trades=1))
    names = [f"S{number}" for number in range(300)]
    frames = [tick(number + 1, symbol=number) for number in range(300)]
    apply(states, SymbolTable(names), *frames)
    assert [state(states, name)["price"] for name in names] == [n / 100 for n in range(1, 301)]


@pytest.fixture
def store(tmp_path) -> str:
    return f"sqlite:///{tmp_path}/trades.db?synchronous=normal"


def rows(n: int, symbol: int = 0, price: int = 10**9):
    return [(symbol, price + place, 1 + place, NOON_NS + place * MS) for place in range(n)]


def backfill_of(url: str, window: Window):
    with open_history(url) as history:
        return read_backfill(history, window)


def test_windows_are_restored_from_the_newest_trades_of_a_store(store):
    with open_store(store) as writer:
        writer.write(step(["AAPL", "MSFT"], run("s", 0, rows(25_000) + rows(3, symbol=1))))
    backfill = backfill_of(store, Window(trades=12_000))
    stored = backfill.stored.trades
    by_symbol = {
        name: stored.price[stored.symbol == index].tolist()
        for index, name in enumerate(backfill.stored.symbols)
    }
    assert by_symbol["AAPL"] == [10**9 + place for place in range(13_000, 25_000)]
    assert by_symbol["MSFT"] == [10**9, 10**9 + 1, 10**9 + 2]
    assert backfill.positions == {"s": 25_003}
    states = States(Window(trades=12_000))
    assert sorted(states.restore(backfill.stored)) == ["AAPL", "MSFT"]
    assert state(states, "AAPL")["window"] == 12_000
    assert state(states, "AAPL")["volume"] == 25_000


def test_windows_of_time_reach_back_from_the_latest_trade(store):
    with open_store(store) as writer:
        writer.write(step(["AAPL"], run("s", 0, rows(30_000))))
    backfill = backfill_of(store, Window(span_ns=15_000 * MS))
    assert backfill.stored.trades.price.tolist() == [
        10**9 + place for place in range(15_000, 30_000)
    ]


def test_trades_committed_after_the_positions_were_read_are_left_out(store, monkeypatch):
    with open_store(store) as writer, open_history(store) as history:
        writer.write(step(["AAPL"], run("s", 0, rows(5))))
        streams = history.streams()
        writer.write(step(["AAPL"], run("s", 5, rows(3, price=2 * 10**9)), run("new", 0, rows(1))))
        monkeypatch.setattr(history, "streams", lambda: streams)
        backfill = read_backfill(history, Window(trades=4))
    assert backfill.stored.trades.price.tolist() == [10**9 + place for place in range(1, 5)]
    assert backfill.positions == {"s": 5}


def test_trades_of_datasets_have_no_position_and_are_included(store):
    with open_store(store) as writer:
        writer.write(step(["AAPL"], run("day", 0, rows(5), is_part=True)))
    backfill = backfill_of(store, Window(trades=4))
    assert (len(backfill), backfill.positions) == (4, {})


def test_an_empty_store_restores_nothing(store):
    with open_store(store):
        backfill = backfill_of(store, Window(trades=4))
    assert len(backfill) == 0
    assert States(Window(trades=4)).restore(backfill.stored) == []
