"""Time bars of a stream of trades: they close, in order, as the stream's own time passes them.

Source: the rules of Databento's OHLCV schemas. Buckets start at whole multiples of the interval
since the epoch (so days are UTC), a bar's start is inclusive, an empty bucket is no bar.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mdtool.core.errors import UsageError
from mdtool.engine import bar_kernel as kernels
from mdtool.engine.trades import Trades

BAR: Final = np.dtype(
    [
        ("instrument", "i8"),  # whatever tells instruments apart: see `Trades`, or a symbol's index
        ("start_ns", "i8"),  # inclusive
        ("open", "i8"),  # 1e-9, like the other prices
        ("high", "i8"),
        ("low", "i8"),
        ("close", "i8"),
        ("volume", "i8"),
        ("count", "i8"),  # trades
    ]
)

Bars = NDArray[np.void]
_FIRST_ROWS: Final = 1024


class TimeBars:
    """The open bars of every instrument, and what closes of them.

    A bar closes, whatever its instrument, when the stream's latest time is `lateness_ns` past its
    end. A trade that comes after that is counted in `late` and left out. Up to then a bar does
    not depend on the order of arrival: its open is the earliest trade's price, its close the
    latest's, and of trades at the same time the first and the last to arrive.

    Parameters
    ----------
    interval_ns : int
        The length of the bars.
    lateness_ns : int
        How long after its end, in the stream's time, a bar stays open.
    """

    def __init__(self, interval_ns: int, lateness_ns: int = 0) -> None:
        if interval_ns < 1 or lateness_ns < 0:
            raise UsageError("bars want an interval longer than 0 and no lateness below 0")
        self.interval_ns = interval_ns
        self.lateness_ns = lateness_ns
        self._state = np.array([0, -1, 0, 0, 0], np.int64)
        self._rows = np.empty((0, kernels.COLUMNS), np.int64)
        self._make_room(_FIRST_ROWS)

    @property
    def late(self) -> int:
        """How many trades came after their bar had closed."""
        return int(self._state[kernels.LATE])

    def update(self, trades: Trades) -> Bars:
        """Take a batch of trades.

        Returns
        -------
        BAR[m]
            What closed, by start and then instrument; never before what an earlier call returned.
            However the stream is cut into batches, the sum of the results is the same.
        """
        closed = []
        taken = 0
        while True:
            taken = kernels.update(
                self.interval_ns,
                self.lateness_ns,
                self._rows,
                self._table,
                self._state,
                self._out,
                trades.instrument,
                trades.price,
                trades.size,
                trades.ts_ns,
                trades.seen_ns,
                taken,
            )
            closed.append(self._take_closed())
            if taken == len(trades):
                break
            if self._state[kernels.HELD] == len(self._rows):
                self._make_room(2 * len(self._rows))
        kernels.advance(
            self.interval_ns,
            self.lateness_ns,
            self._rows,
            self._table,
            self._state,
            self._out,
            trades.latest_ns,
        )
        closed.append(self._take_closed())
        return _in_order(np.concatenate(closed))

    def close_all(self) -> Bars:
        """Return the bars that are still open, by start and then instrument: the stream is over."""
        held = int(self._state[kernels.HELD])
        self._out[:held] = self._rows[:held, : kernels.RESULT_COLUMNS]
        self._state[kernels.HELD] = 0
        self._state[kernels.CLOSED] = held
        self._table[:] = -1
        return _in_order(self._take_closed())

    def _take_closed(self) -> NDArray[np.int64]:
        count = int(self._state[kernels.CLOSED])
        self._state[kernels.CLOSED] = 0
        return self._out[:count].copy()

    def _make_room(self, rows: int) -> None:
        """Make room for so many open bars, keeping those there are."""
        held = int(self._state[kernels.HELD])
        larger = np.empty((rows, kernels.COLUMNS), np.int64)
        larger[:held] = self._rows[:held]
        self._rows = larger
        self._table = np.full(2 * rows, -1, np.int64)
        self._out = np.empty((rows, kernels.RESULT_COLUMNS), np.int64)
        kernels.index_rows(self._rows, self._table, held)


def _in_order(rows: NDArray[np.int64]) -> Bars:
    order = np.lexsort((rows[:, kernels.INSTRUMENT], rows[:, kernels.START]))
    bars: NDArray[Any] = rows[order].reshape(-1).view(BAR)
    return bars
