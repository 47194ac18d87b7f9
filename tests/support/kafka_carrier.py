"""A KafkaBus for the tests of all buses, with a broker that can be out of its reach."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import uuid
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from mdtool.adapters.bus.kafka import KafkaBus
from mdtool.wire.partitions import decode_record
from tests.support.kafka_proxies import KafkaProxy


class OverKafka:
    """What a bus produces is read, past the proxy, into a ledger.

    Topics have one partition: what a ledger gets is whole runs.
    """

    doubles = 0
    """A record whose acknowledgement was lost is not in its topic twice."""

    def __init__(self, ledger, symbols, broker) -> None:
        self._ledger = ledger
        self._symbols = symbols
        self._address = broker.address
        self._prefix = f"test-{uuid.uuid4()}"
        self._url = f"kafka://{broker.proxied_address}?prefix={self._prefix}&partitions=1&wait_s=60"
        self._proxy = KafkaProxy(broker.proxy_port, broker.behind_port)
        self._proxy.may_reply = ledger.may_commit
        self._next_offset = 0

    @contextlib.asynccontextmanager
    async def bus(self):
        bus = KafkaBus(self._url, self._symbols)
        async with contextlib.AsyncExitStack() as stack:
            # It does not start where there is no Kafka.
            async with contextlib.nullcontext() if self._proxy.is_open else self._proxy.open():
                await stack.enter_async_context(bus)
            if self._ledger.refusal is not None:
                await asyncio.to_thread(self._refuse)
            yield bus

    @contextlib.asynccontextmanager
    async def far_end(self):
        async with self._proxy.open(), asyncio.TaskGroup() as tasks:
            consumer = Consumer({"bootstrap.servers": self._address, "group.id": "none"})
            ticks = TopicPartition(f"{self._prefix}.ticks", 0, self._next_offset)
            consumer.assign([ticks])
            reading = tasks.create_task(self._read(consumer))
            try:
                yield
                end = _end_of(ticks, consumer)
                if self._ledger.may_commit.is_set():
                    await self._ledger.when(lambda: self._next_offset >= end)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                consumer.close()

    def lose_ack(self) -> None:
        self._proxy.loses_reply = True

    async def _read(self, consumer) -> None:
        loop = asyncio.get_running_loop()
        consume = functools.partial(consumer.consume, 1_000, 0.02)
        # Left when its thread is, for a consumer that is still asked must not be closed.
        async with asyncio.TaskGroup() as commits:
            with ThreadPoolExecutor(1) as thread:
                while True:
                    for message in await loop.run_in_executor(thread, consume):
                        assert message.error() is None
                        part = decode_record(message.value())
                        commits.create_task(self._commit(part, message.offset()))

    async def _commit(self, part, offset) -> None:
        await self._ledger.commit(part.stream_id, part.first_sequence, part.frames, part.symbols)
        self._next_offset = offset + 1
        await self._ledger.notify()

    def _refuse(self) -> None:
        """Have the broker take no record, however short."""
        topic = ConfigResource(ResourceType.TOPIC, f"{self._prefix}.ticks")
        topic.add_incremental_config(
            ConfigEntry("max.message.bytes", "1", incremental_operation=AlterConfigOpType.SET)
        )
        admin = AdminClient({"bootstrap.servers": self._address})
        for altered in admin.incremental_alter_configs([topic]).values():
            altered.result()
        longest = ""
        while longest != "1":  # the broker follows what was altered
            for described in admin.describe_configs([topic]).values():
                longest = described.result()["max.message.bytes"].value


def _end_of(partition, consumer) -> int:
    """Return the offset behind the last record, once the partition has a leader that tells."""
    while True:
        with contextlib.suppress(KafkaException):
            return consumer.get_watermark_offsets(partition)[1]
