"""The market as the services of its own process use it: what gRPC's calls do, without messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import NoReturn

import numpy as np

from mdtool.adapters.local_market import Acknowledge
from mdtool.adapters.market import (
    BarReceiver,
    Connected,
    Receiver,
    RefusedError,
    TradeStream,
    UnavailableError,
)
from mdtool.adapters.stores.errors import StoreUnavailableError
from mdtool.core.errors import UsageError
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import TradeRun
from mdtool.services.aggregator.committer import acknowledging
from mdtool.services.aggregator.live_market import LiveMarket
from mdtool.services.aggregator.markets import FrameCheck
from mdtool.services.aggregator.reads import bar_columns, changed_bars, updates_of
from mdtool.wire.batches import BarUpdates


class ServedMarket:
    """A live market as a `LocalMarket` offers it.

    Parameters
    ----------
    live : LiveMarket
    address : str
        Where the aggregator listens, for messages.
    """

    def __init__(self, live: LiveMarket, address: str) -> None:
        self._live = live
        self._market = live.market
        self._address = address

    async def accept(
        self, symbols: SymbolTable, runs: AsyncIterator[TradeRun], acknowledge: Acknowledge
    ) -> None:
        """As `ServedMarket.accept`; the store may be unavailable."""
        check = FrameCheck(self._market, symbols, is_trusted=True)

        async def write(stream_id: str, next_sequence: int) -> None:
            acknowledge(stream_id, next_sequence)

        try:
            async with acknowledging(self._live.committer, write) as acknowledger:
                async for run in runs:
                    await self._live.accept(run, check, acknowledger)
        except StoreUnavailableError as error:
            raise UnavailableError(str(error)) from error

    async def position(self, stream_id: str) -> int:
        """As `ServedMarket.position`."""
        try:
            return await self._live.position(stream_id) or 0
        except StoreUnavailableError as error:
            raise UnavailableError(str(error)) from error

    async def own(self, stream_id: str, principal: str) -> str:
        """As `ServedMarket.own`."""
        try:
            return await self._live.own(stream_id, principal)
        except StoreUnavailableError as error:
            raise UnavailableError(str(error)) from error

    async def follow(self, receive: Receiver) -> NoReturn:
        """As `MarketReader.follow`."""
        market, seen = self._market, 0
        with self._live.subscribers.join() as wakeups:
            async for _ in wakeups:
                updates = updates_of(market, market.changed_since(seen))
                updates.probes = market.probes_since(seen)
                updates.traceparent = self._live.trace_since(seen)
                seen = market.commit
                receive(market.symbols, updates)
        raise self._ended()

    async def follow_bars(self, symbol: str, interval: str, receive: BarReceiver) -> NoReturn:
        """As `MarketReader.follow_bars`."""
        market = self._market
        with self._live.subscribers.join(symbol) as wakeups:
            try:
                async for bars in changed_bars(market, symbol, interval, wakeups):
                    indices = bars["instrument"].astype(np.uint32)
                    receive(market.symbols, BarUpdates(indices, bar_columns(bars)))
            except UsageError as error:
                raise RefusedError(str(error)) from error
        raise self._ended()

    async def follow_trades(
        self, connected: Connected, receive: Callable[[TradeRun], None]
    ) -> NoReturn:
        """As `TradeFeed.follow_trades`; BehindError where too many trades wait."""
        with self._live.trades.follow() as follower:
            stream = TradeStream(follower.request, receive)
            connected(stream)
            try:
                async for run in follower.runs():
                    stream.received(run)
            finally:
                stream.lost()
        raise self._ended()

    def _ended(self) -> UnavailableError:
        return UnavailableError(f"aggregator {self._address} ended the stream")
