"""A synthetic exchange: a market by order, deterministic for a seed, that never ends.

Every instrument has a fair value that walks at random, weakly drawn back to where it began, and
a book around it. Orders arrive at prices near the fair value, some impatient enough to trade at
once; others are cancelled or modified. What the exchange reports has the form of CME's market by
order: an event that trades is its trades (T) and fills (F), then what they did to the book (C for
an order that is gone, M for one that is smaller), with F_LAST on the last record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from mdtool.core.dtypes import MBO, MBP1, RTYPE_MBO, RTYPE_MBP1, record_length
from mdtool.core.errors import UsageError
from mdtool.core.records import Records, is_trade, trades_of
from mdtool.core.symbols import MAX_SYMBOL_CHARS, normal_symbol
from mdtool.core.units import format_time
from mdtool.engine import simulate_defaults as defaults
from mdtool.engine import simulate_kernel as kernels
from mdtool.engine.simulate_habits import empty_books, habits

_MBO_CODES: Final = np.dtype(
    [(name, "u1" if MBO[name].kind == "S" else MBO[name].str) for name in MBO.names or ()]
)
"""MBO with its characters as numbers, as kernels write them."""


class Exchange:
    """A market that opened at `start_ns`.

    What it reports depends on the parameters alone, not on how much is asked for at a time, and is
    the same on every machine. Memory stays the same however long it runs.

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
        When a parameter is out of its range, or a symbol is given twice or is no text of 1 to 70
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
        self._books = empty_books(self.symbols)
        self._habits = habits(len(self.symbols), rate)

    def generate(self, n: int, schema: str = "mbo") -> Records:
        """Let the market run for about `n` order book records, and return what it reports.

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
                f"no schema {schema!r} here; choose from {', '.join(defaults.SCHEMAS)}"
            )
        capacity = n + kernels.MAX_EVENT_RECORDS
        records = np.zeros(capacity, MBO)
        tops = np.zeros(capacity if schema == "mbp-1" else 0, kernels.TOP)
        records["length"] = record_length(MBO)
        records["rtype"] = RTYPE_MBO
        records["publisher_id"] = defaults.PUBLISHER_ID
        written = kernels.run(
            self._market, self._books, self._habits, records.view(_MBO_CODES), tops, n
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
                f"{symbol!r} is no symbol of 1 to {MAX_SYMBOL_CHARS} printable ASCII characters"
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
