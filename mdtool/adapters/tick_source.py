"""Where the ticks that a client sends come from: the port, and the one for DBN streams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.dbn_source import DerivedSource, RecordSource
from mdtool.core.records import Records, has_trades, index_timestamps, trades_of
from mdtool.core.symbols import SymbolTable
from mdtool.core.units import UNDEF_ORDER_SIZE, UNDEF_PRICE


@dataclass(frozen=True, slots=True)
class TickRun:
    """A run of ticks to send, in order.

    Attributes
    ----------
    symbols : SymbolTable
        What `symbol` points into; it may grow.
    symbol : uint32[n]
    price : int64[n]
        In units of 1e-9, above 0.
    volume : int64[n]
        Above 0.
    exchange_timestamp : int64[n]
        Nanoseconds since the epoch.
    due_ns : int64[n]
        By which the ticks are paced, nanoseconds of whatever epoch.
    """

    symbols: SymbolTable
    symbol: NDArray[np.uint32]
    price: NDArray[np.int64]
    volume: NDArray[np.int64]
    exchange_timestamp: NDArray[np.int64]
    due_ns: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.price)

    def part(self, start: int, stop: int) -> TickRun:
        """Return the ticks from `start` up to `stop`, exclusive, as views."""
        return TickRun(
            symbols=self.symbols,
            symbol=self.symbol[start:stop],
            price=self.price[start:stop],
            volume=self.volume[start:stop],
            exchange_timestamp=self.exchange_timestamp[start:stop],
            due_ns=self.due_ns[start:stop],
        )


class TickSource(Protocol):
    """Ticks in order, in runs as large as what has arrived."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def left_out(self) -> int:
        """How many trades were no ticks, for want of a price, a size or a time above 0."""
        ...

    @property
    def size_bytes(self) -> int | None:
        """How many bytes there are to read in all, None where that is not known."""
        ...

    @property
    def bytes_read(self) -> int:
        """How many of them have been read."""
        ...

    def __iter__(self) -> Iterator[TickRun]:
        """Yield runs, none of them empty; raise InputError where the source breaks off."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


class DbnTicks(DerivedSource):
    """The trades of a DBN stream as ticks.

    Parameters
    ----------
    source : RecordSource
        Its trades, and the `T` records of its MBO and MBP, are taken. Closed together with this.
    """

    def __init__(self, source: RecordSource) -> None:
        super().__init__(source)
        self.left_out = 0

    def __iter__(self) -> Iterator[TickRun]:
        for records in self._source:
            if has_trades(records.dtype):
                trades = trades_of(records)
                run = _run(trades, *self._source.symbology.symbols_of(trades))
                self.left_out += len(trades) - len(run)
                if len(run):
                    yield run


def _run(trades: Records, symbol: NDArray[np.uint32], symbols: SymbolTable) -> TickRun:
    """Return trades as ticks, without those that have no price, size or time above 0."""
    times = trades["ts_event"].view(np.int64)
    is_tick = (trades["price"] > 0) & (trades["price"] != UNDEF_PRICE) & (times > 0)
    is_tick &= (trades["size"] > 0) & (trades["size"] != UNDEF_ORDER_SIZE)
    trades = trades[is_tick]
    return TickRun(
        symbols=symbols,
        symbol=symbol[is_tick],
        price=trades["price"],
        volume=trades["size"].astype(np.int64),
        exchange_timestamp=trades["ts_event"].view(np.int64),
        due_ns=index_timestamps(trades),
    )
