"""The trades among DBN records, with the stream's time at each."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mdtool.core.batch import Batch
from mdtool.core.dtypes import OHLCV
from mdtool.core.records import Records, timestamps
from mdtool.core.trades import Trades
from mdtool.core.units import UNDEF_PRICE
from mdtool.engine import timed_trades_kernel as kernels

Integers = NDArray[np.int64]

_MAX_VOLUME: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class TimedTrades:
    """Trades of a stream, and the stream's time by one of their clocks.

    Attributes
    ----------
    trades : Trades
        The n trades; `symbol` is the instrument's index.
    ts_ns : int64[n]
        Their time by the clock: `ts_recv` or `ts_event`.
    seen_ns : int64[n]
        The stream's time at each: the latest of all records up to and with it.
    latest_ns : int
        The latest time of all records, -1 without any.
    undefined : int
        How many trades were left out because their price, size or time is undefined, or their
        size is 0.
    records : structured array[n] or None
        The records of the trades, where they were DBN.
    """

    trades: Trades
    ts_ns: Integers
    seen_ns: Integers
    latest_ns: int
    undefined: int = 0
    records: Records | None = None

    def __len__(self) -> int:
        return len(self.ts_ns)

    @classmethod
    def of(cls, batch: Batch, clock: str = "ts_recv") -> Self:
        """Return the trades among MBO, trades or MBP records: those with action `T`.

        A bar stands for four trades at its start: one of its volume at its open, and others of
        size 0 at its high, low and close. Bars that are multiples of it are then exact. A bar
        without volume has no trade.

        Records that are not trades move the stream's time too if it is sorted by `clock`. It is not
        by `ts_event`, by which the time of an order must not make a trade late.

        Parameters
        ----------
        batch : Batch
            Of records for which `core.records.has_trades` holds, or of bars.
        clock : str
            `ts_recv` or `ts_event`.
        """
        records = batch.records
        if records.dtype == OHLCV:
            return cls._of_bars(batch)
        n = len(records)
        ts_ns, seen_ns, price, size = np.empty((4, n), np.int64)
        is_taken = np.empty(n, np.bool_)
        found = np.empty(2, np.int64)
        taken = kernels.split(
            batch.words,
            _layout(records.dtype, clock),
            clock == "ts_recv",
            ts_ns,
            seen_ns,
            price,
            size,
            is_taken,
            found,
        )
        chosen = batch if taken == n else batch[is_taken]
        trades = Trades(
            symbol=chosen.instrument,
            price=price[:taken],
            size=size[:taken],
            ts_event=timestamps(chosen.records, "ts_event"),
            ts_recv=timestamps(chosen.records, "ts_recv"),
        )
        is_any_seen = n > 0 if clock == "ts_recv" else taken > 0
        return cls(
            trades=trades,
            ts_ns=ts_ns[:taken],
            seen_ns=seen_ns[:taken],
            latest_ns=int(found[kernels.LATEST]) if is_any_seen else -1,
            undefined=int(found[kernels.UNDEFINED]),
            records=chosen.records,
        )

    @classmethod
    def _of_bars(cls, batch: Batch) -> Self:
        starts = timestamps(batch.records, "ts_event")
        is_defined = (starts >= 0) & (batch.records["close"] != UNDEF_PRICE)
        has_traded = batch.records["volume"] > 0
        chosen = batch[is_defined & has_traded]
        bars = chosen.records
        prices = np.stack([bars[name] for name in ("open", "high", "low", "close")], axis=1)
        sizes = np.zeros(prices.shape, np.int64)
        sizes[:, 0] = np.minimum(bars["volume"], np.uint64(_MAX_VOLUME))
        times = np.repeat(starts[is_defined & has_traded], len(prices.T)).astype(np.int64)
        symbol = np.repeat(chosen.instrument, len(prices.T))
        trades = Trades(symbol, prices.reshape(-1), sizes.reshape(-1), times, times)
        return cls(
            trades=trades,
            ts_ns=times,
            seen_ns=np.maximum.accumulate(times),
            latest_ns=int(starts.max(initial=-1)),
            undefined=int(np.count_nonzero(has_traded & ~is_defined)),
        )


@functools.cache
def _layout(dtype: np.dtype[np.void], clock: str) -> kernels.Layout:
    """Return where records have the fields of trades."""
    fields = dtype.fields
    assert fields is not None
    bits = {name: fields[name][1] * 8 for name in (clock, "price", "size", "action")}
    return kernels.Layout(
        width=dtype.itemsize // 8,
        ts=bits[clock] // 64,
        price=bits["price"] // 64,
        size=bits["size"] // 64,
        size_bit=bits["size"] % 64,
        action=bits["action"] // 64,
        action_bit=bits["action"] % 64,
    )
