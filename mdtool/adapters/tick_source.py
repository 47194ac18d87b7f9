"""Sources of the ticks that a client sends: the port, and the one for DBN streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.dbn_source import DerivedSource, RecordSource
from mdtool.core.batch import Batch, LabelMap
from mdtool.core.records import has_trades, index_timestamps, is_priced
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import NamedTrades, Trades


class TickSource(Protocol):
    """Ticks in order, in batches as large as what has arrived, paced by their `ts_recv`."""

    @property
    def name(self) -> str:
        """Its name in messages."""
        ...

    @property
    def left_out(self) -> int:
        """How many trades were left out: without a price that may be sent, a size or a time."""
        ...

    @property
    def size_bytes(self) -> int | None:
        """How many bytes there are to read in all, None where unknown."""
        ...

    @property
    def bytes_read(self) -> int:
        """How many of them have been read."""
        ...

    def __iter__(self) -> Iterator[NamedTrades]:
        """Yield batches, none of them empty; raise InputError where the source breaks off."""
        ...

    def close(self) -> None:
        """Close its files."""
        ...


class DbnTicks(DerivedSource):
    """The trades of a DBN stream as ticks.

    Parameters
    ----------
    source : RecordSource
        Its trades are its trade records, and the `T` records of its MBO and MBP. Closed together
        with this one.
    any_price : bool
        Whether trades at 0 and below are ticks too.
    """

    def __init__(self, source: RecordSource, *, any_price: bool = False) -> None:
        super().__init__(source)
        self._any_price = any_price
        self.left_out = 0
        self._symbols = SymbolTable()
        self._map = LabelMap(self._symbols.intern)

    def __iter__(self) -> Iterator[NamedTrades]:
        for batch in self._source:
            if has_trades(batch.records.dtype):
                trades = batch.trades()
                ticks = _ticks_of(trades, self._map.map(trades), any_price=self._any_price)
                self._symbols.give_lots(trades.instruments.lots)
                self.left_out += len(trades) - len(ticks)
                if len(ticks):
                    yield NamedTrades(self._symbols, ticks)


def _ticks_of(batch: Batch, symbol: NDArray[np.uint32], *, any_price: bool) -> Trades:
    """Return the trades that are ticks as columns."""
    trades = batch.records
    is_tick = is_priced(trades) & (trades["ts_event"].view(np.int64) > 0)
    if not any_price:
        is_tick &= trades["price"] > 0
    trades = trades[is_tick]
    return Trades(
        symbol=symbol[is_tick],
        price=trades["price"],
        size=trades["size"].astype(np.int64),
        ts_event=trades["ts_event"].view(np.int64),
        ts_recv=index_timestamps(trades),
    )
