"""A store with as many trades as one likes, written by the store's own writer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import numpy as np

from mdtool.adapters.stores import Store, open_store
from mdtool.adapters.stores.port import Step, StreamRun
from mdtool.core.symbols import SymbolTable
from mdtool.core.units import NS_PER_MS, PRICE_SCALE

SYMBOLS: Final = ("AAPL", "AMZN", "GOOG", "MSFT")
"""They trade in turns."""
_START_NS: Final = 1_735_201_234_567 * NS_PER_MS
_EVERY_NS: Final = 1_000
"""So that a thousand trades share each millisecond."""
_STEP: Final = 200_000
_CENT: Final = PRICE_SCALE // 100


def fill(url: str, trades: int, symbols: Sequence[str] = SYMBOLS) -> None:
    """Write trades of symbols, in turns, into a store, which is made; on a terminal say how far.

    Raises
    ------
    StoreError
        When they cannot be written.
    """
    with open_store(url) as store:
        for first in range(0, trades, _STEP):
            _write(store, first, min(first + _STEP, trades), symbols)
            if sys.stderr.isatty():
                print(f"\r{first + _STEP:,} of {trades:,} trades", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)


def _write(store: Store, first: int, last: int, symbols: Sequence[str]) -> None:
    number = np.arange(first, last)
    random = np.random.default_rng(first)
    time_ns = _START_NS + number * _EVERY_NS
    run = StreamRun(
        "bench",
        first,
        last,
        sequence=number,
        symbol=(number % len(symbols)).astype(np.uint32),
        price=random.integers(18_000, 20_000, len(number)) * _CENT,
        volume=random.integers(1, 1_000, len(number)),
        exchange_timestamp=time_ns,
        ingest_timestamp=time_ns + NS_PER_MS,
    )
    store.write(Step(SymbolTable(symbols), [run]))
