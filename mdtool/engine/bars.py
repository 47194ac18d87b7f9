"""Bars of a stream of trades: by time as the stream's own time passes them, or by what is traded.

Source: the rules of Databento's OHLCV schemas. A bar's start is inclusive, an empty bucket is no
bar.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mdtool.core.buckets import Buckets, EvenBuckets
from mdtool.core.errors import UsageError
from mdtool.core.instruments import with_room
from mdtool.engine import bar_kernel as kernels
from mdtool.engine import vwap_kernel as vwap_kernels
from mdtool.engine.timed_trades import TimedTrades

BAR: Final = np.dtype(
    [
        ("instrument", "i8"),  # its index
        ("start_ns", "i8"),  # inclusive
        ("open", "i8"),  # 1e-9, like the other prices
        ("high", "i8"),
        ("low", "i8"),
        ("close", "i8"),
        ("volume", "i8"),
        ("count", "i8"),  # trades
    ]
)

VWAP_BAR: Final = np.dtype([*BAR.descr, ("vwap", "i8")])
"""A bar with its VWAP at 1e-9, rounded half to even; UNDEF_PRICE without volume."""

Bars = NDArray[np.void]
MEASURES: Final = {
    "volume": kernels.BY_VOLUME,
    "ticks": kernels.BY_TICKS,
    "notional": kernels.BY_NOTIONAL,
}
_FIRST_ROWS: Final = 1024


class TimeBars:
    """The open bars of every instrument, and what closes of them.

    A bar closes, whatever its instrument, when the stream's latest time is `lateness_ns` past its
    end. A trade that comes after that is counted in `late` and left out. Up to then a bar does
    not depend on the order of arrival: its open is the earliest trade's price, its close the
    latest's, and of trades at the same time the first and the last to arrive.

    Parameters
    ----------
    buckets : Buckets or int
        The times of the bars; or their length, from whole multiples of it since the epoch on.
    lateness_ns : int
        How long after its end, in the stream's time, a bar stays open.
    has_vwap : bool
        Whether bars are VWAP_BAR instead of BAR.
    """

    def __init__(
        self, buckets: Buckets | int, lateness_ns: int = 0, *, has_vwap: bool = False
    ) -> None:
        if lateness_ns < 0:
            raise UsageError("bars need a lateness not below 0")
        self.buckets = EvenBuckets(buckets) if isinstance(buckets, int) else buckets
        self.lateness_ns = lateness_ns
        self._has_vwap = has_vwap
        self._sums = _sums(_FIRST_ROWS if has_vwap else 0)
        self._state = np.array([0, -1, 0, 0, 0], np.int64)
        self._rows = np.empty((_FIRST_ROWS, kernels.TIME_COLUMNS), np.int64)
        self._out = np.empty((_FIRST_ROWS, kernels.RESULT_COLUMNS), np.int64)
        self._latest_row = np.full(_FIRST_ROWS, -1, np.int64)

    @property
    def late(self) -> int:
        """How many trades came after their bar had closed."""
        return int(self._state[kernels.LATE])

    def update(self, timed: TimedTrades) -> Bars:
        """Take a batch of trades.

        Returns
        -------
        BAR[m]
            What closed, by start and then instrument; never before what an earlier call returned.
            However the stream is cut into batches, the sum of the results is the same.
        """
        trades = timed.trades
        self._latest_row = with_room(self._latest_row, trades.symbol, -1)
        closed = []
        taken = 0
        bounds = _bounds(self.buckets, timed.ts_ns)
        while True:
            taken = kernels.update_by_time(
                self.buckets.length_ns or 0,
                bounds,
                self.lateness_ns,
                self._rows,
                self._sums,
                self._latest_row,
                self._state,
                self._out,
                trades.symbol,
                trades.price,
                trades.size,
                timed.ts_ns,
                timed.seen_ns,
                taken,
            )
            closed.append(self._take_closed())
            if taken == len(trades):
                break
            if self._state[kernels.HELD] == len(self._rows):
                self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
                self._out = np.empty((len(self._rows), kernels.RESULT_COLUMNS), np.int64)
                if self._has_vwap:
                    self._sums = np.concatenate([self._sums, np.empty_like(self._sums)])
        kernels.advance(
            self.lateness_ns,
            self._rows,
            self._sums,
            self._latest_row,
            self._state,
            self._out,
            timed.latest_ns,
        )
        closed.append(self._take_closed())
        return self._in_order(np.concatenate(closed))

    def close_all(self) -> Bars:
        """Return the bars that are still open, by start and then instrument: the stream is over."""
        held = int(self._state[kernels.HELD])
        self._out[:held] = self._rows[:held, : kernels.RESULT_COLUMNS]
        self._state[kernels.HELD] = 0
        self._state[kernels.CLOSED] = held
        self._latest_row[:] = -1
        return self._in_order(self._take_closed())

    def _in_order(self, rows: NDArray[np.int64]) -> Bars:
        order = np.lexsort((rows[:, kernels.INSTRUMENT], rows[:, kernels.START]))
        return _as_bars(rows[order], has_vwap=self._has_vwap)

    def _take_closed(self) -> NDArray[np.int64]:
        count = int(self._state[kernels.CLOSED])
        self._state[kernels.CLOSED] = 0
        return self._out[:count].copy()


class Size(NamedTuple):
    """How much makes a bar.

    Attributes
    ----------
    measure : str
        `volume` (the sum of sizes), `ticks` (how many trades) or `notional` (the sum of price
        times size, a negative price counting as a positive one).
    amount : Decimal
        Above 0; whole but for `notional`, which takes nine decimals.
    """

    measure: str
    amount: Decimal

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the size that a text like `volume=1000` or `notional=1e6` names.

        Raises
        ------
        UsageError
            When it is not a valid size.
        """
        measure, _, number = text.partition("=")
        if measure not in MEASURES:
            raise UsageError(f"{text!r}: bars are by {', '.join(MEASURES)}, such as volume=1000")
        try:
            amount = Decimal(number)
            billionths = amount.scaleb(9)
            decimals = 9 if measure == "notional" else 0
            fits = 0 < amount < 2**63 and amount == round(amount, decimals)
        except (ArithmeticError, ValueError) as error:
            raise UsageError(f"{text!r}: {number!r} is not a number") from error
        if not fits or billionths < 1:
            kind = "a number with at most nine decimals" if decimals else "a whole number"
            raise UsageError(f"{text!r}: expects {kind} above 0")
        return cls(measure, amount)


