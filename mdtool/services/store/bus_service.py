"""The service that keeps what is on a bus."""

from __future__ import annotations

import asyncio
import logging

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.core.lifecycle import Started
from mdtool.core.threads import run_in_thread
from mdtool.services.aggregator.config import AggregatorConfig

log = logging.getLogger(__name__)


class BusStore:
    """Keeps the trades of a bus in a store.

    Parameters
    ----------
    bus : str
        The URL of the bus.
    url : str
        The store's.
    config : AggregatorConfig
        What the aggregation service on the same store goes by.

    Raises
    ------
    ConfigError
        When the bus is none.
    """

    name = "store"

    def __init__(self, bus: str, url: str, config: AggregatorConfig) -> None:
        self._address = KafkaAddress.parse(bus)
        self._url = url
        self._config = config

    async def run(self, started: Started) -> None:
        """Keep until cancelled.

        Raises
        ------
        StartupError
            When Kafka cannot be reached, or another process holds the store.
        StoreError
            When it can keep no more.
        PeerError
            When a topic was deleted.
        """
        from mdtool.adapters.kafka.topics import open_topics, watched
        from mdtool.services.store.bus_keeper import BusKeeper

        topics = await asyncio.to_thread(open_topics, self._address)
        keeper = BusKeeper(topics, self._url, self._config)
        loop = asyncio.get_running_loop()

        def ready(address: str) -> None:
            log.info("%s: keeps what is on %s", address, self._address)
            loop.call_soon_threadsafe(started, {})

        async with watched(topics):
            await run_in_thread(str(self._address), lambda: keeper.run(ready), keeper.stop)
