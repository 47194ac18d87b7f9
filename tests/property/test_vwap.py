"""Rolling VWAPs equal the plain reference, for any prices and volumes, however they are cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mdtool.core.units import UNDEF_PRICE
from mdtool.engine.vwap import RollingVwap, Window
from tests.reference import vwap as reference
from tests.reference.vwap import Trade

EDGE = 2**63
instruments = st.sampled_from([0, 1, 5, 4_000])
timestamps = st.integers(0, 60)
everyday = st.builds(
    Trade,
    instrument=instruments,
    price=st.integers(-9, 9),
    volume=st.integers(0, 4),
    ts=timestamps,
)
prices = st.one_of(
    st.integers(-EDGE, EDGE - 2),
    st.sampled_from([-EDGE, 1 - EDGE, EDGE - 2, 0, -1, 10**9]),
    st.integers(-(10**12), 10**12),
)
volumes = st.one_of(
    st.integers(0, EDGE - 1),
    st.sampled_from([0, 1, EDGE - 1, EDGE // 2]),
    st.integers(0, 10**6),
)
extreme = st.builds(Trade, instrument=st.just(1), price=prices, volume=volumes, ts=timestamps)
streams = st.one_of(st.lists(everyday, max_size=120), st.lists(extreme, max_size=40))
windows = st.one_of(
    st.builds(Window, trades=st.integers(1, 40)),
    st.builds(Window, span_ns=st.integers(1, 70)),
    st.builds(Window, trades=st.integers(1, 20), span_ns=st.integers(1, 70)),
)
cuts = st.lists(st.integers(0, 120), max_size=4)


def rolled(window: Window, trades: list[Trade], cuts=()) -> tuple[list[reference.Vwap], int, int]:
    engine = RollingVwap(window)
    edges = [0, *sorted(cut for cut in cuts if cut < len(trades)), len(trades)]
    found = []
    for begin, end in pairwise(edges):
        columns = np.array(trades[begin:end], np.int64).reshape(-1, 4).T.copy()
        vwaps = engine.update(*columns)
        rows = zip(*(c.tolist() for c in (vwaps.price, vwaps.volume, vwaps.trades)), strict=True)
        found += [
            reference.Vwap(None if price == UNDEF_PRICE else price, volume, count)
            for price, volume, count in rows
        ]
    return found, engine.late, engine.early


@given(windows, streams, cuts)
@example(Window(trades=2), [Trade(1, -EDGE, EDGE - 1, 0), Trade(1, EDGE - 2, EDGE - 1, 0)], [])
@example(Window(trades=2), [Trade(1, -EDGE, EDGE // 2, 0), Trade(1, EDGE - 2, EDGE // 2, 0)], [])
def test_windows_equal_the_reference(window, trades, cuts):
    expected = reference.rolling(trades, window.trades or None, window.span_ns or None)
    assert rolled(window, trades, cuts) == expected


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([Window(trades=300), Window(span_ns=300)]))
def test_long_windows_equal_the_reference(seed, window):
    random = np.random.default_rng(seed)
    n = 2_000
    prices = 10**9 * 65 + np.cumsum(random.integers(-3, 4, n)) * 10**7
    columns = [random.integers(0, 3, n), prices, random.integers(1, 100, n), np.arange(n) // 3]
    trades = [Trade(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]
    expected = reference.rolling(trades, window.trades or None, window.span_ns or None)
    assert rolled(window, trades) == expected
