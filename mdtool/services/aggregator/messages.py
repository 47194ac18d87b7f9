"""The market's state as messages of MarketDataService."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mdtool.core.symbols import SymbolMap, SymbolTable
from mdtool.core.trades import Reason
from mdtool.engine.market import Market
from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.aggregates import encode_aggregate
from mdtool.wire.batches import (
    BarColumns,
    BarUpdates,
    Counts,
    Updates,
    encode_bar_updates,
    encode_bars,
    encode_updates,
)


def aggregates(market: Market, symbols: NDArray[np.uint32]) -> Iterator[marketdata_pb2.Aggregate]:
    """Yield the sessions of symbols, a message each."""
    rows = market.sessions(symbols).tolist()
    for index, row in zip(symbols.tolist(), rows, strict=True):
        opened, high, low, close, volume, _, timestamp_ns, _ = row
        symbol = market.symbols[index]
        yield encode_aggregate(symbol, opened, high, low, close, volume, timestamp_ns)


def updates(
    market: Market, symbols: NDArray[np.uint32], known_symbols: int
) -> marketdata_pb2.UpdateBatch:
    """Return the sessions of symbols as columns, for a call that knows so many symbols already."""
    sessions = market.sessions(symbols)
    columns = {name: sessions[name] for name in sessions.dtype.names or ()}
    counts = Counts(
        ticks=market.counts.ticks,
        duplicates=market.counts.duplicates,
        late=market.bars.late,
        refused={reason.label: market.counts.refused[reason] for reason in Reason},
    )
    message = Updates(symbol=symbols, counts=counts, **columns)
    return encode_updates(message, market.symbols.since(known_symbols))


def bars(history: NDArray[np.void]) -> marketdata_pb2.Bars:
    """Return bars of one symbol, BAR[n], as columns."""
    return encode_bars(_columns(history))


class CallTable:
    """The symbol table of one call, which is extended by what its messages need."""

    def __init__(self, symbols: SymbolTable) -> None:
        self._table = SymbolTable()
        self._map = SymbolMap(symbols, self._table.intern)

    def extend(self, symbols: NDArray[np.int64]) -> tuple[NDArray[np.uint32], list[str]]:
        """Return the call's indices of the market's symbols, and those that are new to the call."""
        known = len(self._table)
        return self._map.map(symbols), self._table.since(known)


def bar_updates(changed: NDArray[np.void], table: CallTable) -> marketdata_pb2.BarUpdates:
    """Return bars of any symbols, BAR[n], as columns."""
    symbol, new_symbols = table.extend(changed["instrument"])
    return encode_bar_updates(BarUpdates(symbol, _columns(changed)), new_symbols)


def _columns(history: NDArray[np.void]) -> BarColumns:
    names = ("open", "high", "low", "close", "volume", "count")
    columns = {name: history[name] for name in names}
    return BarColumns(start=history["start_ns"], **columns)
