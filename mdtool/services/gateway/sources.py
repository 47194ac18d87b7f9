"""What is behind the gateway: the services and stores that its feeds are made of."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Self

import aiohttp

from mdtool.adapters.aggregator import AggregatorClient
from mdtool.adapters.book_services import BookService
from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.local_market import LocalAggregatorClient, LocalMarket
from mdtool.adapters.market import MarketReader, TradeFeed, open_trade_feed
from mdtool.adapters.quotes import open_hub
from mdtool.adapters.vwap_feed import LocalVwapFeedClient, LocalVwaps, VwapFeedClient
from mdtool.core.addresses import listed, parse_address, parse_addresses
from mdtool.services.aggregator.config import INTERVALS
from mdtool.services.alerts.rules import load_rules
from mdtool.services.alerts.webhooks import Webhooks
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.feeds import Feeds
from mdtool.services.gateway.feeds.aggregates import Aggregates
from mdtool.services.gateway.feeds.alerts import Alerts
from mdtool.services.gateway.feeds.bars import Bars
from mdtool.services.gateway.feeds.books import Books
from mdtool.services.gateway.feeds.feed import Audience, Feed
from mdtool.services.gateway.feeds.quotes import Quotes
from mdtool.services.gateway.feeds.symbols import Symbols
from mdtool.services.gateway.feeds.trades import Trades
from mdtool.services.gateway.feeds.vwap import Vwaps
from mdtool.services.gateway.history import History
from mdtool.services.gateway.hub import Hub
from mdtool.services.gateway.market import MarketState, MarketStream
from mdtool.services.gateway.table import TABLE
from mdtool.services.gateway.upstream import Upstream


class Sources:
    """Connects to what is configured, and makes the feeds. An async context manager.

    None of the services need be available yet, except a shared hub of quotes and Kafka.

    Parameters
    ----------
    config : GatewayConfig
    local : LocalMarket, optional
        The market of an aggregator in this process, which is then followed without gRPC.
    local_vwaps : LocalVwaps, optional
        The feed of a VWAP service in this process, which is then followed without TCP.
    notifies : bool
        Whether alerts are sent to webhooks: of several workers, one does that.

    Attributes
    ----------
    hub : Hub
        Through which every feed is written to its clients.
    feeds : Feeds
    market : MarketStream
        The market in memory, and the stream that keeps it current.
    upstream : Upstream
        How the aggregator gets requests.
    quotes : Quotes
    trades : Trades
    vwap : Vwaps
    alerts : Alerts
    history : History or None
    sender, receiver : BookService
        The services of order books.

    Raises
    ------
    UsageError
        When an address is not valid.
    ConfigError
        When a store or hub does not exist, or its package is not installed.
    """

    feeds: Feeds
    market: MarketStream
    quotes: Quotes
    trades: Trades
    vwap: Vwaps
    alerts: Alerts
    sender: BookService
    receiver: BookService

    def __init__(
        self,
        config: GatewayConfig,
        local: LocalMarket | None = None,
        local_vwaps: LocalVwaps | None = None,
        *,
        notifies: bool = True,
    ) -> None:
        if config.bus:
            KafkaAddress.parse(config.bus)
        for address in (config.aggregator, config.sender, config.receiver, config.vwap):
            parse_address(address)
        self._quote_streams = parse_addresses(config.quotes_from)
        self._config = config
        self._rules = load_rules()
        urls = listed(config.webhook)
        self._webhooks = Webhooks(
            urls if notifies else (), config.webhook_secret, allows_inside=config.webhook_inside
        )
        self._local = local
        self._local_vwaps = local_vwaps
        self.hub = Hub()
        self._quote_hub = open_hub(config.quotes_hub)
        self.history = History(config) if config.store else None
        self.upstream = Upstream.remote(f"aggregator {config.aggregator}", config)

    async def __aenter__(self) -> Self:
        config = self._config
        async with AsyncExitStack() as stack:
            aggregator, trade_feed, watched = await stack.enter_async_context(
                _market(config, self._local)
            )
            session = await stack.enter_async_context(
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
            )
            timeout_s = config.timeout_ms / 1_000
            self.sender = BookService("sender", "replay-dbn", config.sender, session, timeout_s)
            self.receiver = BookService("receiver", "book", config.receiver, session, timeout_s)
            if self.history is not None:
                await stack.enter_async_context(self.history)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            self._make_feeds(aggregator, trade_feed, watched, tasks)
            # Publishes quotes that are fresh already, so that the feed must exist.
            await stack.enter_async_context(self._quote_hub)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> bool | None:
        return await self._stack.__aexit__(*exc_info)  # type: ignore[arg-type]

    async def run(self) -> None:
        """Keep the feeds current until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.market.run())
            tasks.create_task(self.quotes.run())
            tasks.create_task(self.trades.run())
            tasks.create_task(self.vwap.run())
            tasks.create_task(self.alerts.run())
            tasks.create_task(self.sender.watch())
            tasks.create_task(self.receiver.watch())
            if self.history is not None:
                tasks.create_task(self.history.run())

    def _make_feeds(
        self,
        aggregator: MarketReader,
        trade_feed: TradeFeed,
        watched: TradeFeed,
        tasks: asyncio.TaskGroup,
    ) -> None:
        config, hub = self._config, self.hub
        state = MarketState(aggregator.address)
        aggregates = Aggregates(
            state,
            Audience(hub),
            lambda symbol, session: self.upstream.request(
                lambda timeout_s: aggregator.session(symbol, session, timeout_s)
            ),
        )
        self.quotes = Quotes(self._quote_hub, self._quote_streams, state, Audience(hub))
        self.trades = Trades(trade_feed, self.history, state, Audience(hub))
        symbols = Symbols(state, Audience(hub), self.trades.stored_symbols)
        vwaps = (
            VwapFeedClient(config.vwap)
            if self._local_vwaps is None
            else LocalVwapFeedClient(self._local_vwaps)
        )
        self.vwap = Vwaps(vwaps, Audience(hub))
        self.alerts = Alerts(self._rules, watched, self._webhooks, state, Audience(hub))
        self.quotes.listen(self.alerts.quote)
        self.quotes.listen_to_records(self.alerts.watch.number)
        receiver = Upstream.remote(f"receiver {config.receiver}", config)
        self.market = MarketStream(aggregator, state, hub)
        for listener in (aggregates.publish, symbols.publish, self.quotes.trade):
            self.market.listen(listener)
        self.market.listen_to_probes(aggregates.publish_probes)
        feeds: dict[str, Feed[Any]] = {
            "aggregates": aggregates,
            "bars": Bars(self.market, self.upstream, Audience(hub), tasks),
            "quotes": self.quotes,
            "books": Books(self.receiver, receiver, Audience(hub), tasks),
            "trades": self.trades,
            "vwap": self.vwap,
            "alerts": self.alerts,
            "symbols": symbols,
        }
        self.feeds = Feeds(feeds, TABLE)


@contextlib.asynccontextmanager
async def _market(
    config: GatewayConfig, local: LocalMarket | None
) -> AsyncIterator[tuple[MarketReader, TradeFeed, TradeFeed]]:
    """Give the reader of the market, and two feeds of its trades, for a block."""
    if config.bus and local is None:
        from mdtool.adapters.kafka.market import KafkaMarket

        async with KafkaMarket(config.bus, INTERVALS, config.bars_kept) as market:
            yield market, market.trade_feed(), market.trade_feed()
        return
    address, path = config.aggregator, config.aggregator_socket
    async with AsyncExitStack() as stack:
        reader: MarketReader = await stack.enter_async_context(
            AggregatorClient(address, path) if local is None else LocalAggregatorClient(local)
        )
        feeds = [
            await stack.enter_async_context(open_trade_feed(address, "", local, path))
            for _ in range(2)
        ]
        yield reader, feeds[0], feeds[1]
