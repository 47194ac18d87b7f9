"""The best prices and the last trade of every instrument, from DBN records of any schema."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from mdtool.core.batch import Batch
from mdtool.core.dtypes import F_LAST, F_MAYBE_BAD_BOOK, MBO
from mdtool.core.records import Records, has_trades, index_timestamps, is_priced, is_trade
from mdtool.core.units import UNDEF_PRICE
from mdtool.engine.book.rebuild import Rebuild
from mdtool.engine.book.view import tops

QUOTE: Final = np.dtype(
    [
        ("instrument", "u4"),  # its index
        ("ts_recv", "i8"),  # ns
        ("bid", "i8"),  # 1e-9, UNDEF_PRICE where it is not known
        ("ask", "i8"),
        ("last", "i8"),
        ("is_partial", "?"),  # whether its book is: better prices may be missing
    ]
)
"""A quote of an instrument."""
PRICES: Final = ("bid", "ask", "last")
_COMPARED: Final = (*PRICES, "is_partial")

Quotes: TypeAlias = npt.NDArray[np.void]
"""An array of QUOTE."""
Rows: TypeAlias = npt.NDArray[np.intp]


def has_quotes(dtype: np.dtype[np.void]) -> bool:
    """Return whether records of this layout have best prices, or are orders that make them."""
    return dtype == MBO or "bid_px_00" in (dtype.names or ())


class LatestQuotes:
    """Maintains the latest quote of each instrument of a stream.

    Best prices are those of MBP and BBO records, or of the books that MBO records make; last prices
    are those of trades, and of BBO. Prices count at the end of an event, and at a trade: in the
    middle of an event they may be crossed.
    """

    def __init__(self) -> None:
        self._quotes = np.empty(0, QUOTE)
        self._rebuild = Rebuild()

    def update(self, batch: Batch) -> Quotes:
        """Take a stream's next records.

        Parameters
        ----------
        batch : Batch
            Those without trades or best prices change nothing.

        Returns
        -------
        QUOTE[m]
            Each instrument once that has another price than before, or traded again, or whose book
            is partial now or no longer. A copy.
        """
        records = batch.records
        dtype = records.dtype
        if not len(records) or not (has_trades(dtype) or has_quotes(dtype)):
            self._rebuild.update(batch)
            return np.empty(0, QUOTE)
        rows = batch.instrument.astype(np.intp)
        self._make_room(int(rows.max()) + 1)
        before = self._quotes.copy()
        has_traded = np.zeros(len(self._quotes), np.bool_)
        if not has_trades(dtype):
            self._take_samples(records, rows, has_traded)
        else:
            if dtype == MBO:
                self._rebuild.update(batch)
                self._take_books()
            elif has_quotes(dtype):
                is_whole = (records["flags"] & F_LAST != 0) | is_trade(records)
                self._take_levels(records, rows, is_whole)
            self._take_trades(records, rows, has_traded)
        is_changed = has_traded
        for name in _COMPARED:
            is_changed |= self._quotes[name] != before[name]
        return self._quotes[is_changed]

    def of(self, instruments: Rows) -> Quotes:
        """Return the latest quotes of instruments that have one, by their indices: copies."""
        return self._quotes[instruments]

    def _take_samples(
        self, records: Records, rows: Rows, has_traded: npt.NDArray[np.bool_]
    ) -> None:
        """Take BBO records: the best prices at a time, and the last trade before it."""
        is_sold = records["price"] != UNDEF_PRICE
        is_new = records["ts_event"].view(np.int64) > self._quotes["ts_recv"][rows]
        self._quotes["last"][rows[is_sold]] = records["price"][is_sold]
        has_traded[rows[is_sold & is_new]] = True
        self._take_levels(records, rows, np.ones(len(records), np.bool_))

    def _take_levels(self, records: Records, rows: Rows, is_whole: npt.NDArray[np.bool_]) -> None:
        # Where an index is repeated the last value stays, which is the latest.
        for name in ("bid", "ask"):
            self._quotes[name][rows[is_whole]] = records[f"{name}_px_00"][is_whole]
        is_doubtful = records["flags"][is_whole] & F_MAYBE_BAD_BOOK != 0
        self._quotes["is_partial"][rows[is_whole]] = is_doubtful
        self._quotes["ts_recv"][rows[is_whole]] = _times(records)[is_whole]

    def _take_books(self) -> None:
        found = tops(self._rebuild.books)
        rows = found["instrument"]
        for name in ("bid", "ask", "is_partial"):
            self._quotes[name][rows] = found[name]
        self._quotes["ts_recv"][rows] = found["ts_recv"]

    def _take_trades(self, records: Records, rows: Rows, has_traded: npt.NDArray[np.bool_]) -> None:
        prints = is_trade(records) & is_priced(records)
        traded = rows[prints]
        self._quotes["last"][traded] = records["price"][prints]
        np.maximum.at(self._quotes["ts_recv"], traded, _times(records)[prints])
        has_traded[traded] = True

    def _make_room(self, instruments: int) -> None:
        """Make room for so many instruments, each with the row of its index."""
        if instruments > len(self._quotes):
            unquoted = np.zeros(instruments - len(self._quotes), QUOTE)
            unquoted["instrument"] = np.arange(len(self._quotes), instruments)
            for name in PRICES:
                unquoted[name] = UNDEF_PRICE
            self._quotes = np.append(self._quotes, unquoted)


def _times(records: Records) -> npt.NDArray[np.int64]:
    """Return when each record was received, or took place where that is unknown."""
    times_ns = index_timestamps(records)
    is_undefined = times_ns < 0
    if is_undefined.any():
        return np.where(is_undefined, records["ts_event"].view(np.int64), times_ns)
    return times_ns
