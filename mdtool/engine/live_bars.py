"""Live bars: the newest bars of every symbol and several intervals, kept up to date tick by tick.

Source: the rules under "Bars" that Databento's OHLCV schemas follow: buckets start at whole
multiples of the interval since the epoch, a bar's start is inclusive, an empty bucket is no bar.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdtool.core.errors import UsageError
from mdtool.core.units import format_duration
from mdtool.engine import live_bar_kernel as kernels

BAR: Final = np.dtype(
    [
        ("instrument", "i8"),  # whatever identifies it: a symbol's index, or publisher and id
        ("start_ns", "i8"),  # inclusive
        ("open", "i8"),  # 1e-9, like the other prices
        ("high", "i8"),
        ("low", "i8"),
        ("close", "i8"),
        ("volume", "i8"),
        ("count", "i8"),  # trades
    ]
)
_FIRST_SYMBOLS: Final = 64


class LiveBars:
    """The open bar and the last `keep` closed bars of every symbol and interval.

    A tick older than its symbol's open bar amends the bar that it belongs to, as long as that bar
    of the shortest interval ended no more than `lateness_ns` before the symbol's latest tick;
    beyond, it is counted in `late` and left out of the bars of all intervals, so that bars of
    every interval always add up to those of the longer ones. A bar does not depend on the order in
    which its ticks came: its open is the earliest's price, its close the latest's, and of ticks
    with the same time the first and the last to arrive.

    Parameters
    ----------
    intervals_ns : sequence of int
        The lengths of the bars, in any order.
    keep : int
        How many closed bars each series keeps; memory is taken as they come to be.
    lateness_ns : int
        How long a bar of the shortest interval can still be amended after its end.
    """

    def __init__(self, intervals_ns: Sequence[int], keep: int = 1440, lateness_ns: int = 0) -> None:
        if not intervals_ns or min(intervals_ns) < 1 or keep < 1 or lateness_ns < 0:
            raise UsageError("bars want intervals and a history longer than 0, and no lateness < 0")
        self.intervals_ns = tuple(sorted(set(intervals_ns)))
        self.keep = keep
        self.lateness_ns = lateness_ns
        self._intervals = np.array(self.intervals_ns, np.int64)
        self._newest = np.zeros((0, kernels.COLUMNS), np.int64)
        self._rings = np.zeros((0, 4), np.int64)
        self._pool = np.empty((self._headroom, kernels.COLUMNS), np.int64)
        self._heap = np.full(65, -1, np.int64)
        self._heap[0] = 0
        self._late = np.zeros(1, np.int64)
        # Loads the kernel, so that the first batch is no slower than the next.
        self.update((), (), (), ())

    @property
    def late(self) -> int:
        """How many ticks were left out for being too old."""
        return int(self._late[0])

    def update(
        self, symbol: ArrayLike, price: ArrayLike, volume: ArrayLike, ts_ns: ArrayLike
    ) -> None:
        """Take a batch of ticks.

        Parameters
        ----------
        symbol : u4[n]
            Dense indices of symbols; each new one adds to the memory that is held.
        price : i8[n]
            In units of 1e-9.
        volume : i8[n]
            Above 0. A bar's volume stops at the largest int64.
        ts_ns : i8[n]
            Nanoseconds since the epoch, in any order.
        """
        symbols = _input(symbol, np.uint32)
        columns = [_input(column, np.int64) for column in (price, volume, ts_ns)]
        if len(symbols):
            self._reserve(int(symbols.max()) + 1)
        taken = 0
        while True:
            taken = kernels.update(
                self._intervals,
                self.lateness_ns,
                self.keep,
                self._newest,
                self._rings,
                self._pool,
                self._heap,
                symbols,
                *columns,
                taken,
                self._late,
            )
            if taken == len(symbols):
                return
            larger = np.empty((2 * len(self._pool), kernels.COLUMNS), np.int64)
            larger[: len(self._pool)] = self._pool
            self._pool = larger

    def history(
        self, symbol: int, interval_ns: int, limit: int, before_ns: int = 0
    ) -> NDArray[np.void]:
        """Return the newest bars of a symbol, newest first.

        Parameters
        ----------
        symbol : int
            Its index; one that never traded has no bars.
        interval_ns : int
            One of `intervals_ns`.
        limit : int
            At most so many bars.
        before_ns : int
            Only bars that start before it; 0 means from the newest on, which may still be open.

        Returns
        -------
        BAR[m]
            A copy; `instrument` is the symbol.

        Raises
        ------
        UsageError
            When there are no bars of that interval.
        """
        if interval_ns not in self.intervals_ns:
            known = ", ".join(format_duration(i) for i in self.intervals_ns)
            raise UsageError(f"no bars of {format_duration(interval_ns)}: choose from {known}")
        series = symbol * len(self.intervals_ns) + self.intervals_ns.index(interval_ns)
        if series >= len(self._newest) or self._newest[series, kernels.COUNT] == 0:
            return np.empty(0, BAR)
        offset, capacity, head, held = self._rings[series]
        closed = offset + ((head + np.arange(held)[::-1]) & (capacity - 1))
        starts = self._pool[closed, kernels.START]
        rows = closed[starts < before_ns] if before_ns else closed
        newest = self._newest[series : series + 1]
        if not before_ns or newest[0, kernels.START] < before_ns:
            chosen = np.concatenate([newest, self._pool[rows[: max(limit - 1, 0)]]])[:limit]
        else:
            chosen = self._pool[rows[:limit]]
        bars = np.empty(len(chosen), BAR)
        columns = bars.view(np.int64).reshape(-1, len(BAR))
        columns[:, 0] = symbol
        columns[:, 1:] = chosen[:, : kernels.FIRST]
        return bars

    @property
    def _headroom(self) -> int:
        """How many pool rows one tick can take at most: every ring grown to its full size."""
        return len(self.intervals_ns) * max(kernels.FIRST_CAPACITY, 2 * self.keep)

    def _reserve(self, symbols: int) -> None:
        """Make room for so many symbols."""
        series = symbols * len(self.intervals_ns)
        if series <= len(self._newest):
            return
        series = max(series, 2 * len(self._newest), _FIRST_SYMBOLS * len(self.intervals_ns))
        self._newest = _extended(self._newest, series)
        self._rings = _extended(self._rings, series)


def _input(column: ArrayLike, dtype: type[np.generic]) -> NDArray[np.generic]:
    """Return a read-only, contiguous view: one kernel serves arrays and received buffers alike."""
    view = np.ascontiguousarray(column, dtype).view()
    view.flags.writeable = False
    return view


def _extended(rows: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    larger = np.zeros((length, rows.shape[1]), np.int64)
    larger[: len(rows)] = rows
    return larger
