"""Digests of trades: as the plain reference, however rows are ordered and cut into batches."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import NamedTrades, Trades
from mdtool.engine.digest import SymbolDigest, TradeDigest, differences
from tests.reference.digest import digests

INT64 = st.integers(-(2**63), 2**63 - 1)
ROWS = st.lists(st.tuples(st.sampled_from(["A", "b ", "BTC/USD"]), INT64, INT64, INT64))


def batch(rows: list) -> NamedTrades:
    table = SymbolTable()
    symbol = np.array([table.intern(row[0]) for row in rows], np.uint32)
    price, size, ts = (np.array([row[at] for row in rows], np.int64) for at in (1, 2, 3))
    return NamedTrades(table, Trades(symbol, price, size, ts, ts))


@given(ROWS, st.randoms(use_true_random=False), st.integers(1, 4))
def test_batches_and_order_do_not_count(rows, random, size):
    expected = digests("trades", [(row[0].strip().upper(), row[1:]) for row in rows])
    random.shuffle(rows)
    digest = TradeDigest()
    for at in range(0, len(rows), size):
        digest.take(batch(rows[at : at + size]))
    assert {each.symbol: each.digest for each in digest.by_symbol()} | {
        "": digest.total().digest
    } == expected
    assert digest.total().rows == len(rows)


@given(ROWS.filter(bool), st.integers(0, 3))
def test_a_changed_or_repeated_row_counts(rows, column):
    whole, changed, twice = TradeDigest(), TradeDigest(), TradeDigest()
    row = list(rows[0])
    row[column] = "OTHER" if column == 0 else row[column] ^ 1
    whole.take(batch(rows))
    changed.take(batch([tuple(row), *rows[1:]]))
    twice.take(batch([rows[0], *rows]))
    assert len({each.total().digest for each in (whole, changed, twice)}) == 3


def test_differences_name_symbols():
    ours = [SymbolDigest("A", "1", 2), SymbolDigest("B", "2", 2), SymbolDigest("C", "3", 1)]
    theirs = [SymbolDigest("B", "9", 2), SymbolDigest("C", "3", 1), SymbolDigest("D", "4", 5)]
    assert differences(ours, theirs) == [
        "A: 2 and 0 rows",
        "B: 2 and 2 rows, of other values",
        "D: 0 and 5 rows",
    ]
