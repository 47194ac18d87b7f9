"""A bus to the market of the same process: ticks are handed over, and never encoded."""

from __future__ import annotations

import asyncio
import contextlib

from mdtool.adapters.bus.base import MAX_WAIT_S, BaseBus
from mdtool.adapters.bus.pending import PendingRuns
from mdtool.adapters.local_market import LocalMarket, ServedMarket
from mdtool.adapters.market import UnavailableError
from mdtool.core.backoff import delays
from mdtool.core.errors import PeerError
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Frames


class MemoryBus(BaseBus):
    """Hands runs to a local market while it is served, and holds each until it is committed.

    Parameters
    ----------
    market : LocalMarket
    symbols : SymbolTable
        What the symbol indices of published ticks mean; it may grow.
    """

    def __init__(self, market: LocalMarket, symbols: SymbolTable) -> None:
        super().__init__()
        self._market = market
        self._symbols = symbols
        self._pending = PendingRuns(symbols)
        self._delays = delays(cap_s=MAX_WAIT_S)

    @property
    def peer(self) -> str:
        """The aggregator and its address."""
        return f"aggregator {self._market.address}"

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        stack.callback(tasks.create_task(self._deliver(), name=self.peer).cancel)

    def publish(self, stream_id: str, first_sequence: int, frames: Frames) -> None:
        """Queue the run for the market."""
        self._pending.add(stream_id, first_sequence, frames)

    async def _request_position(self, stream_id: str) -> int | None:
        market = await self._market.taken()
        try:
            return await market.position(stream_id)
        except UnavailableError:
            return None

    async def _request_owner(self, stream_id: str, principal: str) -> str | None:
        market = await self._market.taken()
        try:
            return await market.own(stream_id, principal)
        except UnavailableError:
            return None

    async def _deliver(self) -> None:
        while True:
            market = await self._market.taken()
            self._pending.restart()
            try:
                await self._hand_over(market)
            except UnavailableError:  # which the market has logged
                await asyncio.sleep(next(self._delays))
            except PeerError as error:
                raise PeerError(f"{self.peer} refused: {error}") from error

    async def _hand_over(self, market: ServedMarket) -> None:
        """Hand over what comes until the market is served no more."""
        accepting = asyncio.create_task(
            market.accept(self._symbols, self._pending.batches(), self._commit)
        )
        ended = asyncio.create_task(self._market.ended())
        try:
            await asyncio.wait({accepting, ended}, return_when=asyncio.FIRST_COMPLETED)
            if accepting.done():
                accepting.result()
        finally:
            for task in (accepting, ended):
                task.cancel()
            await asyncio.gather(accepting, ended, return_exceptions=True)

    def _commit(self, stream_id: str, next_sequence: int) -> None:
        self._delays = delays(cap_s=MAX_WAIT_S)
        self._pending.commit(stream_id, next_sequence)
        self._notify(stream_id, next_sequence)
