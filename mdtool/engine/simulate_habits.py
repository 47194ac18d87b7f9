"""What the synthetic exchange's instruments and orders look like: tables that random bits index.

A table holds each value as often as it is common, so that a kernel picks with a mask and a load.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.core.units import NS_PER_S, PRICE_SCALE
from mdtool.engine.simulate_kernel import (
    BOOK,
    FRACTION_BITS,
    GAP_FRACTION_BITS,
    Habits,
)

TICK: Final = PRICE_SCALE // 100
"""The price of a tick, at 1e-9."""
VOLATILITY: Final = 1e-5
"""Standard deviation of what an event changes in the fair value, as a part of the price."""

_PRICES_IN_TICKS: Final = {
    "AAPL": 24_385,
    "MSFT": 41_858,
    "GOOG": 19_063,
    "AMZN": 22_022,
    "TSLA": 37_928,
}
_ODD_LOTS: Final = {1: 4, 2: 2, 5: 3, 10: 5, 20: 3, 25: 3, 30: 2, 40: 2, 50: 6, 75: 2, 80: 1}
_ROUND_LOTS: Final = {100: 46, 200: 12, 300: 5, 400: 3, 500: 4, 600: 1, 800: 1, 1000: 2, 2000: 1}
_OFFSETS: Final = {ticks: (1 + ticks) ** -1.3 for ticks in range(40)}
_PICKS: Final = 1024
_UNIFORM_SUM_DEVIATION: Final = math.sqrt(4 / 12)
"""Standard deviation of the sum of four uniform numbers from 0 to 1."""
_GAP_SHAPE: Final = 1.5
"""The power of an exponential gap; above 1, events come in bursts."""
_UNIT: Final = 1 << 20


def habits(symbol_count: int, rate: float) -> Habits:
    """Return the tables of a market with so many instruments and `rate` events a second."""
    ranks = range(symbol_count)
    picks = max(_PICKS, 1 << (16 * symbol_count).bit_length())
    return Habits(
        books=_table({rank: 1 / (rank + 3) for rank in ranks}, picks),
        gaps=_gaps(rate),
        offsets=_table(_OFFSETS, _PICKS),
        sizes=_table(_ODD_LOTS | _ROUND_LOTS, _PICKS),
    )


def empty_books(symbols: Sequence[str]) -> npt.NDArray[np.void]:
    """Return each symbol's book as it is before the market opens.

    Prices of symbols that are not well known are made up, from 20 to 500, always the same ones.
    """
    books = np.zeros(len(symbols), BOOK)
    for index, symbol in enumerate(symbols):
        ticks = _PRICES_IN_TICKS.get(symbol, 2_000 + zlib.crc32(symbol.encode()) % 48_000)
        deviation = ticks * VOLATILITY * (1 << FRACTION_BITS)
        book = books[index]
        book["instrument_id"] = index + 1
        book["tick"] = TICK
        book["anchor"] = book["fair"] = (2 * ticks + 1) << (FRACTION_BITS - 1)
        book["volatility"] = round(deviation / _UNIFORM_SUM_DEVIATION)
    return books


def _table(weights: Mapping[int, float], picks: int) -> npt.NDArray[np.int64]:
    """Return `picks` values in which each is as common as its weight says."""
    values = np.array(list(weights), np.int64)
    shares = np.cumsum(list(weights.values())) / math.fsum(weights.values())
    at = np.searchsorted(shares, (np.arange(picks) + 0.5) / picks)
    return values[np.minimum(at, len(values) - 1)]


def _gaps(rate: float) -> npt.NDArray[np.int64]:
    """Return quantiles of the time between events whose mean, between them linear, is 1 / rate.

    They are scaled as integers, for the last bit of a logarithm differs between machines.
    """
    levels = [min(k / _PICKS, 1 - 0.5 / _PICKS) for k in range(_PICKS + 1)]
    shape = [round(_UNIT * (-math.log1p(-level)) ** _GAP_SHAPE) for level in levels]
    mean = (sum(shape) - (shape[0] + shape[-1]) / 2) / _PICKS
    scale = round((NS_PER_S << GAP_FRACTION_BITS) / (rate * mean) * _UNIT)
    return np.array([gap * scale // _UNIT for gap in shape], np.int64)
