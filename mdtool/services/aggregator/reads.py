"""What calls read of the market, as columns: sessions, and bars that change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mdtool.core.buckets import parse_day
from mdtool.core.trades import Reason
from mdtool.core.units import parse_duration
from mdtool.engine.market import Market
from mdtool.services.aggregator.config import calendar_advice
from mdtool.services.aggregator.subscribers import Wakeups
from mdtool.wire.batches import BarColumns, Counts, Updates

PREVIOUS: Final = "previous"
"""The session before the current one, in requests."""


def traded(market: Market, symbol: str) -> NDArray[np.uint32]:
    """Return the index of a symbol, shape (1,), or none, shape (0,), when it has not traded."""
    index = market.symbols.find(symbol)
    has_traded = index is not None and market.session(index) is not None
    return np.array([index] if has_traded else [], np.uint32)


def session_of(market: Market, index: int, which: str) -> np.void | None:
    """Return a symbol's session, None where it is not kept.

    Parameters
    ----------
    market : Market
    index : int
        A symbol that has traded.
    which : str
        Empty for the current one, `previous`, or the date of one, YYYY-MM-DD.

    Raises
    ------
    UsageError
        When it is none of these.
    """
    if not which:
        return market.session(index)
    return market.past_session(index, None if which == PREVIOUS else parse_day(which))


def updates_of(
    market: Market, symbols: NDArray[np.uint32], sessions: NDArray[np.void] | None = None
) -> Updates:
    """Return the sessions of symbols, by default the current ones, and the market's totals."""
    sessions = market.sessions(symbols) if sessions is None else sessions
    columns: dict[str, Any] = {name: sessions[name] for name in sessions.dtype.names or ()}
    return Updates(symbol=symbols, counts=counts_of(market), **columns)


def counts_of(market: Market) -> Counts:
    """Return the market's totals."""
    return Counts(
        ticks=market.counts.ticks,
        duplicates=market.counts.duplicates,
        late=market.bars.late,
        refused={reason.label: market.counts.refused[reason] for reason in Reason},
        late_for_sessions=market.late_for_sessions,
    )


async def changed_bars(
    market: Market, symbol: str, interval: str, wakeups: Wakeups
) -> AsyncIterator[NDArray[np.void]]:
    """Yield the newest bar of a symbol, or of all where it is empty, and then those that change.

    Yields
    ------
    BAR[n]
        Never none; `instrument` is the market's index.

    Raises
    ------
    UsageError
        For an interval that has no bars.
    """
    interval_ns, bars = parse_duration(interval, calendar_advice(interval)), market.bars
    bars.changed_since(bars.step, np.empty(0, np.uint32), interval_ns)
    seen = step = 0
    async for _ in wakeups:
        symbols = traded(market, symbol) if symbol else market.changed_since(seen)
        changed = bars.changed_since(step, symbols, interval_ns)
        seen, step = market.commit, bars.step
        if len(changed):
            yield changed


def bar_columns(bars: NDArray[np.void]) -> BarColumns:
    """Return the columns of bars, BAR[n]."""
    names = ("open", "high", "low", "close", "volume", "count")
    columns = {name: bars[name] for name in names}
    return BarColumns(start=bars["start_ns"], **columns)
