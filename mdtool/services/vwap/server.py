"""The VWAP feed as a service: trades of a feed in, JSON lines to any number of clients out."""

from __future__ import annotations

import contextlib

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.market import open_trade_feed
from mdtool.core.addresses import parse_address
from mdtool.core.lifecycle import Started
from mdtool.core.tcp import listen
from mdtool.engine.vwap import Window
from mdtool.services.client import Admission, Limits
from mdtool.services.vwap.config import VwapConfig
from mdtool.services.vwap.connections import Connection, Connections
from mdtool.services.vwap.follower import Follower
from mdtool.services.vwap.states import States
from mdtool.wire.websocket import CloseCode


class VwapFeed:
    """Follows trades, and publishes the VWAP of every symbol over TCP.

    Parameters
    ----------
    config : VwapConfig

    Raises
    ------
    UsageError
        When the window, the aggregator's address or the bus is not valid.
    """

    name = "vwap"

    def __init__(self, config: VwapConfig) -> None:
        self._config = config
        window = Window.parse(config.window)
        if window.span_ns:
            window = Window(config.max_trades, window.span_ns)
        self._window = window
        parse_address(config.aggregator)
        if config.bus:
            KafkaAddress.parse(config.bus)

    async def run(self, started: Started) -> None:
        """Serve until cancelled.

        Raises
        ------
        StartupError
            When the address cannot be listened on, or Kafka cannot be reached.
        """
        config = self._config
        states = States(self._window)
        admission = Admission(Limits(connections=config.max_clients))
        connections = Connections(states, admission, config.slow_client_s)
        async with contextlib.AsyncExitStack() as stack:
            feed = await stack.enter_async_context(open_trade_feed(config.aggregator, config.bus))
            server = await listen(lambda: Connection(connections), config.host, config.port)
            stack.callback(admission.close_all, CloseCode.GOING_AWAY, "the service stops")
            stack.callback(server.close)
            started({"tcp": server.address})
            await Follower(feed, states, connections.publish, config.store).run()
