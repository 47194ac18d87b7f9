"""Symbols, as they become known: each with its trades so far, and the lot of its sizes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.market import UnknownSymbolError
from mdtool.adapters.stores.port import SymbolTotals
from mdtool.services.client import Client
from mdtool.services.gateway.feeds.feed import ALL, Audience, Key, LazyRows
from mdtool.services.gateway.fields import Field, Kind
from mdtool.services.gateway.hub import Subscription
from mdtool.services.gateway.market import MarketState


class KnownSymbol(NamedTuple):
    """A symbol that has traded, how often, the time of its last trade in ns, and its lot."""

    symbol: str
    trades: int
    last_trade: int
    lot: int | None = None


FIELDS: Final = (
    Field("symbol", Kind.TEXT, "The symbol."),
    Field("trades", Kind.SIZE, "The number of trades of its session so far."),
    Field("last_trade", Kind.TIME, "The exchange time of its last trade."),
    Field(
        "lot",
        Kind.PRICE,
        "What one unit of its sizes and volumes stands for, where they are whole lots.",
        is_optional=True,
    ),
)


class Symbols:
    """The feed of symbols. A symbol is published once, when it becomes known.

    Parameters
    ----------
    market : MarketState
    audience : Audience
    read_stored : callable
        Returns the symbols of which trades are stored, for a client.
    """

    def __init__(
        self,
        market: MarketState,
        audience: Audience[KnownSymbol],
        read_stored: Callable[[Client], Awaitable[Sequence[SymbolTotals]]],
    ) -> None:
        self._market = market
        self._audience = audience
        self._read_stored = read_stored
        self._published = 0

    def names(self) -> Sequence[str]:
        """Return all symbols, in order; raise UnavailableError where none can be known."""
        return self._market.in_order()

    async def stored(self, client: Client) -> Sequence[SymbolTotals]:
        """Return the symbols of which trades are stored, in order.

        Raises
        ------
        UnavailableError
            When there is no store.
        LimitError, PeerError
            As the store does.
        """
        return await self._read_stored(client)

    async def current(self, _client: Client, key: Key) -> Sequence[KnownSymbol]:
        """As `Feed.current`."""
        if key.symbol == ALL:
            return LazyRows(self.names(), self._row)
        if self._market.symbols.find(key.symbol) is None:
            self._market.check_live()
            raise UnknownSymbolError(f"no trade of {key.symbol} yet")
        return [self._row(key.symbol)]

    def knows(self, key: Key) -> bool:
        """As `Feed.knows`."""
        return key.symbol == ALL or self._market.symbols.find(key.symbol) is not None

    def follow(
        self, key: Key, subscription: Subscription, after: str | None = None
    ) -> Callable[[], None]:
        """As `Feed.follow`."""
        return self._audience.join(key, subscription, self._snapshot(key.symbol))

    def publish(self, _changed: NDArray[np.integer]) -> None:
        """Publish the symbols that are new."""
        symbols = self._market.symbols
        first, self._published = self._published, len(symbols)
        if self._audience:
            for symbol in symbols.since(first):
                self._audience.publish(Key(symbol), self._row(symbol), symbol)

    def _snapshot(self, symbol: str) -> Iterator[tuple[KnownSymbol, str]]:
        symbols = self._market.symbols
        for name in sorted(symbols) if symbol == ALL else (symbol,):
            if symbols.find(name) is not None:
                yield self._row(name), name

    def _row(self, symbol: str) -> KnownSymbol:
        index = self._market.symbols.intern(symbol)
        *_, trades, last_trade, _ = self._market.session(index)
        return KnownSymbol(symbol, trades, last_trade, self._market.lot(symbol))
