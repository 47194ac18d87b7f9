"""Aggregates: the session of each symbol so far, from the market in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.market import UnknownSymbolError
from mdtool.core.trades import Probe
from mdtool.services.client import Client
from mdtool.services.gateway.feeds.feed import ALL, Audience, Key, LazyRows
from mdtool.services.gateway.fields import STALE, Field, Kind
from mdtool.services.gateway.hub import Subscription
from mdtool.services.gateway.market import MarketState
from mdtool.wire.batches import Updates

SessionRequest: TypeAlias = Callable[[str, str], Awaitable[Updates]]
"""Given a symbol, and `previous` or a date."""


class Aggregate(NamedTuple):
    """The session of a symbol so far; prices at 1e-9, the time of the latest trade in ns."""

    symbol: str
    open: int
    high: int
    low: int
    close: int
    volume: int
    trades: int
    timestamp: int
    is_stale: bool


FIELDS: Final = (
    Field("symbol", Kind.TEXT, "The symbol."),
    Field("open", Kind.PRICE, "The first price of the session."),
    Field("high", Kind.PRICE, "The highest price."),
    Field("low", Kind.PRICE, "The lowest price."),
    Field("close", Kind.PRICE, "The last price."),
    Field("volume", Kind.SIZE, "The total size of all trades."),
    Field("trades", Kind.SIZE, "The number of trades."),
    Field("timestamp", Kind.TIME, "The exchange time of the last trade."),
    STALE,
)


class Aggregates:
    """The feed of sessions.

    Parameters
    ----------
    market : MarketState
    audience : Audience
    request_session : callable, optional
        Requests a symbol's previous session, or that of a date, of the aggregator; without it none
        is kept.

    Attributes
    ----------
    changes : int
        Rises whenever an aggregate changes.
    """

    def __init__(
        self,
        market: MarketState,
        audience: Audience[Aggregate],
        request_session: SessionRequest | None = None,
    ) -> None:
        self._market = market
        self._audience = audience
        self._request_session = request_session
        self._rows: dict[int, Aggregate] = {}
        """Rows found since they last changed, by index into the market."""
        self.changes = 0

    async def current(self, _client: Client, key: Key) -> Sequence[Aggregate]:
        """As `Feed.current`."""
        if key.symbol == ALL:
            return LazyRows(self._market.in_order(), self._row_of)
        return [self._row(self._index(key.symbol))]

    async def past(self, client: Client, key: Key, session: str) -> Aggregate:
        """As `SessionFeed.past`."""
        symbol = self._market.symbols[self._index(key.symbol)]
        if self._request_session is None:
            raise UnknownSymbolError(f"session {session} of {symbol} is not kept")
        client.spend_upstream()
        found = await self._request_session(symbol, session)
        names = ("open", "high", "low", "close", "volume", "count", "timestamp")
        values = [int(getattr(found, name)[0]) for name in names]
        return Aggregate._make([symbol, *values, False])

    def knows(self, key: Key) -> bool:
        """As `Feed.knows`."""
        return key.symbol == ALL or self._market.symbols.find(key.symbol) is not None

    def follow(
        self, key: Key, subscription: Subscription, after: str | None = None
    ) -> Callable[[], None]:
        """As `Feed.follow`."""
        return self._audience.join(key, subscription, self._snapshot(key.symbol))

    def publish(self, changed: NDArray[np.integer]) -> None:
        """Publish the symbols, as indices into the market, that changed."""
        self.changes += 1
        if len(changed) >= len(self._rows):
            self._rows.clear()
        else:
            for index in changed.tolist():
                self._rows.pop(index, None)
        audience = self._audience
        if not audience:
            return
        for index in changed.tolist():
            key = Key(self._market.symbols[index])
            if key in audience:
                audience.publish(key, self._row(index), key.symbol)

    def publish_probes(self, probes: Iterable[Probe]) -> None:
        """Publish probes to who follows their streams' ids as symbols, the sequence as volume."""
        for stream_id, sequence in ((probe.stream_id, probe.sequence) for probe in probes):
            key = Key(stream_id)
            if key in self._audience:
                row = Aggregate(stream_id, 0, 0, 0, 0, sequence, 0, 0, is_stale=False)
                self._audience.publish(key, row, stream_id)

    def find(self, symbol: str) -> Aggregate:
        """As `MemoryFeed.find`."""
        index = self._index(symbol)
        row = self._rows.get(index)
        if row is None:
            row = self._rows[index] = self._row(index)
        return row

    def _index(self, symbol: str) -> int:
        index = self._market.symbols.find(symbol)
        if index is None:
            self._market.check_live()
            raise UnknownSymbolError(f"no trade of {symbol} yet")
        return index

    def _row(self, index: int) -> Aggregate:
        return Aggregate(self._market.symbols[index], *self._market.session(index))

    def _row_of(self, symbol: str) -> Aggregate:
        return self._row(self._market.symbols.intern(symbol))

    def _snapshot(self, symbol: str) -> Iterator[tuple[Aggregate, str]]:
        for name in sorted(self._market.symbols) if symbol == ALL else (symbol,):
            index = self._market.symbols.find(name)
            if index is not None:
                yield self._row(index), name
