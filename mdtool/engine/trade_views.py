"""Which records of a stream count as its trades, where several views show each trade."""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.core.batch import Batch
from mdtool.core.dtypes import (
    RTYPE_CMBP1,
    RTYPE_MBO,
    RTYPE_MBP1,
    RTYPE_MBP10,
    RTYPE_OHLCV_1D,
    RTYPE_OHLCV_1H,
    RTYPE_OHLCV_1M,
    RTYPE_OHLCV_1S,
    RTYPE_TCBBO,
    RTYPE_TRADE,
)
from mdtool.core.instruments import Indices, with_room
from mdtool.core.records import index_timestamps, is_trade
from mdtool.core.units import NS_PER_DAY, NS_PER_S
from mdtool.engine import trade_view_kernel as v

TRADE_VIEWS: Final = (
    RTYPE_TRADE,
    RTYPE_MBO,
    RTYPE_TCBBO,
    RTYPE_MBP1,
    RTYPE_CMBP1,
    RTYPE_MBP10,
)
"""The rtypes whose records show trades, the preferred ones first. Records of tbbo are as those of
mbp-1."""
CADENCES: Final = {
    RTYPE_OHLCV_1S: NS_PER_S,
    RTYPE_OHLCV_1M: 60 * NS_PER_S,
    RTYPE_OHLCV_1H: 3_600 * NS_PER_S,
    RTYPE_OHLCV_1D: NS_PER_DAY,
}
"""The length of bars by their rtype. Bars show what was traded too; short ones are preferred."""
VIEWS: Final = (*TRADE_VIEWS, *CADENCES)
_RANKS: Final = {rtype: len(VIEWS) - place for place, rtype in enumerate(VIEWS)}


class TradeViews:
    """Counts each trade of a stream once.

    Of an instrument, at one publisher and on one UTC date, the view counts that is preferred among
    those that have come. When a preferred one comes after another has counted, it counts what lies
    outside the time which that one had covered: no trade is counted twice. What the views are is
    thus not known in advance, and a stream gives the same wherever it is cut.

    Attributes
    ----------
    counted, left_out : Counter
        How many trades, or bars, of each rtype were counted, and were not because another view
        shows them.
    """

    def __init__(self) -> None:
        self.counted: Counter[int] = Counter()
        self.left_out: Counter[int] = Counter()
        self._state = np.zeros((0, v.V_WIDTH), np.int64)
        self._row_of: dict[int, int] = {}

    @property
    def rtypes(self) -> list[int]:
        """The views that have come, the preferred one first."""
        met = self.counted.keys() | self.left_out.keys()
        return [rtype for rtype in VIEWS if rtype in met]

    @property
    def shown(self) -> list[int]:
        """Those of them that have shown a trade: quotes and orders alone are no view of any."""
        return [rtype for rtype in self.rtypes if self.counted[rtype] or self.left_out[rtype]]

    @property
    def later(self) -> int:
        """How many of those left out came after the last of their instrument that was counted."""
        return int(self._state[:, [v.V_AFTER, v.V_LOST]].sum())

    def choose(self, batch: Batch, view: int | None = None) -> Batch:
        """Return the records of a batch that count, as `count` does.

        Returns
        -------
        Batch
            Where the stream has one view alone, the batch itself, with the records that are not
            trades. Otherwise those of trades alone, perhaps none: the views of one stream need not
            be in one order, and a quote must not make the trade before it late.
        """
        rtype = batch.rtype if view is None else view
        left_out = self.left_out[rtype]
        is_counted = self.count(batch, view)
        if self.left_out[rtype] == left_out and len(self.rtypes) == 1:
            return batch
        return batch[is_counted]

    def count(self, batch: Batch, view: int | None = None) -> npt.NDArray[np.bool_]:
        """Return which records of a batch are trades, or bars, that count, shape (n,).

        Parameters
        ----------
        batch : Batch
            The stream's next records of one of the views.
        view : int, optional
            Their view, where it is not their rtype.
        """
        rtype = batch.rtype if view is None else view
        is_counted = np.ones(len(batch), np.bool_)
        if rtype in TRADE_VIEWS:
            is_counted = is_trade(batch.records)
        shown = batch if is_counted.all() else batch[is_counted]
        ts_ns = index_timestamps(shown.records)
        row = self._rows(shown)
        self._state = with_room(self._state, row, 0)
        marks = np.empty(len(shown), np.bool_)
        until_ns = ts_ns + CADENCES.get(rtype, 0)
        count = int(v.count_once(row, ts_ns.copy(), until_ns, _RANKS[rtype], self._state, marks))
        self.counted[rtype] += count
        self.left_out[rtype] += len(shown) - count
        is_counted[is_counted] = marks
        return is_counted

    def _rows(self, batch: Batch) -> Indices:
        """Return a number for each record's instrument and publisher."""
        if not batch.instruments.consolidates:
            return batch.instrument
        publishers = batch.records["publisher_id"].astype(np.int64)
        keys, places = np.unique(publishers << 32 | batch.instrument, return_inverse=True)
        rows = [self._row_of.setdefault(key, len(self._row_of)) for key in keys.tolist()]
        numbered: npt.NDArray[np.uint32] = np.array(rows, np.uint32)[places]
        return numbered
