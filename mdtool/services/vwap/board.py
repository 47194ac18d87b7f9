"""The last state of every symbol, kept by rolling its trades, and encoded once for all clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.core.symbols import SymbolMap, SymbolTable
from mdtool.core.trades import TradeRun
from mdtool.engine.vwap import RollingVwap, Window
from mdtool.wire.vwap_lines import VwapState, encode_state

_FIRST_SYMBOLS: Final = 64
_COLUMNS: Final = 5
_PRICE, _VOLUME, _VWAP, _TRADES, _TIME = range(_COLUMNS)

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Backfill:
    """Trades of before, from which windows are filled, each symbol's from old to new.

    Attributes
    ----------
    symbols : sequence of str
    symbol : int64[n]
        Index into `symbols`.
    price, volume, timestamp : int64[n]
    positions : mapping of str to int
        Of each stream, the sequence up to which its trades are among these.
    """

    symbols: Sequence[str]
    symbol: Integers
    price: Integers
    volume: Integers
    timestamp: Integers
    positions: dict[str, int] = field(default_factory=dict)


class Board:
    """What is to be told of every symbol.

    Parameters
    ----------
    window : Window
        Of each symbol; time is exchange time.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._windows = RollingVwap(window)
        self._symbols = SymbolTable()
        self._last = np.zeros((_FIRST_SYMBOLS, _COLUMNS), np.int64)
        self._lines: list[bytes | None] = []
        self._map = SymbolMap(SymbolTable(), self._index_of)
        # Loads the kernel, so that the first batch is no slower than the next.
        none = np.empty(0, np.int64)
        self._windows.update(none, none, none, none)

    def __len__(self) -> int:
        return sum(line is not None for line in self._lines)

    @property
    def late(self) -> int:
        """How many trades were older than their window is long, and left out."""
        return self._windows.late

    @property
    def early(self) -> int:
        """How many trades left their windows before their time."""
        return self._windows.early

    def symbols(self) -> list[str]:
        """Return the symbols that have a state."""
        return [self._symbols[index] for index, line in enumerate(self._lines) if line is not None]

    def line(self, symbol: str) -> bytes:
        """Return the state of a symbol as a line, nothing when it has none."""
        index = self._symbols.find(symbol)
        if index is None:
            return b""
        line = self._lines[index]
        if line is None:
            return b""
        if not line:
            price, volume, vwap, trades, timestamp_ns = self._last[index].tolist()
            line = encode_state(VwapState(symbol, price, volume, vwap, trades, timestamp_ns))
            self._lines[index] = line
        return line

    def apply(self, run: TradeRun) -> list[str]:
        """Take a run of trades; return the symbols whose state changed."""
        if run.symbols is not self._map.source:  # a feed that is connected again has another
            self._map = SymbolMap(run.symbols, self._index_of)
        trades = run.trades
        symbol = self._map.map(trades.symbol).astype(np.int64)
        return self._take(symbol, trades.price, trades.size, trades.ts_event)

    def restart(self, backfill: Backfill) -> list[str]:
        """Fill the windows anew, with trades of before; return the symbols that have any.

        What is known of other symbols stays, but their windows are empty.
        """
        self._windows = RollingVwap(self._window)
        indices = np.array([self._index_of(symbol) for symbol in backfill.symbols], np.int64)
        return self._take(
            indices[backfill.symbol], backfill.price, backfill.volume, backfill.timestamp
        )

    def _take(
        self, symbol: Integers, price: Integers, volume: Integers, timestamp: Integers
    ) -> list[str]:
        vwaps = self._windows.update(symbol, price, volume, timestamp)
        taken = np.flatnonzero(vwaps.trades)
        # Of a symbol's trades the last one stays.
        changed, from_end = np.unique(symbol[taken][::-1], return_index=True)
        latest = taken[len(taken) - 1 - from_end]
        self._last[changed, _PRICE] = price[latest]
        self._last[changed, _VOLUME] = volume[latest]
        self._last[changed, _VWAP] = vwaps.price[latest]
        self._last[changed, _TRADES] = vwaps.trades[latest]
        self._last[changed, _TIME] = timestamp[latest]
        for index in changed.tolist():
            self._lines[index] = b""
        return [self._symbols[index] for index in changed.tolist()]

    def _index_of(self, symbol: str) -> int:
        index = self._symbols.intern(symbol)
        if index == len(self._lines):
            self._lines.append(None)
        if index == len(self._last):
            self._last = np.concatenate([self._last, np.zeros_like(self._last)])
        return index
