"""From DBN records with trades among them to DBN records of the VWAP after each trade."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from mdtool.core.dtypes import (
    RTYPE_STATISTICS,
    STAT_TYPE_VWAP,
    STAT_UPDATE_NEW,
    STATISTICS,
    SYMBOL_MAPPING,
    record_length,
)
from mdtool.core.instruments import Batch
from mdtool.core.records import Records, has_trades
from mdtool.core.units import UNDEF_TIMESTAMP
from mdtool.engine.timed_trades import TimedTrades
from mdtool.engine.vwap import RollingVwap, Vwaps, Window

_SLICE_RECORDS: Final = 8_192
"""As many are taken at a time as stay in a core's own cache, with all that is made of them."""
_BLANK: Final = np.zeros(1, STATISTICS)
_BLANK["length"] = record_length(STATISTICS)
_BLANK["rtype"] = RTYPE_STATISTICS
_BLANK["ts_ref"] = UNDEF_TIMESTAMP
_BLANK["stat_type"] = STAT_TYPE_VWAP
_BLANK["update_action"] = STAT_UPDATE_NEW
_COPIED: Final = (
    "publisher_id",
    "instrument_id",
    "ts_event",
    "ts_recv",
    "ts_in_delta",
    "sequence",
)
"""What a statistic has of the trade that it follows."""


class VwapStream:
    """Takes a stream of records as it comes and gives a statistic for each trade.

    Parameters
    ----------
    window : Window
        Of each publisher's instrument.
    clock : str
        By which of a record's times: `ts_recv` or `ts_event`.

    Attributes
    ----------
    trades : int
        How many trades were taken, late ones too.
    undefined : int
        How many trades were left out for having no price, size or time.
    """

    def __init__(self, window: Window, clock: str = "ts_recv") -> None:
        self._windows = RollingVwap(window)
        self._clock = clock
        self.trades = 0
        self.undefined = 0

    @property
    def late(self) -> int:
        """How many trades were older than the window and left out."""
        return self._windows.late

    @property
    def early(self) -> int:
        """How many trades had to leave a window that can hold no more volume."""
        return self._windows.early

    def update(self, batch: Batch) -> Iterator[Batch]:
        """Take a stream's next records; yield those of the trades among them, if any.

        Symbol mappings are passed on, for they hold for the statistics too. Other records without
        trades are skipped.
        """
        if batch.records.dtype == SYMBOL_MAPPING:
            yield batch
        if not has_trades(batch.records.dtype):
            return
        for start in range(0, len(batch), _SLICE_RECORDS):
            timed = TimedTrades.of(batch[start : start + _SLICE_RECORDS], self._clock)
            trades = timed.trades
            self.trades += len(trades)
            self.undefined += timed.undefined
            if len(trades):
                vwaps = self._windows.update(trades.symbol, trades.price, trades.size, timed.ts_ns)
                is_in = vwaps.trades > 0
                made = Batch(_statistics(timed, vwaps), batch.instruments, trades.symbol)
                yield made if is_in.all() else made[is_in]


def _statistics(timed: TimedTrades, vwaps: Vwaps) -> Records:
    """Return a STATISTICS of stat_type VWAP for each trade, with its times.

    `price` is the VWAP, `quantity` the volume that it is of.
    """
    source = timed.records
    assert source is not None
    made = np.empty(len(source), STATISTICS)
    # As words it is filled in a quarter of the time.
    made.view(np.int64).reshape(len(source), -1)[:] = _BLANK.view(np.int64)
    for name in _COPIED:
        made[name] = source[name]
    made["price"] = vwaps.price
    made["quantity"] = vwaps.volume
    return made
