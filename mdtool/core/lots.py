"""Lots: sizes are whole numbers of them, and those of one table become those of another."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Frames, Reason

_MAX_SIZE: Final = 2**63 - 1


class LotConverter:
    """Converts sizes that are in a peer's lots to the lots of a table.

    Parameters
    ----------
    symbols : SymbolTable
        Gets the lots of those of its symbols that have none yet.
    """

    def __init__(self, symbols: SymbolTable) -> None:
        self._symbols = symbols
        self._ratios: dict[int, tuple[int, int]] = {}
        """Of the symbols whose lots differ: what a size is multiplied with and divided by."""

    def take(self, index: int, lot: int) -> int:
        """Take a peer's lot of one of the symbols, in units of 1e-9, for frames from now on.

        Returns
        -------
        int
            The symbol's own lot, to which its sizes are converted.
        """
        own = self._symbols.give_lot(index, lot)
        self._ratios.pop(index, None)
        if own != lot:
            common = math.gcd(own, lot)
            self._ratios[index] = lot // common, own // common
        return own

    def convert(self, frames: Frames) -> Frames:
        """Return frames of these symbols with sizes in their own lots.

        Sizes that are no multiple of a lot, or too large as such, are refused for their volume.
        """
        if not self._ratios:
            return frames
        trades = frames.trades
        size, is_wrong = trades.size.copy(), np.zeros(len(trades), np.bool_)
        for index, (factor, divisor) in self._ratios.items():
            rows = np.flatnonzero(trades.symbol == index)
            whole, rest = np.divmod(size[rows], divisor)
            is_fit = (rest == 0) & (whole <= _MAX_SIZE // factor)
            is_wrong[rows] = ~is_fit
            size[rows[is_fit]] = whole[is_fit] * factor
        converted = frames.with_sizes(size)
        return converted.refuse(is_wrong, Reason.VOLUME) if is_wrong.any() else converted
