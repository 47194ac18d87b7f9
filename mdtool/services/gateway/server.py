"""The gateway: an HTTP server in front of one stream of the aggregator's state."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.aggregator import AggregatorClient
from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.quotes import open_hub
from mdtool.core.addresses import parse_address
from mdtool.core.lifecycle import Started
from mdtool.core.limits import raise_file_limit
from mdtool.services.aggregator.config import INTERVALS
from mdtool.services.gateway.bar_feed import BarFeed
from mdtool.services.gateway.books import book_proxy
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.feed import Feed
from mdtool.services.gateway.graphql.face import PATH, GraphQL
from mdtool.services.gateway.health import Health
from mdtool.services.gateway.history.face import History
from mdtool.services.gateway.metrics import registry
from mdtool.services.gateway.operations import operations
from mdtool.services.gateway.order_books import OrderBooks
from mdtool.services.gateway.pages.assets import Assets
from mdtool.services.gateway.protection import Protection
from mdtool.services.gateway.quotes.face import TALLY, Quotes
from mdtool.services.gateway.rest import Rest
from mdtool.services.gateway.routes import MARKET_DATA_SOCKETS, application
from mdtool.services.gateway.signaling.ice import IceServers
from mdtool.services.gateway.sockets import MarketDataSockets
from mdtool.services.gateway.state import MarketState
from mdtool.services.gateway.stomp.face import Stomp
from mdtool.services.gateway.tallies import Tallies
from mdtool.services.gateway.view import MarketView
from mdtool.services.http.listening import listening

if TYPE_CHECKING:
    from mdtool.adapters.kafka.market import KafkaMarket


class Gateway:
    """What browsers and other clients read market data from.

    It starts without the aggregator, and outlives it: see `MarketState`.

    Parameters
    ----------
    config : GatewayConfig
        Where it listens, and whom it asks.
    """

    name = "gateway"

    def __init__(self, config: GatewayConfig) -> None:
        if config.bus:
            KafkaAddress.parse(config.bus)
        for address in (config.aggregator, config.sender, config.receiver):
            parse_address(address)
        if config.quotes_from:
            parse_address(config.quotes_from)
        self._config = config
        self._assets = Assets(config.assets)
        self._quote_hub = open_hub(config.quotes_hub)
        self._protection = Protection(config)
        self._history = History(config, self._protection)
        self._ice_servers = IceServers(
            config.stun_urls, config.turn_urls, config.turn_secret, config.turn_ttl_s
        )

    async def run(self, started: Started) -> None:
        """Serve until cancelled; then close the sockets, and let requests end.

        Raises
        ------
        StartupError
            When the address cannot be listened on, or a shared hub of quotes or Kafka is away.
        """
        raise_file_limit()
        config, protection = self._config, self._protection
        state, tallies = MarketState(), Tallies()
        limit = protection.sockets
        sockets = MarketDataSockets(
            state, limit, config.slow_client_s, tallies.socket(MARKET_DATA_SOCKETS)
        )
        quotes = Quotes(config, self._quote_hub, state, limit, tallies.socket(TALLY))
        timeout_s = config.timeout_ms / 1_000
        async with (
            _market_reader(config) as aggregator,
            book_proxy(config.sender, config.receiver, timeout_s) as books,
            self._quote_hub,
            self._history as history,
            asyncio.TaskGroup() as tasks,
        ):
            view = MarketView(state, aggregator, protection.resilience, protection.upstream)
            bar_feed = BarFeed(aggregator, protection.upstream, tasks)
            order_books = OrderBooks(books.receiver, protection.upstream, tasks)
            graphql = GraphQL(
                config,
                view,
                bar_feed,
                quotes,
                order_books,
                history.view,
                protection,
                tallies.socket(PATH),
            )
            stomp = Stomp(config, state, bar_feed, quotes.board, protection, tallies)

            def publish(changed: NDArray[np.intp]) -> None:
                sockets.publish(changed)
                graphql.publish(changed)
                stomp.publish(changed)
                quotes.publish(changed)

            feed = Feed(aggregator, state, publish)
            health = Health(state, feed, aggregator, quotes, history, protection, tallies)
            metrics = registry(state, feed, quotes, history, protection, tallies)
            app = application(
                operations(
                    Rest(view), history.rest, quotes, health, books, self._ice_servers, metrics
                ),
                sockets,
                graphql,
                stomp,
                quotes,
                books,
                protection,
                tallies,
                self._assets,
            )
            async with listening(app, config.host, config.port) as address:
                started({"http": address})
                tasks.create_task(stomp.run())
                tasks.create_task(quotes.run())
                tasks.create_task(history.run())
                await feed.run()


def _market_reader(config: GatewayConfig) -> AggregatorClient | KafkaMarket:
    if not config.bus:
        return AggregatorClient(config.aggregator)
    from mdtool.adapters.kafka.market import KafkaMarket

    return KafkaMarket(config.bus, INTERVALS, config.bars_kept)
