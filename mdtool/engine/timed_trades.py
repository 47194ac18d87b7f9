"""The trades among DBN records, with the stream's time at each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mdtool.core.batch import Batch
from mdtool.core.dtypes import OHLCV
from mdtool.core.records import Records, is_priced, is_trade, timestamps
from mdtool.core.trades import Trades
from mdtool.core.units import UNDEF_PRICE

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
        times = timestamps(records, clock)
        traded = is_trade(records)
        is_defined = is_priced(records) & (times >= 0)
        taken = traded & is_defined
        rows = slice(None) if taken.all() else taken
        chosen = batch[rows]
        # A copy: kernels compile again for what is read-only, as a view of one record is.
        ts_ns = times[rows].astype(np.int64)
        if clock == "ts_recv":
            running = np.maximum.accumulate(times)
            seen_ns = running[rows]
        else:
            running = seen_ns = np.maximum.accumulate(ts_ns)
        trades = Trades(
            symbol=chosen.instrument,
            price=chosen.records["price"].astype(np.int64),
            size=chosen.records["size"].astype(np.int64),
            ts_event=timestamps(chosen.records, "ts_event"),
            ts_recv=timestamps(chosen.records, "ts_recv"),
        )
        return cls(
            trades=trades,
            ts_ns=ts_ns,
            seen_ns=seen_ns,
            latest_ns=int(running[-1]) if len(running) else -1,
            undefined=int(np.count_nonzero(traded & ~is_defined)),
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
