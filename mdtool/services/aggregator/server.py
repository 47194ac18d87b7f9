"""The aggregation service: a gRPC server around the market, from its bind to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from mdtool.adapters import rpc
from mdtool.adapters.local_market import LocalMarket
from mdtool.adapters.local_rpc import LocalServer
from mdtool.adapters.stores.errors import StoreUnavailableError
from mdtool.core.config import load
from mdtool.core.lifecycle import Started, one_error, until_stopped
from mdtool.core.tls import server_tls
from mdtool.core.units import ANY_PRICE, NS_PER_S, counted
from mdtool.services.aggregator.committer import Committer
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.grpc_server import GrpcServer
from mdtool.services.aggregator.live_market import LiveMarket
from mdtool.services.aggregator.markets import new_market
from mdtool.services.aggregator.reads import counts_of
from mdtool.services.aggregator.served_market import ServedMarket
from mdtool.services.aggregator.servicer import MarketDataServicer
from mdtool.services.aggregator.storage import StoreThread, market_bars, store_thread
from mdtool.services.aggregator.subscribers import Subscribers
from mdtool.services.client import Admission
from mdtool.services.metrics import metrics_served
from mdtool.services.security import Security
from mdtool.services.store.awaited import Awaited
from mdtool.services.store.config import StoreConfig
from mdtool.services.store.retention import retained
from mdtool.services.usage import keeping_current

if TYPE_CHECKING:
    from prometheus_client.core import Metric

log = logging.getLogger(__name__)

_FINISH_S: Final = 3.0
"""How long the store may take, once the service stops, for what is not committed yet."""


class _Parts(NamedTuple):
    """What there is once the market is restored."""

    live: LiveMarket
    store: StoreThread | None


class Aggregator:
    """The engine of the market's state as a service.

    Parameters
    ----------
    config : AggregatorConfig
        Where it listens, and what bounds its state.
    local : LocalMarket, optional
        Where services of the same process meet its market.
    """

    name = "aggregate"

    def __init__(self, config: AggregatorConfig, local: LocalMarket | None = None) -> None:
        self._config = config
        self._local = local
        self.market = new_market(config)
        self.subscribers = Subscribers()
        self._parts: _Parts | None = None

    async def run(self, started: Started) -> None:
        """Serve until cancelled; then drain, end the readers' calls, and soon after the others'.

        Health is the first to say so. What was taken by then is committed.

        Raises
        ------
        StartupError
            When the address cannot be listened on, or the store is claimed by another process.
        StoreError
            When the store cannot be opened, or can store no more; a server that is unavailable is
            waited for.
        """
        with one_error():
            async with contextlib.AsyncExitStack() as stack:
                await self._run(stack, started)

    async def _run(self, stack: contextlib.AsyncExitStack, started: Started) -> None:
        config = self._config
        security = Security.load(self.name, config.host, config.auth)
        server = GrpcServer(
            rpc.SERVICE.full_name,
            max_calls=config.max_calls,
            tls=server_tls(self.name),
            security=security,
        )
        metrics = await stack.enter_async_context(
            metrics_served(
                config.metrics_port,
                lambda: self._measures(server.admission),
                is_ready=lambda: self._parts is not None and not server.is_stopping,
            )
        )
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        store = await self._restored(stack)

        def report(is_available: bool) -> None:
            tasks.create_task(server.set_health(rpc.STORE_HEALTH, is_available))

        committer = Committer(self.market, store, self._config.max_uncommitted, report)
        if store is not None:
            writing = tasks.create_task(committer.run(), name=store.address)
            stack.push_async_callback(committer.finish, writing, _FINISH_S)
            await server.set_health(rpc.STORE_HEALTH, True)
        bars = await stack.enter_async_context(market_bars(self.market, self._config.store))
        live = LiveMarket(self.market, committer, bars, self.subscribers)
        any_price = self._config.tick_prices == ANY_PRICE
        servicer = MarketDataServicer(live, self._config.max_symbols, any_price=any_price)
        server.add(servicer)
        address = server.bind(self._config.host, self._config.port)
        if self._config.socket:
            await stack.enter_async_context(LocalServer(self._config.socket, servicer))
        await stack.enter_async_context(keeping_current(server.admission))
        await stack.enter_async_context(server)
        stack.callback(live.close)
        await server.set_health(rpc.SERVICE.full_name, True)
        if self._local is not None:
            stack.enter_context(self._local.offering(ServedMarket(live, address)))
        keep = load(StoreConfig, "store", {}).keep
        await stack.enter_async_context(retained(config.store, keep, config.session))
        self._parts = _Parts(live, store)
        started({"grpc": address, **metrics})

        async def drain(duration_s: float) -> None:
            await server.set_stopping()
            await asyncio.sleep(duration_s)

        await until_stopped(self.name, drain)

    def _measures(self, admission: Admission) -> Iterator[Metric]:
        from mdtool.services import families

        if self._parts is None:
            return
        live, store = self._parts
        market, committer = self.market, live.committer
        yield from families.ticks(counts_of(market))
        yield families.gauge("mdtool_symbols", len(market.symbols))
        latest_ns = market.latest_ingest_ns()
        yield families.gauge("mdtool_last_tick_timestamp_seconds", latest_ns / NS_PER_S)
        yield families.gauge("mdtool_subscribers", len(self.subscribers))
        yield families.gauge("mdtool_uncommitted_ticks", committer.uncommitted)
        yield families.histogram("mdtool_batch_ticks", {(): live.batches})
        yield families.gauge("mdtool_streams", market.streams)
        yield from families.clients(admission)
        if store is not None:
            yield from store.size.measures()
            yield families.histogram("mdtool_commit_seconds", {(): committer.times})
            yield families.counter("mdtool_committed_ticks", committer.written)
            yield families.gauge("mdtool_store_writable", committer.is_writable)

    async def _restored(self, stack: contextlib.AsyncExitStack) -> StoreThread | None:
        """Open the store, if there is one, as soon as it is available; restore the market."""
        if not self._config.store:
            return None
        awaited = Awaited(self._config.store)
        while True:
            try:
                return await self._restore(stack)
            except StoreUnavailableError as error:
                pause_s = awaited.pause_s(error)
            await asyncio.sleep(pause_s)

    async def _restore(self, stack: contextlib.AsyncExitStack) -> StoreThread:
        async with contextlib.AsyncExitStack() as opened:
            store = await opened.enter_async_context(store_thread(self._config.store))
            await store.claim()
            saved = await store.load(self._config.max_streams, self.market.bars.lateness_ns)
            await stack.enter_async_context(opened.pop_all())
        self.market.restore(saved)
        log.info(
            "%s: restored %s and %s",
            store.address,
            counted(len(saved.symbols), "symbol"),
            counted(self.market.counts.ticks, "trade"),
        )
        return store
