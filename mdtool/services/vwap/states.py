"""The state of every symbol: the VWAP of its window and its latest trade, each encoded once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from mdtool.core.symbols import SymbolMap, SymbolTable
from mdtool.core.trades import NamedTrades, Trades
from mdtool.engine.vwap import RollingVwap, Window
from mdtool.wire.vwap_lines import VwapState, encode_state

STATES_AT_ONCE: Final = 1_000
"""States that are published in one turn of the event loop, where there are many: 4 ms."""
_FIRST_SYMBOLS: Final = 64
_FEW_TRADES: Final = 64
"""Up to which a dict finds the last trades sooner than a sort."""
_COLUMNS: Final = 5
_PRICE, _VOLUME, _VWAP, _TRADES, _TIME = range(_COLUMNS)


class States:
    """The states of all symbols.

    Parameters
    ----------
    window : Window
        Of each symbol, by exchange time.

    Attributes
    ----------
    window : Window
    """

    def __init__(self, window: Window) -> None:
        self.window = window
        self._windows = RollingVwap(window)
        self._symbols = SymbolTable()
        self._last = np.zeros((_FIRST_SYMBOLS, _COLUMNS), np.int64)
        self._lines: list[bytes | None] = []
        self._map = SymbolMap(SymbolTable(), self._index_of)
        self._known_lots = 0
        self._update(Trades.empty())  # loads the kernel, so that the first batch is not slower

    def __len__(self) -> int:
        return sum(line is not None for line in self._lines)

    @property
    def late(self) -> int:
        """How many trades were left out because they were older than their window."""
        return self._windows.late

    @property
    def early(self) -> int:
        """How many trades left their windows early because these were full."""
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
            line = self._lines[index] = encode_state(self._state(index))
        return line

    def states(self, symbols: Iterable[str]) -> list[VwapState]:
        """Return the states of symbols, each of which has one."""
        indices = map(self._symbols.find, symbols)
        return [self._state(index) for index in indices if index is not None]

    def apply(self, symbols: SymbolTable, trades: Trades) -> list[str]:
        """Apply trades, whose symbols are of a table; return the symbols whose state changed."""
        if symbols is not self._map.source:  # after a reconnect a feed has another table
            self._map = SymbolMap(symbols, self._index_of)
            self._known_lots = 0
        for index, lot in symbols.lots_since(self._known_lots):
            self._known_lots += 1
            self._symbols.give_lot(self._index_of(symbols[index]), lot)
        return self._update(trades.with_symbols(self._map.map(trades.symbol)))

    def restore(self, stored: NamedTrades) -> list[str]:
        """Replace all windows by those of stored trades; return the symbols that have any.

        The states of other symbols stay, but their windows are empty.
        """
        self._windows = RollingVwap(self.window)
        return self.apply(stored.symbols, stored.trades)

    def _update(self, trades: Trades) -> list[str]:
        symbol = trades.symbol.astype(np.int64)
        vwaps = self._windows.update(symbol, trades.price, trades.size, trades.ts_event)
        accepted = np.flatnonzero(vwaps.trades)
        # The state of a symbol is that of its last trade.
        if len(accepted) <= _FEW_TRADES:
            last = dict(zip(symbol[accepted].tolist(), accepted.tolist(), strict=True))
            changed, latest = np.array([*last]), np.array([*last.values()])
            if not last:
                return []
        else:
            changed, from_end = np.unique(symbol[accepted][::-1], return_index=True)
            latest = accepted[len(accepted) - 1 - from_end]
        self._last[changed, _PRICE] = trades.price[latest]
        self._last[changed, _VOLUME] = trades.size[latest]
        self._last[changed, _VWAP] = vwaps.price[latest]
        self._last[changed, _TRADES] = vwaps.trades[latest]
        self._last[changed, _TIME] = trades.ts_event[latest]
        for index in changed.tolist():
            self._lines[index] = b""
        return [self._symbols[index] for index in changed.tolist()]

    def _state(self, index: int) -> VwapState:
        price, volume, vwap, window, timestamp_ns = self._last[index].tolist()
        symbol, lot = self._symbols[index], self._symbols.lot(index)
        return VwapState(symbol, price, volume, vwap, window, timestamp_ns, lot)

    def _index_of(self, symbol: str) -> int:
        index = self._symbols.intern(symbol)
        if index == len(self._lines):
            self._lines.append(None)
        if index == len(self._last):
            self._last = np.concatenate([self._last, np.zeros_like(self._last)])
        return index
