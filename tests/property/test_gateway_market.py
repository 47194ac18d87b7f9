"""The gateway's market, and what REST answers of it, against plain dicts."""

from __future__ import annotations

import json
from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.symbols import SymbolTable
from mdtool.services.gateway import formats
from mdtool.services.gateway.feeds.aggregates import Aggregate
from mdtool.services.gateway.market import MarketState
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
            aggregate = Aggregate(symbol, *state.session(state.symbols.find(symbol)))
            assert aggregate.is_stale is (symbol not in confirmed)
            encoded = formats.encode_aggregate(aggregate)
            assert parsed(encoded) == expected(symbol, row, aggregate.is_stale)
        if latest:
            assert state.in_order() == sorted(latest)
        assert state.stale_count() == len(latest) - len(confirmed)
