"""The market of an aggregator in this process, as the services beside it reach it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import NoReturn, Protocol, TypeAlias

from mdtool.adapters.aggregator import AggregatorClient
from mdtool.adapters.market import BarReceiver, Connected, Receiver
from mdtool.core.offers import Offer
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import TradeRun

Acknowledge = Callable[[str, int], None]
"""Called with a stream's id and the sequence before which all of it is committed."""


class ServedMarket(Protocol):
    """What an aggregator offers within its process, without messages.

    Everything that is followed ends with UnavailableError when the market is served no more.
    """

    async def accept(
        self, symbols: SymbolTable, runs: AsyncIterator[TradeRun], acknowledge: Acknowledge
    ) -> None:
        """Take runs of streams in their order, and acknowledge what is committed.

        Parameters
        ----------
        symbols : SymbolTable
            What the symbol indices of all `runs` mean; it may grow.
        runs : asynchronous iterator of TradeRun
            Their ticks were checked, as an ingest server does.
        acknowledge : callable
            Called in the event loop's thread.

        Raises
        ------
        UnavailableError
            When the runs cannot be taken now.
        PeerError
            When they cannot be taken at all.
        """
        ...

    async def position(self, stream_id: str) -> int:
        """Return the next sequence of a stream, 0 where unknown, once what it has is committed.

        Raises
        ------
        UnavailableError
            When it cannot be known now.
        """
        ...

    async def own(self, stream_id: str, principal: str) -> str:
        """Make a stream a principal's, unless it is another's; return whose it is.

        Raises
        ------
        UnavailableError
            When it cannot be known now.
        """
        ...

    async def follow(self, receive: Receiver) -> NoReturn:
        """As `MarketReader.follow`."""
        ...

    async def follow_bars(self, symbol: str, interval: str, receive: BarReceiver) -> NoReturn:
        """As `MarketReader.follow_bars`."""
        ...

    async def follow_trades(
        self, connected: Connected, receive: Callable[[TradeRun], None]
    ) -> NoReturn:
        """As `TradeFeed.follow_trades`."""
        ...


LocalMarket: TypeAlias = Offer[ServedMarket]
"""Where services of a process meet the market that its aggregator serves."""


class LocalAggregatorClient(AggregatorClient):
    """An `AggregatorClient` whose streams stay in this process; single requests go over gRPC.

    Parameters
    ----------
    market : LocalMarket
    """

    def __init__(self, market: LocalMarket) -> None:
        super().__init__(market.address)
        self._market = market

    async def follow(self, receive: Receiver) -> None:
        """As `MarketReader.follow`."""
        await (await self._market.taken()).follow(receive)

    async def follow_bars(self, symbol: str, interval: str, receive: BarReceiver) -> None:
        """As `MarketReader.follow_bars`."""
        await (await self._market.taken()).follow_bars(symbol, interval, receive)

    async def follow_trades(
        self, connected: Connected, receive: Callable[[TradeRun], None]
    ) -> NoReturn:
        """As `TradeFeed.follow_trades`."""
        await (await self._market.taken()).follow_trades(connected, receive)
