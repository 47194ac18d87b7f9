"""The trades among DBN records, with the stream's time at each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mdtool.core.batch import Batch
from mdtool.core.records import Records, is_priced, is_trade, timestamps
from mdtool.core.trades import Trades

Integers = NDArray[np.int64]


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

        Records that are not trades move the stream's time too if it is sorted by `clock`. It is not
        by `ts_event`, by which the time of an order must not make a trade late.

        Parameters
        ----------
        batch : Batch
            Of records for which `core.records.has_trades` holds.
        clock : str
            `ts_recv` or `ts_event`.
        """
        records = batch.records
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
