"""A synthetic exchange: a market by order, deterministic for a seed, that never ends.

Every instrument has a fair value that walks at random, weakly drawn back to where it began, and
a book around it. Orders arrive at prices near the fair value, some impatient enough to trade at
once; others are cancelled or modified. What the exchange reports has the form of CME's market by
order: an event that trades is its trades (T) and fills (F), then what they did to the book (C for
an order that is removed, M for one that is reduced), with F_LAST on the last record.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.core.dtypes import MBO, MBP1, RTYPE_MBO, RTYPE_MBP1, record_length
from mdtool.core.errors import UsageError
from mdtool.core.records import Records, coded_layout, is_trade, trades_of
from mdtool.core.symbols import MAX_SYMBOL_CHARS, normal_symbol
from mdtool.core.units import NS_PER_S, PRICE_SCALE, format_time
from mdtool.engine import simulate_defaults as defaults
from mdtool.engine import simulate_kernel as kernels

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


class Exchange:
    """A market that opened at `start_ns`.

    Its records depend on the parameters alone, not on how many are generated at a time, and are the
    same on every machine. Memory does not grow.

    Parameters
    ----------
    symbols : sequence of str
        The instruments; their ids count from 1 in this order. The first are the busiest.
    seed : int
        From 0 to 2**64 - 1.
    rate : float
        Events a second of the market's time, over all symbols. They come in bursts.
    start_ns : int
        The `ts_recv` of the opening books, ns since the epoch.

    Attributes
    ----------
    symbols : tuple of str
    instruments : dict
        Symbols by instrument id.
    start_ns : int

    Raises
    ------
    UsageError
        When a parameter is out of its range, or a symbol is given twice or is not a text of 1 to 70
        printable ASCII characters, trimmed.
    """

    def __init__(
        self,
        symbols: Sequence[str] = defaults.SYMBOLS,
        seed: int = defaults.SEED,
        rate: float = defaults.RATE,
        start_ns: int = defaults.START_NS,
    ) -> None:
        _check(symbols, seed, rate, start_ns)
        self.symbols = tuple(symbols)
        self.instruments = dict(enumerate(symbols, 1))
        self.start_ns = start_ns
        self._market = _market_before_opening(len(self.symbols), seed, start_ns)
        self._books = _empty_books(self.symbols)
        self._habits = _habits(len(self.symbols), rate)

    def generate(self, n: int, schema: str = "mbo") -> Records:
        """Run the market for about `n` order book records, and return its records.

        Parameters
        ----------
        n : int
            At least as many MBO records are made, and those that complete the last event. Of
            another schema there are fewer, perhaps none.
        schema : str
            `mbo`, `trades` or `mbp-1`.

        Returns
        -------
        array of MBO, TRADE or MBP1, shape (m,)
            Whole events, in order of `ts_recv`, which rises from packet to packet; so does
            `sequence`, modulo 2**32. The first records of each instrument are its opening book,
            flagged SNAPSHOT. MBP1 has a record for each A, C or M that touched the best level of
            its side, with the levels after it, and one for each trade.
        """
        if schema not in defaults.SCHEMAS:
            raise UsageError(
                f"schema {schema!r}: cannot be simulated; choose from {', '.join(defaults.SCHEMAS)}"
            )
        capacity = n + kernels.MAX_EVENT_RECORDS
        records = np.zeros(capacity, MBO)
        tops = np.zeros(capacity if schema == "mbp-1" else 0, kernels.TOP)
        records["length"] = record_length(MBO)
        records["rtype"] = RTYPE_MBO
        records["publisher_id"] = defaults.PUBLISHER_ID
        written = kernels.run(
            self._market, self._books, self._habits, records.view(coded_layout(MBO)), tops, n
        )
        if schema == "mbp-1":
            return _quotes(records[:written], tops[:written])
        return records[:written] if schema == "mbo" else trades_of(records[:written])


def _check(symbols: Sequence[str], seed: int, rate: float, start_ns: int) -> None:
    if not 1 <= len(symbols) <= defaults.MAX_SYMBOLS:
        raise UsageError(f"{len(symbols)} symbols: give from 1 to {defaults.MAX_SYMBOLS}")
    for symbol in symbols:
        if normal_symbol(symbol) is None or symbol != symbol.strip():
            raise UsageError(
                f"{symbol!r} is not a symbol of 1 to {MAX_SYMBOL_CHARS} printable ASCII characters"
            )
    if len(set(symbols)) < len(symbols):
        raise UsageError(f"a symbol is given twice in {','.join(symbols)}")
    if not 0 <= seed <= defaults.MAX_SEED:
        raise UsageError(f"seed {seed}: give from 0 to 2**64 - 1")
    if not defaults.MIN_RATE <= rate <= defaults.MAX_RATE:
        limits = f"{defaults.MIN_RATE:g} to {defaults.MAX_RATE:g}"
        raise UsageError(f"rate {rate:g}: give from {limits} events a second")
    if not defaults.MIN_START_NS <= start_ns < defaults.MAX_START_NS:
        raise UsageError(f"start {format_time(start_ns)}: give a time from 1971 to 2199")


def _market_before_opening(symbol_count: int, seed: int, start_ns: int) -> Records:
    market = np.zeros(1, kernels.MARKET)
    market["random"] = seed
    opening_orders = symbol_count * kernels.USUAL_ORDERS
    market["now_ns"] = start_ns - opening_orders * kernels.OPENING_GAP_NS
    market["received_ns"] = start_ns
    return market


def _quotes(records: Records, tops: Records) -> Records:
    """Return the MBP1 records of MBO records and the best levels after each."""
    is_quote = (tops["is_touched"] == 1) | is_trade(records)
    records, tops = records[is_quote], tops[is_quote]
    quotes = np.zeros(len(records), MBP1)
    for name in set(MBP1.names or ()) & set(MBO.names or ()):
        quotes[name] = records[name]
    for name in set(kernels.TOP.names or ()) - {"is_touched"}:
        quotes[f"{name}_00"] = tops[name]
    quotes["rtype"] = RTYPE_MBP1
    quotes["length"] = record_length(MBP1)
    return quotes


def _habits(symbol_count: int, rate: float) -> kernels.Habits:
    """Return the tables of a market with so many instruments and `rate` events a second."""
    ranks = range(symbol_count)
    picks = max(_PICKS, 1 << (16 * symbol_count).bit_length())
    return kernels.Habits(
        books=_table({rank: 1 / (rank + 3) for rank in ranks}, picks),
        gaps=_gaps(rate),
        offsets=_table(_OFFSETS, _PICKS),
        sizes=_table(_ODD_LOTS | _ROUND_LOTS, _PICKS),
    )


def _empty_books(symbols: Sequence[str]) -> npt.NDArray[np.void]:
    """Return each symbol's book as it is before the market opens.

    Prices of symbols that are not well known are made up, from 20 to 500, always the same ones.
    """
    books = np.zeros(len(symbols), kernels.BOOK)
    for index, symbol in enumerate(symbols):
        ticks = _PRICES_IN_TICKS.get(symbol, 2_000 + zlib.crc32(symbol.encode()) % 48_000)
        deviation = ticks * VOLATILITY * (1 << kernels.FRACTION_BITS)
        book = books[index]
        book["instrument_id"] = index + 1
        book["tick"] = TICK
        book["anchor"] = book["fair"] = (2 * ticks + 1) << (kernels.FRACTION_BITS - 1)
        book["volatility"] = round(deviation / _UNIFORM_SUM_DEVIATION)
    return books


def _table(weights: Mapping[int, float], picks: int) -> npt.NDArray[np.int64]:
    """Return `picks` values, each as often as its weight."""
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
    scale = round((NS_PER_S << kernels.GAP_FRACTION_BITS) / (rate * mean) * _UNIT)
    return np.array([gap * scale // _UNIT for gap in shape], np.int64)
