"""The last trades of every book."""

from __future__ import annotations

from typing import Final

import numpy as np

from mdtool.core.instruments import Batch
from mdtool.core.records import Records, is_trade

TRADES_KEPT: Final = 64


class Tape:
    """Keeps the last `TRADES_KEPT` trades of each book that MBO records tell of."""

    def __init__(self) -> None:
        self._trades: dict[int, Records] = {}

    def add(self, batch: Batch) -> None:
        """Take the trades among MBO records, which are those with action `T`."""
        trades = batch[is_trade(batch.records)]
        if not len(trades):
            return
        for instrument in np.unique(trades.instrument).tolist():
            latest = trades.records[trades.instrument == instrument][-TRADES_KEPT:]
            known = self._trades.get(instrument, latest[:0])
            self._trades[instrument] = np.concatenate([known, latest])[-TRADES_KEPT:]

    def last(self, instrument: int, count: int) -> Records:
        """Return the last trades of a book, at most `count`, latest first, as MBO records."""
        if instrument not in self._trades:
            return np.empty(0, np.void)
        return self._trades[instrument][::-1][:count]
