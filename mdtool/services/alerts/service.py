"""Detectors as a service: trades and quotes in, alerts to a function and to webhooks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.market import open_trade_feed
from mdtool.adapters.quotes.dbn_stream import DbnQuotes
from mdtool.core.addresses import listed, parse_address, parse_addresses
from mdtool.core.lifecycle import Started
from mdtool.engine.detect import Alert
from mdtool.services.alerts.config import DetectConfig
from mdtool.services.alerts.following import follow_market
from mdtool.services.alerts.rules import load_rules
from mdtool.services.alerts.watch import Watch
from mdtool.services.alerts.webhooks import Webhooks
from mdtool.services.gateway.feeds.alerts import encode_alert
from mdtool.services.metrics import metrics_served
from mdtool.wire.quotes import Quote

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class Detection:
    """Follows trades and quotes, and passes on each alert as it begins and as it has ended.

    Parameters
    ----------
    config : DetectConfig
    receive : callable
        Takes an alert.

    Raises
    ------
    UsageError
        When an address or a webhook is not valid.
    ConfigError
        When settings of detectors are not valid.
    """

    name = "detect"

    def __init__(self, config: DetectConfig, receive: Callable[[Alert], None]) -> None:
        parse_address(config.aggregator)
        if config.bus:
            KafkaAddress.parse(config.bus)
        self._config = config
        self._receive = receive
        self._webhooks = Webhooks(
            listed(config.webhook), config.webhook_secret, allows_inside=config.webhook_inside
        )
        watch = self._watch = Watch(load_rules(), self._publish)
        self._streams = [
            DbnQuotes(address, self._quote, functools.partial(watch.number, address))
            for address in parse_addresses(config.quotes_from)
        ]

    async def run(self, started: Started) -> None:
        """Follow until cancelled.

        Raises
        ------
        StartupError
            When Kafka cannot be reached, or the port of metrics is in use.
        """
        config = self._config
        async with contextlib.AsyncExitStack() as stack:
            trades = await stack.enter_async_context(
                open_trade_feed(config.aggregator, config.bus, socket=config.aggregator_socket)
            )
            addresses = await stack.enter_async_context(
                metrics_served(config.metrics_port, self._measures)
            )
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            tasks.create_task(self._webhooks.run())
            for stream in self._streams:
                tasks.create_task(stream.run())
            started(addresses)
            await follow_market(self._watch, trades, logging.WARNING)

    def _measures(self) -> Iterator[Metric]:
        from mdtool.services import families

        return families.alerts(self._watch, self._webhooks)

    def _quote(self, quotes: Sequence[Quote]) -> None:
        of_books = [each for each in quotes if each.bid is not None or each.ask is not None]
        if of_books:
            self._watch.quote(of_books)

    def _publish(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            self._receive(alert)
            self._webhooks.publish(encode_alert(alert))
