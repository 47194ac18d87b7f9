"""The aggregation service over Kafka: a member of the group, and gRPC's health to tell of it.

The market of one member is a part of the whole, which readers find on the topics: it answers no
calls of MarketDataService.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import grpc.aio

from mdtool.adapters import rpc
from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.core.errors import UsageError
from mdtool.core.lifecycle import Started
from mdtool.core.threads import run_in_thread
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.listening import OPTIONS, STATUS, add_health, listen

_STOP_GRACE_S: Final = 0.5


class BusAggregator:
    """Aggregates what Kafka has, together with others of its group.

    Parameters
    ----------
    config : AggregatorConfig
        Where Kafka is, where health is told, and what bounds the state.

    Raises
    ------
    UsageError
        When the bus is none, or there is a store beside it.
    """

    name = "aggregate"

    def __init__(self, config: AggregatorConfig) -> None:
        if config.store:
            raise UsageError("--bus and --store: choose one; store --bus keeps a bus's trades")
        self._config = config
        self._address = KafkaAddress.parse(config.bus)

    async def run(self, started: Started) -> None:
        """Take part until cancelled; what is being written then is finished, or is not there.

        Raises
        ------
        StartupError
            When the address cannot be bound, or Kafka cannot be reached or has topics that are not
            as they should be.
        PeerError
            When what the topics hold is not mdtool's, or one of them was deleted.
        """
        from mdtool.adapters.kafka.topics import open_topics, watched
        from mdtool.services.aggregator.group_member import GroupMember

        loop = asyncio.get_running_loop()
        server = grpc.aio.server(options=OPTIONS)
        status = add_health(server)
        address = listen(server, self._config.host, self._config.port)
        topics = await asyncio.to_thread(open_topics, self._address)

        def tell(takes_part: bool) -> None:
            setting = status.set(rpc.SERVICE.full_name, STATUS[takes_part])
            with contextlib.suppress(RuntimeError):  # the loop is closed
                asyncio.run_coroutine_threadsafe(setting, loop)

        member = GroupMember(topics, self._config, tell)
        async with contextlib.AsyncExitStack() as stack:
            await server.start()
            stack.push_async_callback(server.stop, _STOP_GRACE_S)
            stack.push_async_callback(status.enter_graceful_shutdown)
            await stack.enter_async_context(watched(topics))
            started({"grpc": address})
            await run_in_thread(str(self._address), member.run, member.stop)
