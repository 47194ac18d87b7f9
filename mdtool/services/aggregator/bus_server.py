"""The aggregation service over Kafka: a member of the group, and gRPC's health to tell of it.

The market of one member is a part of the whole, which readers find on the topics: it answers no
calls of MarketDataService.
"""

from __future__ import annotations

import asyncio
import contextlib

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from mdtool.adapters import rpc
from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.core.errors import UsageError
from mdtool.core.lifecycle import Started
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.listening import OPTIONS, listen
from mdtool.services.blocking import run_blocking

_STOP_GRACE_S = 0.5


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
        RecordError
            When what the topics hold is not mdtool's.
        """
        from mdtool.adapters.kafka.topics import open_topics
        from mdtool.services.aggregator.group_member import GroupMember

        loop = asyncio.get_running_loop()
        status = health.aio.HealthServicer()
        server = grpc.aio.server(options=OPTIONS)
        health_pb2_grpc.add_HealthServicer_to_server(status, server)
        names = (health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        address = listen(server, self._config.host, self._config.port)
        partitions = await asyncio.to_thread(open_topics, self._address)

        def tell(takes_part: bool) -> None:
            states = health_pb2.HealthCheckResponse
            state = states.SERVING if takes_part else states.NOT_SERVING
            with contextlib.suppress(RuntimeError):  # the loop is closed
                asyncio.run_coroutine_threadsafe(status.set(rpc.SERVICE.full_name, state), loop)

        member = GroupMember(self._address, partitions, self._config, tell)
        async with contextlib.AsyncExitStack() as stack:
            await server.start()
            stack.push_async_callback(server.stop, _STOP_GRACE_S)
            stack.push_async_callback(status.enter_graceful_shutdown)
            started({"grpc": address})
            await run_blocking(str(self._address), member.run, member.stop)
