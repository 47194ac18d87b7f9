"""The last trades of every book."""

from __future__ import annotations

from typing import Final

import numpy as np

from mdtool.core.records import Records, is_trade
from mdtool.engine.book.state import BookKey

TRADES_KEPT: Final = 64


class Tape:
    """Keeps the last `TRADES_KEPT` trades of each book that MBO records tell of."""

    def __init__(self) -> None:
        self._trades: dict[BookKey, Records] = {}

    def add(self, records: Records) -> None:
        """Take the trades among MBO records, which are those with action `T`."""
        trades = records[is_trade(records)]
        if not len(trades):
            return
        publishers = trades["publisher_id"].astype(np.int64)
        packed = trades["instrument_id"].astype(np.int64) << 16 | publishers
        for value in np.unique(packed).tolist():
            key = BookKey(value & 0xFFFF, value >> 16)
            latest = trades[packed == value][-TRADES_KEPT:]
            known = self._trades.get(key, latest[:0])
            self._trades[key] = np.concatenate([known, latest])[-TRADES_KEPT:]

    def last(self, key: BookKey, count: int) -> Records:
        """Return the last trades of a book, at most `count`, latest first, as MBO records."""
        return self._trades[key][::-1][:count] if key in self._trades else np.empty(0, np.void)
