"""The aggregation service: a gRPC server around the market's state, from its bind to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

import grpc.aio

from mdtool.adapters import rpc
from mdtool.core.lifecycle import Started, first_error
from mdtool.core.units import counted
from mdtool.services.aggregator.committer import Committer
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.listening import OPTIONS, STATUS, add_health, listen
from mdtool.services.aggregator.market_bars import MarketBars
from mdtool.services.aggregator.markets import new_market
from mdtool.services.aggregator.servicer import MarketDataServicer
from mdtool.services.aggregator.store_thread import StoreThread, store_thread
from mdtool.services.aggregator.subscribers import Subscribers

log = logging.getLogger(__name__)

_STOP_GRACE_S: Final = 0.5
"""How long calls may go on once the service stops: readers end by themselves, writers resend."""
_FINISH_S: Final = 3.0
"""How long the store may take then for what is not committed yet."""


class Aggregator:
    """The engine of the market's state as a service.

    Parameters
    ----------
    config : AggregatorConfig
        Where it listens, and what bounds its state.
    """

    name = "aggregate"

    def __init__(self, config: AggregatorConfig) -> None:
        self._config = config
        self.market = new_market(config)
        self.subscribers = Subscribers()

    async def run(self, started: Started) -> None:
        """Serve until cancelled; then end the readers' calls, and those of the others soon after.

        What was taken by then is committed.

        Raises
        ------
        StartupError
            When the address cannot be bound, the store is held by another process, or is none.
        StoreError
            When the store cannot be opened, or can keep no more.
        """
        try:
            async with contextlib.AsyncExitStack() as stack:
                await self._run(stack, started)
        except ExceptionGroup as group:
            raise first_error(group) from group

    async def _run(self, stack: contextlib.AsyncExitStack, started: Started) -> None:
        server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=self._config.max_calls)
        status = add_health(server, rpc.SERVICE.full_name)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())

        def tell(is_available: bool) -> None:
            tasks.create_task(status.set(rpc.STORE_HEALTH, STATUS[is_available]))

        store = await self._taken_up(stack)
        committer = Committer(self.market, store, self._config.max_uncommitted, tell)
        if store is not None:
            writing = tasks.create_task(committer.run(), name=store.address)
            stack.push_async_callback(committer.finish, writing, _FINISH_S)
            await status.set(rpc.STORE_HEALTH, STATUS[True])
        bars = stack.enter_context(MarketBars(self.market, self._config.store))
        servicer = MarketDataServicer(
            self.market, self.subscribers, committer, bars, self._config.max_symbols
        )
        server.add_generic_rpc_handlers((rpc.handler(servicer),))
        address = listen(server, self._config.host, self._config.port)
        await server.start()
        stack.push_async_callback(server.stop, _STOP_GRACE_S)
        stack.callback(self.subscribers.close)
        stack.callback(servicer.trades.close)
        stack.push_async_callback(status.enter_graceful_shutdown)
        await status.set(rpc.SERVICE.full_name, STATUS[True])
        started({"grpc": address})
        await asyncio.get_running_loop().create_future()

    async def _taken_up(self, stack: contextlib.AsyncExitStack) -> StoreThread | None:
        """Open the store, if there is one, and let the market take up what it holds."""
        if not self._config.store:
            return None
        store = await stack.enter_async_context(store_thread(self._config.store))
        await store.claim()
        saved = await store.load(self._config.max_streams, self.market.bars.lateness_ns)
        self.market.restore(
            saved.symbols, saved.sessions, saved.bars, saved.positions, saved.counts
        )
        log.info(
            "%s: goes on with %s and %s",
            store.address,
            counted(len(saved.symbols), "symbol"),
            counted(self.market.counts.ticks, "trade"),
        )
        return store
