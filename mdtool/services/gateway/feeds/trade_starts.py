"""The trades with which a subscription begins, from memory or from the store."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import repeat
from typing import Final, NamedTuple

from mdtool.adapters.market import UnknownSymbolError
from mdtool.core.errors import PeerError
from mdtool.core.permissions import Reader
from mdtool.services.gateway.feeds.feed import ALL, Key
from mdtool.services.gateway.feeds.recent_trades import RecentTrades, Trade
from mdtool.services.gateway.history import History, Range, StoredTrades

log = logging.getLogger(__name__)

LATEST: Final = 50
"""Trades of a symbol with which a subscription begins."""
MAX_RESUMED: Final = 10_000
"""Trades that a resumed subscription gets."""


class Start(NamedTuple):
    """The trades with which a subscription begins.

    `is_complete` is whether none was missed before them, `is_resumed` whether they follow the last
    one that the client has.
    """

    trades: Sequence[Trade]
    is_complete: bool
    is_resumed: bool = False


class TradeStarts:
    """Finds the trades with which subscriptions begin.

    Parameters
    ----------
    recent : RecentTrades
    history : History or None
        The store, where there is one.
    """

    def __init__(self, recent: RecentTrades, history: History | None) -> None:
        self._recent = recent
        self._history = history

    def from_memory(
        self, key: Key, behind: tuple[str, int] | None, reader: Reader | None
    ) -> Start | None:
        """Return the trades that a subscription begins with, None where only the store knows."""
        has_store = self._history is not None and key.symbol != ALL
        chooses = None if reader is None else reader.can_read
        positions = self._recent.positions(key.symbol, chooses)
        if behind is not None:
            place = self._recent.find(*behind)
            if place is not None and place >= self._recent.contiguous_from:
                newer = positions[positions > place]
                trades = self._recent.trades(newer[-MAX_RESUMED:])
                return Start(trades, len(newer) <= MAX_RESUMED, is_resumed=True)
        if has_store and (behind is not None or len(positions) < LATEST):
            return None
        return Start(self._recent.trades(positions[-LATEST:]), behind is None)

    async def from_store(self, key: Key, behind: tuple[str, int] | None) -> Start:
        """Return trades from the store, then those in memory that it may not have had."""
        requested_at = self._recent.total
        start = await self._stored(key, behind)
        known = {(trade.stream, trade.number) for trade in start.trades}
        recent = self._committed(key.symbol, behind, requested_at)
        trades = [*start.trades, *(each for each in recent if each[-2:] not in known)]
        if behind is None or not start.is_complete:
            trades = trades[-LATEST:]
        return start._replace(trades=trades)

    def _committed(
        self, symbol: str, behind: tuple[str, int] | None, since: int
    ) -> Sequence[Trade]:
        """Return the trades in memory that a store may not have had when it was read.

        Those are the ones from a position on, and of the stream that is resumed all behind its
        trade: on a bus, the store follows later.
        """
        positions = self._recent.positions(symbol)
        positions = positions[positions >= self._recent.contiguous_from]
        trades = self._recent.trades(positions)
        if behind is None:
            return trades
        stream, number = behind
        return [
            trade
            for trade, position in zip(trades, positions.tolist(), strict=True)
            if (trade.number > number if trade.stream == stream else position >= since)
        ]

    async def _stored(self, key: Key, behind: tuple[str, int] | None) -> Start:
        assert self._history is not None
        limit = LATEST if behind is None else MAX_RESUMED
        try:
            stored = await self._history.trades(None, key.symbol, Range(limit))
        except UnknownSymbolError:
            return Start([], behind is None)
        except PeerError as error:
            log.debug("trades of %s: %s", key.symbol, error)
            return Start([], behind is None)
        trades = stored_trades(key.symbol, stored)[::-1]
        if behind is None:
            return Start(trades, is_complete=True)
        received = stored.page.trades.ts_recv[:limit][::-1].tolist()
        for trade, time_ns in zip(trades, received, strict=True):
            if trade[-2:] == behind:
                newer = [
                    each
                    for each, its_time_ns in zip(trades, received, strict=True)
                    if (each.stream == trade.stream and each.number > trade.number)
                    or (each.stream != trade.stream and its_time_ns >= time_ns)
                ]
                return Start(newer, is_complete=True, is_resumed=True)
        return Start(trades, is_complete=False)


def stored_trades(symbol: str, stored: StoredTrades) -> list[Trade]:
    """Return the trades that were requested of a store, one by one."""
    page, n = stored.page, len(stored.streams)
    columns = (page.trades.ts_event, page.trades.price, page.trades.size)
    values = (column[:n].tolist() for column in columns)
    sequence = page.sequence[:n].tolist()
    return list(map(Trade._make, zip(repeat(symbol), *values, stored.streams, sequence)))
