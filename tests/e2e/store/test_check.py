"""`mdtool store check` as its users run it."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from mdtool.adapters.stores import open_history, open_store
from tests.support.store_commands import NOON_NS, held, put, store, trades, url, write

SYMBOLS = ["AAPL", "ESZ5", "MSFT"]


@pytest.fixture
def checked(tmp_path):
    """A store in which nothing is wrong, and a way to spoil it."""
    where = url(tmp_path)
    store(write(tmp_path / "day.dbn", trades(180, SYMBOLS), SYMBOLS), "--store", where)

    def spoil(statement):
        with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as connection, connection:
            assert connection.execute(statement).rowcount > 0

    return where, spoil


def test_a_sound_store_has_no_differences(checked):
    where, _ = checked
    assert "180 trades, differences: 0, repaired: 0" in store("check", "--store", where)


def test_wrong_totals_are_printed_and_repaired(checked):
    where, spoil = checked
    with open_history(where) as history:
        right = history.symbols()
    spoil("UPDATE symbols SET trade_count = trade_count + 5 WHERE symbol = 'ESZ5'")
    spoil("UPDATE symbols SET last_trade_at = last_trade_at - 1 WHERE symbol = 'MSFT'")
    before = held(where)
    output = store("check", "--store", where, status=1, said="differences: 2; see --repair")
    count = next(total.trade_count for total in right if total.symbol == "ESZ5")
    lines = output.splitlines()
    assert lines[0] == f"ESZ5: trade_count is {count + 5:,}, its trades are {count:,}"
    assert lines[1].startswith("MSFT: last_trade_at is 2025-09-24T12:00:")
    assert "differences: 2, repaired: 2" in store("check", "--repair", "--store", where)
    with open_history(where) as history:
        assert history.symbols() == right
    assert held(where) == before
    assert "differences: 0, repaired: 0" in store("check", "--store", where)


def test_trades_that_were_lost_show_in_totals_sessions_and_bars(checked):
    where, spoil = checked
    spoil(
        "DELETE FROM trade_rows WHERE symbol = (SELECT number FROM symbols WHERE symbol = 'AAPL') "
        "AND sequence < 30"
    )
    output = store("check", "--repair", "--store", where, status=1, said="differences: 3")
    told = [line.split(" has ")[0].split(" is ")[0] for line in output.splitlines()]
    assert told[0] == "AAPL: trade_count"
    assert told[1:3] == ["AAPL: the session", "AAPL: the session"]
    assert told[3].startswith("AAPL: bars of 1s have ")


def test_a_place_that_is_stored_twice_is_found(checked):
    where, spoil = checked
    first, last = (f"(SELECT {which}(sequence) FROM trade_rows)" for which in ("min", "max"))
    spoil(f"UPDATE trade_rows SET sequence = {first} WHERE sequence = {last}")
    told = store("check", "--store", where, status=1, said="differences: 1").splitlines()
    assert told[0] == "1 trade with the stream and the sequence of another one"
    spoil("UPDATE symbols SET trade_count = trade_count + 5 WHERE symbol = 'ESZ5'")
    told = store("check", "--repair", "--store", where, status=1, said="differences: 1")
    assert "differences: 2, repaired: 1" in told


def test_lost_bars_are_reported(checked):
    where, spoil = checked
    spoil("DELETE FROM bars WHERE interval = 1000000000")
    output = store("check", "--store", where, status=1, said="differences: 1")
    assert output.splitlines()[0].endswith("trades of all symbols; 0 came too late for them")


def test_symbols_without_sessions_are_only_counted(tmp_path):
    where = url(tmp_path)
    put(where, ["ESZ5"], [(0, 1, 1, NOON_NS + k) for k in range(10)])
    assert "10 trades, differences: 0" in store("check", "--store", where)


def test_a_store_in_use_is_counted_and_repaired(checked):
    where, spoil = checked
    spoil("UPDATE symbols SET trade_count = 1")
    with open_store(where) as at_work:
        at_work.claim()
        said = "sessions and bars are not compared"
        assert "repaired: 3" in store("check", "--repair", "--store", where, said=said)
    assert "differences: 0" in store("check", "--store", where)


def test_a_missing_store_is_not_created(tmp_path):
    store("check", "--store", url(tmp_path), status=1, said=str(tmp_path / "s.db"))
    assert list(tmp_path.iterdir()) == []
