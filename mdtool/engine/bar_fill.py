"""Bars for the empty buckets between the trades of an instrument."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.core.errors import UsageError
from mdtool.engine.bars import BAR, Bars

Integers = NDArray[np.int64]

FILLS: Final = ("none", "prev", "zero")
_BLOCK: Final = 65_536


class GapFill:
    """Adds the bars of empty buckets, and remembers where each instrument stood.

    A gap is filled when the bar after it has closed, so an instrument's first bar follows and its
    last is followed by none. Fillers come right before the bar that ends their gap: each
    instrument's bars stay in order of start.

    Parameters
    ----------
    mode : str
        `none`: no filler. `prev`: open, high, low and close are the last close, volume is 0.
        `zero`: all are 0.
    interval_ns : int
        The length of the bars.
    """

    def __init__(self, mode: str, interval_ns: int) -> None:
        if mode not in FILLS:
            raise UsageError(f"no fill {mode!r}; choose from {', '.join(FILLS)}")
        self.mode = mode
        self.interval_ns = interval_ns
        self._last: dict[int, tuple[int, int]] = {}

    def expand(self, bars: Bars) -> Iterator[Bars]:
        """Yield the bars with their fillers, in blocks of a bounded size however long a gap is.

        Parameters
        ----------
        bars : BAR[n]
            Each instrument's in order of start, later than those of earlier calls.
        """
        if self.mode == "none" or not len(bars):
            yield bars
            return
        starts, closes = self._before(bars)
        gaps = (bars["start_ns"] - starts) // self.interval_ns - 1
        ends = np.cumsum(gaps + 1)
        for begin in range(0, int(ends[-1]), _BLOCK):
            position = np.arange(begin, min(begin + _BLOCK, int(ends[-1])))
            bar = np.searchsorted(ends, position, side="right")
            block = bars[bar]
            is_filler = position < ends[bar] - 1
            of = bar[is_filler]
            fillers = np.zeros(len(of), BAR)
            fillers["instrument"] = bars["instrument"][of]
            nth = position[is_filler] - (ends[of] - gaps[of] - 1)
            fillers["start_ns"] = starts[of] + (nth + 1) * self.interval_ns
            if self.mode == "prev":
                for price in ("open", "high", "low", "close"):
                    fillers[price] = closes[of]
            block[is_filler] = fillers
            yield block

    def _before(self, bars: Bars) -> tuple[Integers, Integers]:
        """Return the start and close of the bar before each; a first bar has one right before."""
        starts = np.empty(len(bars), np.int64)
        closes = np.empty(len(bars), np.int64)
        order = np.argsort(bars["instrument"], kind="stable")
        instrument = bars["instrument"][order]
        starts[order[1:]] = bars["start_ns"][order[:-1]]
        closes[order[1:]] = bars["close"][order[:-1]]
        is_first = np.concatenate([[True], instrument[1:] != instrument[:-1]])
        for bar in order[is_first].tolist():
            fresh = (int(bars["start_ns"][bar]) - self.interval_ns, 0)
            starts[bar], closes[bar] = self._last.get(int(bars["instrument"][bar]), fresh)
        for bar in order[np.roll(is_first, -1)].tolist():
            row = bars[bar]
            self._last[int(row["instrument"])] = (int(row["start_ns"]), int(row["close"]))
        return starts, closes