class SizedBars:
    """Bars that each close with the trade that brings them to a size; trades are never split.

    A bar's `start_ns` is the time of its first trade; its open and close are its first and its
    last trade in order of arrival.

    Parameters
    ----------
    size : Size
        What makes a bar full.
    has_vwap : bool
        Whether bars are VWAP_BAR instead of BAR.
    """

    def __init__(self, size: Size, *, has_vwap: bool = False) -> None:
        self.size = size
        self._has_vwap = has_vwap
        self._sums = _sums(0)
        whole = int(size.amount)
        self._limit = (MEASURES[size.measure], whole, int((size.amount - whole).scaleb(9)))
        self._rows = np.zeros((0, kernels.SIZE_COLUMNS), np.int64)

    def update(self, timed: TimedTrades) -> Bars:
        """Take a batch of trades; return the bars that closed, BAR[m], in order of closing."""
        trades = timed.trades
        self._rows = with_room(self._rows, trades.symbol, 0)
        if self._has_vwap:
            self._sums = with_room(self._sums, trades.symbol, 0)
        out = np.empty((len(trades), kernels.RESULT_COLUMNS), np.int64)
        closed = kernels.update_by_size(
            *self._limit,
            self._rows,
            self._sums,
            out,
            trades.symbol,
            trades.price,
            trades.size,
            timed.ts_ns,
        )
        return _as_bars(out[:closed], has_vwap=self._has_vwap)

    def close_all(self) -> Bars:
        """Return the bars that are not full yet, by instrument: the stream is over."""
        open_ = self._rows[self._rows[:, kernels.COUNT] > 0, : kernels.RESULT_COLUMNS]
        self._rows[:, kernels.COUNT] = 0
        return _as_bars(open_, has_vwap=self._has_vwap)


def _as_bars(rows: NDArray[np.int64], *, has_vwap: bool) -> Bars:
    dtype = VWAP_BAR if has_vwap else BAR
    columns = np.ascontiguousarray(rows[:, : dtype.itemsize // rows.itemsize])
    bars: NDArray[Any] = columns.reshape(-1).view(dtype)
    return bars


def _sums(rows: int) -> NDArray[np.int64]:
    """Return the sums of so many bars; none where bars have no VWAP."""
    return np.zeros((rows, vwap_kernels.COLUMNS), np.int64)


def _bounds(buckets: Buckets, ts_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    if buckets.length_ns or not len(ts_ns):
        return np.empty(0, np.int64)
    return buckets.bounds(int(ts_ns.min()), int(ts_ns.max()))
