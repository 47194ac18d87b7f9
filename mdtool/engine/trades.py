"""The trades of DBN records as the columns that bars are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mdtool.core.instruments import Batch, Indices
from mdtool.core.records import Records, is_trade, timestamps
from mdtool.core.units import UNDEF_ORDER_SIZE, UNDEF_PRICE

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trades:
    """A run of trades of a stream, one entry each in order of arrival.

    Attributes
    ----------
    instrument : uint32[n]
        The instrument's index.
    price : int64[n]
        In units of 1e-9.
    size : int64[n]
        0 or above.
    ts_ns : int64[n]
        When it happened, nanoseconds since the epoch, by the clock that was asked for.
    seen_ns : int64[n]
        The latest time in the run up to and with it, of trades and other records.
    latest_ns : int
        The latest time in the run, -1 when it has none.
    undefined : int
        How many trades of the run were left out because their price, size or time is DBN's
        "no value".
    records : structured array[n] or None
        The records that they were taken from, None where there were none.
    """

    instrument: Indices
    price: Integers
    size: Integers
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

        Time also goes on with records that are no trades, as long as the stream is sorted by
        `clock`. It is not by `ts_event`; there, an order's time must not make a trade late.

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
        is_defined = (
            (records["price"] != UNDEF_PRICE) & (records["size"] != UNDEF_ORDER_SIZE) & (times >= 0)
        )
        taken = traded & is_defined
        chosen = batch if taken.all() else batch[taken]
        ts_ns = times[taken]
        if clock == "ts_recv":
            running = np.maximum.accumulate(times)
            seen_ns = running[taken]
        else:
            running = seen_ns = np.maximum.accumulate(ts_ns)
        return cls(
            instrument=chosen.instrument,
            price=np.ascontiguousarray(chosen.records["price"]),
            size=chosen.records["size"].astype(np.int64),
            ts_ns=ts_ns,
            seen_ns=seen_ns,
            latest_ns=int(running[-1]) if len(running) else -1,
            undefined=int(np.count_nonzero(traded & ~is_defined)),
            records=chosen.records,
        )
