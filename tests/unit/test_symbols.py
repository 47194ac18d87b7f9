"""The symbol table."""

from __future__ import annotations

import numpy as np

from mdtool.core.symbols import SymbolMap, SymbolTable


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


def test_since_returns_the_symbols_that_a_peer_lacks():
    table = SymbolTable(["A", "B", "C"])
    assert table.since(1) == ["B", "C"]
    assert table.since(3) == []


def test_a_map_adds_symbols_to_the_other_table_when_they_are_met():
    source, other = SymbolTable(["A", "B", "C"]), SymbolTable(["X", "C"])
    symbols = SymbolMap(source, other.intern)

    assert symbols.map(np.array([2, 0, 2], np.uint32)).tolist() == [1, 2, 1]
    assert list(other) == ["X", "C", "A"]
    source.intern("D")
    assert symbols.map(np.array([3, 1, 3])).tolist() == [4, 3, 4]
    assert list(other) == ["X", "C", "A", "B", "D"]
    assert not symbols.has_missing


def test_a_map_asks_once_for_a_symbol_that_is_not_taken():
    asked = []

    def intern(symbol: str) -> int | None:
        asked.append(symbol)
        return None if symbol == "B" else 7

    symbols = SymbolMap(SymbolTable(["A", "B"]), intern)
    for _ in range(2):
        assert symbols.map(np.array([1, 0])).tolist() == [SymbolMap.MISSING, 7]
    assert sorted(asked) == ["A", "B"]
    assert symbols.has_missing
    assert symbols.map(np.empty(0, np.uint32)).dtype == np.uint32
