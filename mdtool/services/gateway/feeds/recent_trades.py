"""The last trades of all symbols, in memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdtool.core.symbols import SymbolMap, SymbolTable
from mdtool.core.trades import TradeRun, Trades
from mdtool.services.gateway.feeds.feed import ALL

_MAX_WAITING: Final = 1_024
"""Trades, or batches, that wait to be entered."""
_COLUMNS: Final = ("timestamp", "price", "size", "number")


class Trade(NamedTuple):
    """A trade: its exchange time in ns, its price at 1e-9, and its place in its ingest stream."""

    symbol: str
    timestamp: int
    price: int
    size: int
    stream: str
    number: int

    @property
    def sequence(self) -> str:
        """What identifies the trade."""
        return f"{self.stream}:{self.number}"


class RecentTrades:
    """The last trades of all symbols, in the order of their commits.

    A trade's position counts all trades before it.

    Parameters
    ----------
    size : int
        How many are kept.

    Attributes
    ----------
    symbols : SymbolTable
    total : int
        The position of the next trade.
    contiguous_from : int
        The position from which on no trade was missed.
    generation : int
        Tells the positions in this memory from those of another process.
    """

    def __init__(self, size: int) -> None:
        self.symbols = SymbolTable()
        self._map = SymbolMap(SymbolTable(), self.symbols.intern)
        self.generation = secrets.randbits(62)
        self.total = 0
        self.contiguous_from = 0
        self._size = size
        self._symbol = np.empty(size, np.int32)
        self._columns = {name: np.empty(size, np.int64) for name in _COLUMNS}
        self._stream = np.empty(size, object)
        self._waiting: list[TradeRun] = []
        """Batches of one table of symbols that are not entered yet."""
        self._n_waiting = 0
        self._oldest = 0
        """The position of the first trade since all were forgotten."""

    def begin(self) -> None:
        """Take note that trades before the next one may have been missed."""
        self.contiguous_from = self.total

    def clear(self) -> None:
        """Forget all trades."""
        self._enter()
        self._oldest = self.contiguous_from = self.total

    def append(self, run: TradeRun) -> None:
        """Append a batch. It is entered with others when trades are read, or many wait."""
        count = len(run.trades)
        if self._waiting and run.symbols is not self._waiting[-1].symbols:
            self._enter()
        self._waiting.append(run)
        self._n_waiting += count
        self.total += count
        if self._n_waiting >= _MAX_WAITING or len(self._waiting) >= _MAX_WAITING:
            self._enter()

    def indices(self, run: TradeRun) -> NDArray[np.uint32]:
        """Return the own index of each symbol of a batch that was appended, shape (n,)."""
        self._enter()
        return self._map.map(run.trades.symbol)

    def _enter(self) -> None:
        """Enter what waits: one batch of many ticks costs little more than one of one."""
        runs, self._waiting, self._n_waiting = self._waiting, [], 0
        if not runs:
            return
        trades = Trades.concatenate([run.trades for run in runs])
        if runs[0].symbols is not self._map.source:
            self._map = SymbolMap(runs[0].symbols, self.symbols.intern)
        own = self._map.map(trades.symbol)
        n = len(own)
        skipped = max(0, n - self._size)
        first = (self.total - n + skipped) % self._size
        if first + n - skipped <= self._size:
            places: slice | NDArray[np.intp] = slice(first, first + n - skipped)
        else:
            places = np.arange(first, first + n - skipped) % self._size
        streams = np.empty(len(runs), object)
        streams[:] = [run.stream_id for run in runs]
        streams = np.repeat(streams, [len(run.trades) for run in runs])
        number = np.concatenate(
            [run.first_sequence + run.frames.offset.astype(np.int64) for run in runs]
        )
        self._symbol[places] = own[skipped:]
        self._stream[places] = streams[skipped:]
        values = (trades.ts_event, trades.price, trades.size, number)
        for name, column in zip(_COLUMNS, values, strict=True):
            self._columns[name][places] = column[skipped:]

    def positions(
        self, symbol: str, chooses: Callable[[str], bool] | None = None
    ) -> NDArray[np.intp]:
        """Return the positions of a symbol's trades, or of those of all symbols chosen, rising."""
        self._enter()
        if symbol == ALL:
            positions = np.arange(max(self._oldest, self.total - self._size), self.total)
            if chooses is None:
                return positions
            chosen = np.array(list(map(chooses, self.symbols)), np.bool_)
            return positions[chosen[self._symbol[positions % self._size]]]
        index = self.symbols.find(symbol)
        if index is None:
            return np.empty(0, np.intp)
        return self._equal(self._symbol, index)

    def find(self, stream: str, number: int) -> int | None:
        """Return the position of the trade at a place in a stream."""
        self._enter()
        for position in self._equal(self._columns["number"], number).tolist():
            if self._stream[position % self._size] == stream:
                return int(position)
        return None

    def _equal(self, column: NDArray[np.integer], value: int) -> NDArray[np.intp]:
        """Return the positions at which a column has a value, rising."""
        places = np.flatnonzero(column[: min(self.total, self._size)] == value)
        positions = places + self.total // self._size * self._size
        positions[positions >= self.total] -= self._size
        return np.sort(positions[positions >= max(self._oldest, self.total - self._size)])

    def times(self, positions: NDArray[np.intp]) -> list[int]:
        """Return the exchange times of trades, in ns."""
        times: list[int] = self._columns["timestamp"][positions % self._size].tolist()
        return times

    def trades(self, positions: NDArray[np.intp]) -> list[Trade]:
        """Return trades one by one."""
        places = positions % self._size
        table = self.symbols
        symbols = [table[index] for index in self._symbol[places].tolist()]
        timestamp, price, size, number = (self._columns[name][places].tolist() for name in _COLUMNS)
        streams = self._stream[places].tolist()
        return list(map(Trade, symbols, timestamp, price, size, streams, number))
