"""The feed of one aggregator's trades, over gRPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Self

from mdtool.adapters.aggregator import AggregatorClient
from mdtool.core.trades import TradeRun


class GrpcTradeFeed:
    """A `TradeFeed` of an aggregation service. An async context manager, which owns the connection.

    Parameters
    ----------
    address : str
        Its `HOST:PORT`. It need not be available yet.
    """

    def __init__(self, address: str) -> None:
        self._client = AggregatorClient(address)

    @property
    def address(self) -> str:
        """The name of the feed in messages."""
        return f"aggregator {self._client.address}"

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.__aexit__(*exc_info)

    async def follow(
        self, connected: Callable[[], None], receive: Callable[[TradeRun], None]
    ) -> NoReturn:
        """Pass on trades that are committed from now on; see `TradeFeed`."""
        await self._client.follow_trades(connected, receive)
