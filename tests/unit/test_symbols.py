"""The symbol table."""

from __future__ import annotations

from mdtool.core.symbols import SymbolTable


def test_symbols_get_dense_indices_in_the_order_met():
    table = SymbolTable(["MSFT", "AAPL"])
    assert [table.intern(s) for s in ("AAPL", "ESM4", "MSFT", "ESM4")] == [1, 2, 0, 2]
    assert list(table) == ["MSFT", "AAPL", "ESM4"]
    assert (len(table), table[2]) == (3, "ESM4")


def test_a_symbol_given_twice_at_the_start_counts_once():
    assert list(SymbolTable(["A", "B", "A"])) == ["A", "B"]


def test_find_does_not_add():
    table = SymbolTable()
    assert table.find("AAPL") is None
    assert len(table) == 0
    table.intern("AAPL")
    assert table.find("AAPL") == 0


def test_since_gives_what_a_peer_does_not_know_yet():
    table = SymbolTable(["A", "B", "C"])
    assert table.since(1) == ["B", "C"]
    assert table.since(3) == []
