"""The VWAP feed as a service: trades from a feed in, lines to any number of clients out."""

from __future__ import annotations

import contextlib

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.trades.grpc import GrpcTradeFeed
from mdtool.adapters.trades.port import TradeFeed
from mdtool.core.addresses import parse_address
from mdtool.core.lifecycle import Started
from mdtool.core.limits import raise_file_limit
from mdtool.engine.vwap import Window
from mdtool.services.tcp import address_of, listen
from mdtool.services.vwap.board import Board
from mdtool.services.vwap.client import Client
from mdtool.services.vwap.clients import Clients
from mdtool.services.vwap.config import VwapConfig
from mdtool.services.vwap.follower import Follower


class VwapFeed:
    """Listens for clients, and tells them what it makes of an aggregator's trades.

    Parameters
    ----------
    config : VwapConfig

    Raises
    ------
    UsageError
        When the window, the aggregator's address or the bus is none.
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
        raise_file_limit()
        board = Board(self._window)
        clients = Clients(board, self._config.max_clients, self._config.slow_client_s)
        async with contextlib.AsyncExitStack() as stack:
            feed = await stack.enter_async_context(_trade_feed(self._config))
            server = await listen(lambda: Client(clients), self._config.host, self._config.port)
            stack.callback(clients.close)
            stack.callback(server.close)
            follower = Follower(feed, board, clients.publish, self._window, self._config.store)
            started({"tcp": address_of(server)})
            await follower.run()


def _trade_feed(config: VwapConfig) -> contextlib.AbstractAsyncContextManager[TradeFeed]:
    if not config.bus:
        return GrpcTradeFeed(config.aggregator)
    from mdtool.adapters.trades.kafka import KafkaTradeFeed

    return KafkaTradeFeed(config.bus)
