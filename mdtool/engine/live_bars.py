"""Live bars: the newest bars of every symbol and several intervals, kept up to date tick by tick.

Source: the rules of Databento's OHLCV schemas, as in `mdtool.engine.bars`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdtool.core.errors import UsageError
from mdtool.core.units import format_duration
from mdtool.engine import live_bar_kernel as kernels
from mdtool.engine.bars import BAR, Bars
from mdtool.engine.saved_state import SAVED_BAR

Rows = NDArray[np.int64]
_FIRST_SYMBOLS: Final = 64
_FIRST_CHUNKS: Final = 64
_SAVED_COLUMNS: Final = len(SAVED_BAR.descr)
_SAVED_OPEN: Final = 2
_SAVED_KEYS: Final = 3
"""Columns of a saved bar before those that a row begins with, `is_open` the last of them."""
_ALL: Final = 2**63 - 1
_NOTHING_IS_SAVED: Final = 2**63 - 1
"""Higher than the number of any update: no bar is held until it is saved."""


class LiveBars:
    """The open bar and the last `keep` closed bars of every symbol and interval.

    A tick older than its symbol's open bar amends the bar that it belongs to, as long as that bar
    of the shortest interval ended less than `lateness_ns` before the symbol's latest tick;
    beyond, it is counted in `late` and left out of the bars of all intervals, so that bars of
    every interval always add up to those of the longer ones. A bar does not depend on the order in
    which its ticks arrived: its open is the price of the earliest, its close that of the latest;
    of ticks with the same time, the first and the last to arrive.

    Parameters
    ----------
    intervals_ns : sequence of int
        The lengths of the bars, in any order, all multiples of the shortest.
    keep : int
        How many closed bars each series keeps; memory grows with them.
    lateness_ns : int
        How long a bar of the shortest interval can still be amended after its end.
    """

    def __init__(self, intervals_ns: Sequence[int], keep: int = 1440, lateness_ns: int = 0) -> None:
        if not intervals_ns or min(intervals_ns) < 1 or keep < 1 or lateness_ns < 0:
            raise UsageError(
                "bars need intervals and a history above 0, and a lateness not below 0"
            )
        self.intervals_ns = tuple(sorted(set(intervals_ns)))
        if any(interval % self.intervals_ns[0] for interval in self.intervals_ns):
            raise UsageError("the intervals of bars are not all multiples of the shortest")
        self.keep = keep
        self.lateness_ns = lateness_ns
        self.step = 0
        """The number of the latest update."""
        # What can still be amended is held however little is to be kept.
        self._room = max(keep, lateness_ns // self.intervals_ns[0] + 2)
        self._saved = _NOTHING_IS_SAVED
        self._intervals = np.array(self.intervals_ns, np.int64)
        self._newest = np.zeros((0, kernels.COLUMNS), np.int64)
        self._ends = np.zeros((0, 3), np.int64)
        self._pool = np.empty((_FIRST_CHUNKS * kernels.CHUNK, kernels.COLUMNS), np.int64)
        self._chunks = np.empty((_FIRST_CHUNKS, 2), np.int64)
        self._heap = np.array([0, -1], np.int64)
        self._late = np.zeros(1, np.int64)
        self._scratch = np.zeros((2, kernels.COLUMNS), np.int64)
        self._load_kernels()

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
        prices, volumes, times = (_input(each, np.int64) for each in (price, volume, ts_ns))
        if len(symbols):
            self._reserve(int(symbols.max()) + 1)
        self.step += 1
        taken = 0
        while True:
            taken = kernels.update(
                self._intervals,
                self.lateness_ns,
                self._room,
                self._saved,
                self._newest,
                self._ends,
                self._pool,
                self._chunks,
                self._heap,
                symbols,
                prices,
                volumes,
                times,
                taken,
                self.step,
                self._late,
                self._scratch,
            )
            if taken == len(symbols):
                return
            self._reserve_chunks(len(self._intervals))

    def history(self, symbol: int, interval_ns: int, limit: int, before_ns: int = 0) -> Bars:
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
        place = self._place(interval_ns)
        base = symbol * len(self.intervals_ns)
        if not self._have_traded(np.array([symbol])).all():
            return np.empty(0, BAR)
        before = before_ns or kernels.MAX_VOLUME
        limit = max(0, min(limit, self.keep + 1))
        open_ = np.empty((2, kernels.COLUMNS), np.int64)
        open_ = open_[: kernels.open_bars(self._intervals, self._newest, base, place, open_)]
        # What is held beyond that, for it is not saved yet, is nowhere else.
        kept = self.keep + 1 - len(open_) if self._saved == _NOTHING_IS_SAVED else _ALL
        k = base + place
        closed = np.empty(
            (min(limit, kept, int(self._ends[k, kernels.HELD])), kernels.COLUMNS), np.int64
        )
        closed = closed[
            : kernels.closed(self._ends, self._pool, self._chunks, k, kept, before, closed)
        ]
        rows = np.concatenate([open_[open_[:, kernels.START] < before], closed])[:limit]
        return _bars(np.full(len(rows), symbol), rows)

    def changed_since(self, step: int, symbols: NDArray[np.uint32], interval_ns: int) -> Bars:
        """Return the bars of symbols that updates after that of number `step` have changed.

        Parameters
        ----------
        step : int
            What `step` was when the caller looked last; 0 for a first look, which is answered by
            the newest bar of each symbol.
        symbols : u4[n]
            Whose bars, each once.
        interval_ns : int
            One of `intervals_ns`.

        Returns
        -------
        BAR[m]
            A copy, symbol by symbol, oldest first. Bars that are no longer kept are left out.

        Raises
        ------
        UsageError
            When there are no bars of that interval.
        """
        place = self._place(interval_ns)
        traded = _input(symbols[self._have_traded(symbols)], np.uint32)
        room = 2 * len(traded)
        while True:
            symbol, rows = np.empty(room, np.int64), np.empty((room, kernels.COLUMNS), np.int64)
            found = kernels.changed(
                self._intervals,
                self.lateness_ns,
                self.keep,
                self._newest,
                self._ends,
                self._pool,
                self._chunks,
                place,
                traded,
                step,
                symbol,
                rows,
                self._scratch,
            )
            if found <= room:
                return _bars(symbol[:found], rows[:found])
            room = found

    def saved_since(self, step: int, symbols: NDArray[np.uint32] | None = None) -> NDArray[np.void]:
        """Return the bars to be saved that updates after that of number `step` have touched.

        A call confirms that everything before `step` is saved: bars touched later are held, however
        many they are, until the next call. This starts with `restore`, also of no bars.

        Parameters
        ----------
        step : int
            What `step` was when the latest bars that are saved were returned; 0 for all bars.
        symbols : u4[n], optional
            Whose bars, each once: those that have traded since; by default all.

        Returns
        -------
        SAVED_BAR[m]
            Open and closed bars of all intervals, as they are held, in no order that means
            anything. A bar takes the place of one saved before with the same symbol, interval and
            start; an open one that of its series' former open bar.
        """
        if self._saved != _NOTHING_IS_SAVED:
            self._saved = max(self._saved, step)
        if symbols is None:
            symbols = np.arange(len(self._newest) // len(self.intervals_ns), dtype=np.uint32)
        traded = _input(symbols[self._have_traded(symbols)], np.uint32)
        room = 2 * len(self.intervals_ns) * len(traded)
        while True:
            keys, rows = np.empty((room, 3), np.int64), np.empty((room, kernels.COLUMNS), np.int64)
            found = kernels.touched(
                self._intervals,
                self.lateness_ns,
                self._newest,
                self._ends,
                self._pool,
                self._chunks,
                traded,
                step,
                keys,
                rows,
            )
            if found <= room:
                break
            room = found
        saved = np.empty(found, SAVED_BAR)
        columns = saved.view(np.int64).reshape(-1, _SAVED_COLUMNS)
        columns[:, :_SAVED_KEYS] = keys[:found]
        columns[:, _SAVED_KEYS:] = rows[:found, : kernels.CHANGED]
        return saved

    def restore(self, saved: NDArray[np.void], late: int = 0) -> None:
        """Restore bars that `saved_since` returned; from then on, bars are held until saved.

        Called before the first update.

        Parameters
        ----------
        saved : SAVED_BAR[m]
            Of each series the latest open bar, and closed ones without a gap up to the newest, in
            any order: at least those that ended less than the lateness before the symbol's latest
            bar. Those of intervals that are not kept are left out.
        late : int
            What `late` was.
        """
        saved = saved[np.isin(saved["interval_ns"], self._intervals)]
        place = np.searchsorted(self._intervals, saved["interval_ns"])
        series = saved["symbol"] * len(self._intervals) + place
        order = np.lexsort((saved["start_ns"], series))
        saved, series = saved[order], series[order]
        if len(saved):
            self._reserve(int(saved["symbol"].max()) + 1)
        closed = series[saved["is_open"] == 0]
        self._reserve_chunks(len(closed) // kernels.CHUNK + len(np.unique(closed)))
        columns = np.ascontiguousarray(saved).view(np.int64).reshape(-1, _SAVED_COLUMNS)
        kernels.restore(
            self._newest,
            self._ends,
            self._pool,
            self._chunks,
            self._heap,
            series,
            # Contiguous however many there are, or the kernel is compiled once more.
            np.ascontiguousarray(columns[:, _SAVED_OPEN]),
            np.ascontiguousarray(columns[:, _SAVED_KEYS:]),
            self.step,
        )
        self._late[0] = late
        self._saved = self.step
        # Loads the kernel, so that the first save is no slower than the next.
        self.saved_since(self.step)

    def _load_kernels(self) -> None:
        """Load the kernels, so that the first batch and the first answer are not slow."""
        self.update((), (), (), ())
        self.changed_since(0, np.empty(0, np.uint32), self.intervals_ns[0])
        rows, ends = np.zeros((1, kernels.COLUMNS), np.int64), np.zeros((1, 3), np.int64)
        kernels.open_bars(self._intervals, rows, 0, 0, rows.copy())
        kernels.closed(ends, self._pool, self._chunks, 0, 0, 0, rows)

    def _place(self, interval_ns: int) -> int:
        """Return the index of an interval."""
        if interval_ns not in self.intervals_ns:
            known = ", ".join(format_duration(i) for i in self.intervals_ns)
            raise UsageError(f"no bars of {format_duration(interval_ns)}: choose from {known}")
        return self.intervals_ns.index(interval_ns)

    def _have_traded(self, symbols: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        counts = self._newest[:: len(self.intervals_ns), kernels.COUNT]
        known = symbols < len(counts)
        known[known] = counts[symbols[known]] > 0
        return known

    def _reserve(self, symbols: int) -> None:
        """Make room for a number of symbols."""
        series = symbols * len(self.intervals_ns)
        if series <= len(self._newest):
            return
        series = max(series, 2 * len(self._newest), _FIRST_SYMBOLS * len(self.intervals_ns))
        self._newest = _extended(self._newest, series)
        self._ends = _extended(self._ends, series)

    def _reserve_chunks(self, chunks: int) -> None:
        """Make room for so many more chunks."""
        wanted = int(self._heap[kernels.TAKEN]) + chunks
        if wanted <= len(self._chunks):
            return
        wanted = max(wanted, 2 * len(self._chunks))
        self._chunks = _extended(self._chunks, wanted)
        self._pool = _extended(self._pool, wanted * kernels.CHUNK)


def _input(column: ArrayLike, dtype: type[np.generic]) -> NDArray[Any]:
    """Return a read-only, contiguous view: one kernel serves arrays and received buffers alike."""
    view = np.ascontiguousarray(column, dtype).view()
    view.flags.writeable = False
    return view


def _bars(symbol: NDArray[np.int64], rows: Rows) -> Bars:
    bars = np.empty(len(rows), BAR)
    columns = bars.view(np.int64).reshape(-1, len(BAR.descr))
    columns[:, 0] = symbol
    columns[:, 1:] = rows[:, : kernels.FIRST]
    return bars


def _extended(rows: Rows, length: int) -> Rows:
    larger = np.zeros((length, rows.shape[1]), np.int64)
    larger[: len(rows)] = rows
    return larger
