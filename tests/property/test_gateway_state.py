"""The gateway's state against plain dicts."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.symbols import SymbolTable
from mdtool.services.gateway.state import MarketState
from mdtool.wire.batches import Counts, Updates

SYMBOLS = ("AAPL", "MSFT", 'B"RK/B', "ES M4", "ÆTHER", "Z")

sessions = st.tuples(*[st.integers(1, 2**63 - 2)] * 5, st.integers(10**17, 2**63 - 1))
updates = st.dictionaries(st.sampled_from(SYMBOLS), sessions)
steps = st.lists(st.one_of(updates, st.just("lost"), st.just("reconnected")), max_size=12)


def message(table: SymbolTable, changed: dict[str, tuple[int, ...]]) -> Updates:
    symbol = np.array([table.intern(name) for name in changed], np.uint32)
    rows = np.array(list(changed.values()), np.int64).reshape(-1, 6)
    opened, high, low, close, volume, timestamp = rows.T
    nothing = np.zeros(len(symbol), np.int64)
    return Updates(symbol, opened, high, low, close, volume, nothing, timestamp, nothing, Counts())


def expected(symbol: str, row: tuple[int, ...], is_stale: bool) -> dict[str, object]:
    opened, high, low, close = (Decimal(price) / 10**9 for price in row[:4])
    told = {
        "symbol": symbol,
        "open": opened,
        "high": high,
        "low": low,
        "close": close,
        "volume": str(row[4]),
        "timestamp": str(row[5] // 10**6),
    }
    return told | ({"stale": True} if is_stale else {})


def parsed(encoded: bytes) -> object:
    return json.loads(encoded, parse_float=Decimal, parse_int=Decimal)


@given(steps)
def test_reads_are_of_the_latest_update_and_marked_when_it_is_not_confirmed(steps):
    state, table = MarketState(), SymbolTable()
    latest: dict[str, tuple[int, ...]] = {}
    confirmed: set[str] = set()
    for step in steps:
        if step == "reconnected":
            table = SymbolTable(["NEVER TRADED"])
            continue
        if step == "lost":
            changed, told = state.lose(), set(confirmed)
            confirmed.clear()
        else:
            changed, told = state.apply(table, message(table, step)), set(step)
            latest |= step
            confirmed |= told
        assert {state.symbols[index] for index in changed} == told
        assert state.is_live is (step != "lost")
        for symbol, row in latest.items():
            index = state.symbols.find(symbol)
            encoded, is_stale = state.rest(index)
            assert is_stale is (symbol not in confirmed)
            assert parsed(encoded) == expected(symbol, row, is_stale)
        encoded, has_stale = asyncio.run(state.listing.read())
        assert has_stale is (len(confirmed) < len(latest))
        assert parsed(encoded) == [
            expected(symbol, latest[symbol], symbol not in confirmed) for symbol in sorted(latest)
        ]
        assert state.stale_count() == len(latest) - len(confirmed)


@given(sessions)
def test_an_aggregate_is_encoded_once_a_change(row):
    state, table = MarketState(), SymbolTable()
    state.apply(table, message(table, {"AAPL": row}))
    assert state.rest(0) is state.rest(0)
    assert asyncio.run(state.listing.read()) is asyncio.run(state.listing.read())
