"""The VWAP feed as a service: trades of a feed in, JSON lines to any number of clients out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.local_market import LocalMarket
from mdtool.adapters.market import open_trade_feed
from mdtool.adapters.vwap_feed import LocalVwaps
from mdtool.core.addresses import parse_address
from mdtool.core.lifecycle import Started, until_stopped
from mdtool.core.tcp import listen
from mdtool.core.tls import server_tls
from mdtool.engine.vwap import Window
from mdtool.services.client import Admission
from mdtool.services.limits import Limits
from mdtool.services.metrics import metrics_served
from mdtool.services.proxied import unwrap
from mdtool.services.security import Security
from mdtool.services.usage import keeping_current
from mdtool.services.vwap.config import VwapConfig
from mdtool.services.vwap.connections import Connection, Connections
from mdtool.services.vwap.follower import Follower
from mdtool.services.vwap.states import STATES_AT_ONCE, States
from mdtool.wire.vwap_lines import VwapState
from mdtool.wire.websocket import CloseCode

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Update: TypeAlias = Callable[[Collection[VwapState]], None]
"""Takes states that changed."""


class VwapFeed:
    """Follows trades, and publishes the VWAP of every symbol over TCP.

    Parameters
    ----------
    config : VwapConfig
    local : LocalMarket, optional
        The market of an aggregator in this process, whose trades are followed.
    local_vwaps : LocalVwaps, optional
        Where services of the same process meet this feed.

    Raises
    ------
    UsageError
        When the window, the aggregator's address or the bus is not valid.
    """

    name = "vwap"

    def __init__(
        self,
        config: VwapConfig,
        local: LocalMarket | None = None,
        local_vwaps: LocalVwaps | None = None,
    ) -> None:
        self._config = config
        self._local = local
        self._local_vwaps = local_vwaps
        window = Window.parse(config.window)
        if window.span_ns:
            window = Window(config.max_trades, window.span_ns)
        self._window = window
        self._is_following = False
        self._is_stopping = False
        parse_address(config.aggregator)
        if config.bus:
            KafkaAddress.parse(config.bus)

    async def run(self, started: Started) -> None:
        """Serve until cancelled; then drain, and close the connections.

        Raises
        ------
        StartupError
            When the address cannot be listened on, or Kafka rejects it; while Kafka is unavailable,
            it is waited for.
        """
        config, tls = self._config, server_tls(self.name)
        security = Security.load(self.name, config.host, config.auth)
        states = States(self._window)
        admission = Admission(Limits(connections=config.max_clients), security)
        connections = Connections(states, admission, config.slow_client_s)
        async with contextlib.AsyncExitStack() as stack:
            metrics = await stack.enter_async_context(
                metrics_served(
                    config.metrics_port,
                    lambda: _measures(states, admission),
                    is_ready=lambda: self._is_following and not self._is_stopping,
                )
            )
            feed = await stack.enter_async_context(
                open_trade_feed(
                    config.aggregator, config.bus, self._local, config.aggregator_socket
                )
            )
            server = await listen(
                lambda: Connection(connections),
                config.host,
                config.port,
                tls=tls,
                unwrap=unwrap(config.proxy_protocol),
            )
            stack.callback(admission.close_all, CloseCode.GOING_AWAY, "the service stops")
            stack.callback(server.close)
            publisher = _Publisher(states, connections)
            if self._local_vwaps is not None:
                stack.enter_context(self._local_vwaps.offering(publisher))
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            await stack.enter_async_context(keeping_current(admission))
            self._is_following = True
            started({"tcp": server.address, **metrics})
            follower = Follower(
                feed, states, publisher.publish, connections.publish_probe, config.store
            )
            following = tasks.create_task(follower.run())
            stack.callback(following.cancel)
            await until_stopped(self.name, self._drain)

    async def _drain(self, duration_s: float) -> None:
        self._is_stopping = True
        await asyncio.sleep(duration_s)


class _Publisher:
    """Publishes states to connections, and to services of the same process."""

    def __init__(self, states: States, connections: Connections) -> None:
        self._states = states
        self._connections = connections
        self._updates: list[Update] = []

    def publish(self, symbols: Collection[str]) -> None:
        """Publish the states of symbols, which changed."""
        self._connections.publish(symbols)
        if self._updates:
            states = self._states.states(symbols)
            for update in self._updates:
                update(states)

    @contextlib.contextmanager
    def follow(self, update: Update) -> Iterator[None]:
        """As `ServedVwaps.follow`."""
        self._updates.append(update)
        self._send(update, self._states.symbols())
        try:
            yield
        finally:
            self._updates.remove(update)

    def _send(self, update: Update, symbols: Sequence[str], begin: int = 0) -> None:
        """Pass on the states of symbols: some now, the others in later turns of the event loop."""
        if update in self._updates:
            end = begin + STATES_AT_ONCE
            update(self._states.states(symbols[begin:end]))
            if end < len(symbols):
                asyncio.get_running_loop().call_soon(self._send, update, symbols, end)


def _measures(states: States, admission: Admission) -> Iterator[Metric]:
    from mdtool.services import families

    yield families.gauge("mdtool_symbols", len(states))
    yield from families.clients(admission)
