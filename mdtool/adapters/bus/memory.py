"""A bus to the market of the same process: ticks are handed over, and never encoded."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

from mdtool.adapters.bus.pending import PendingRuns
from mdtool.adapters.bus.port import CommitListener
from mdtool.adapters.local_market import LocalMarket, ServedMarket
from mdtool.adapters.market import UnavailableError
from mdtool.core.backoff import delays
from mdtool.core.errors import PeerError
from mdtool.core.lifecycle import first_error
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Frames

_MAX_WAIT_S = 2.0
"""The longest pause between two attempts to hand over what the market cannot take."""


class MemoryBus:
    """Hands runs to a local market while it is served, and holds each until it is committed.

    Parameters
    ----------
    market : LocalMarket
    symbols : SymbolTable
        What the symbol indices of published ticks mean; it may grow.
    """

    def __init__(self, market: LocalMarket, symbols: SymbolTable) -> None:
        self._market = market
        self._symbols = symbols
        self._listeners: list[CommitListener] = []
        self._pending = PendingRuns(symbols)
        self._delays = delays(cap_s=_MAX_WAIT_S)
        self._resources = contextlib.AsyncExitStack()

    @property
    def peer(self) -> str:
        """The aggregator and its address."""
        return f"aggregator {self._market.address}"

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            stack.callback(tasks.create_task(self._deliver(), name=self.peer).cancel)
            self._resources = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> bool | None:
        try:
            return await self._resources.__aexit__(*exc_info)  # type: ignore[arg-type]
        except ExceptionGroup as group:
            raise first_error(group) from group

    def subscribe(self, listener: CommitListener) -> None:
        """Call `listener` at each commit."""
        self._listeners.append(listener)

    def publish(self, stream_id: str, first_sequence: int, frames: Frames) -> None:
        """Queue the run for the market."""
        self._pending.add(stream_id, first_sequence, frames)

    async def position(self, stream_id: str) -> int:
        """Ask the market, again and again while it is unavailable."""
        for delay_s in delays(cap_s=_MAX_WAIT_S):
            market = await self._market.taken()
            try:
                return await market.position(stream_id)
            except UnavailableError:
                await asyncio.sleep(delay_s)
        raise AssertionError

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
        self._delays = delays(cap_s=_MAX_WAIT_S)
        self._pending.commit(stream_id, next_sequence)
        for listener in self._listeners:
            listener(stream_id, next_sequence)
