"""Bars by volume, ticks or notional: as long as it takes to trade so much."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mdtool.core.errors import UsageError
from mdtool.engine import sized_bar_kernel as kernels
from mdtool.engine.bars import BAR, Bars
from mdtool.engine.trades import Trades

MEASURES: Final = {
    "volume": kernels.BY_VOLUME,
    "ticks": kernels.BY_TICKS,
    "notional": kernels.BY_NOTIONAL,
}
_FIRST_ROWS: Final = 256


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
        """Return the size that a text like `volume=1000` or `notional=1e6` says.

        Raises
        ------
        UsageError
            When it says none.
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
            raise UsageError(f"{text!r}: wants {kind} above 0")
        return cls(measure, amount)


class SizedBars:
    """Bars that each close with the trade that brings them to a size; trades are never split.

    A bar's `start_ns` is the time of its first trade; its open and close are its first and its
    last trade in order of arrival.

    Parameters
    ----------
    size : Size
        What makes a bar full.
    """

    def __init__(self, size: Size) -> None:
        self.size = size
        whole = int(size.amount)
        self._limit = (MEASURES[size.measure], whole, int((size.amount - whole).scaleb(9)))
        self._state = np.zeros(2, np.int64)
        self._rows = np.empty((0, kernels.COLUMNS), np.int64)
        self._make_room(_FIRST_ROWS)

    def update(self, trades: Trades) -> Bars:
        """Take a batch of trades; return the bars that closed, BAR[m], in order of closing."""
        out = np.empty((len(trades), kernels.RESULT_COLUMNS), np.int64)
        taken = 0
        while True:
            taken = kernels.update(
                *self._limit,
                self._rows,
                self._table,
                self._state,
                out,
                trades.instrument,
                trades.price,
                trades.size,
                trades.ts_ns,
                taken,
            )
            if taken == len(trades):
                break
            self._make_room(2 * len(self._rows))
        closed = int(self._state[kernels.CLOSED])
        self._state[kernels.CLOSED] = 0
        return _bars(out[:closed])

    def close_all(self) -> Bars:
        """Return the bars that are not full yet, by instrument: the stream is over."""
        held = self._rows[: self._state[kernels.HELD]]
        open_ = held[held[:, kernels.COUNT] > 0]
        order = np.argsort(open_[:, kernels.INSTRUMENT])
        bars = _bars(open_[order, : kernels.RESULT_COLUMNS])
        held[:, kernels.COUNT] = 0
        return bars

    def _make_room(self, rows: int) -> None:
        """Make room for so many instruments, keeping those there are."""
        held = int(self._state[kernels.HELD])
        larger = np.empty((rows, kernels.COLUMNS), np.int64)
        larger[:held] = self._rows[:held]
        self._rows = larger
        self._table = np.full(2 * rows, -1, np.int64)
        for row in range(held):
            instrument = int(larger[row, kernels.INSTRUMENT])
            self._table[kernels.find(larger, self._table, instrument)] = row


def _bars(rows: NDArray[np.int64]) -> Bars:
    bars: NDArray[Any] = np.ascontiguousarray(rows).reshape(-1).view(BAR)
    return bars
