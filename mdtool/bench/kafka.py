"""Ticks a second over TCP, through Kafka, into committed aggregates, on a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, Self

import numpy as np

from mdtool.adapters.kafka.address import SCHEME, KafkaAddress
from mdtool.adapters.kafka.client import TopicPartition, admin, arrived, consumer, producer
from mdtool.adapters.kafka.records import Aggregates
from mdtool.adapters.kafka.topics import AGGREGATES, TICKS, open_topics, topic_names
from mdtool.bench.figures import Figure, in_turns
from mdtool.bench.market import SYMBOLS, frames, send
from mdtool.bench.processes import service
from mdtool.core.errors import PeerError, UsageError
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Frames, TradeRun, Trades
from mdtool.core.units import NS_PER_MS, PRICE_SCALE
from mdtool.wire.partitions import MAX_RUN_FRAMES, PartitionEncoder

BROKER: Final = "MDTOOL_KAFKA"
"""The environment variable with the `HOST:PORT` of the broker."""
TICKS_A_ROUND: Final = 2_000_000
ROUNDS: Final = 3

_PARTITIONS: Final = 3
_BARE: Final = "the same bytes through a bare producer and consumer"
START_S: Final = 5
"""How long the broker may take to answer at first."""
_WAIT_S: Final = 0.2
_PATIENCE_S: Final = 60.0


async def measure(ticks: int = TICKS_A_ROUND, rounds: int = ROUNDS) -> list[Figure]:
    """Return the rate of the services, beside that of moving the same bytes.

    A round ends when all its ticks are in committed aggregates. Topics are of a prefix of their
    own, and are deleted in the end.

    Raises
    ------
    UsageError
        When `BROKER` is not set.
    StartupError
        When it cannot be reached.
    PeerError
        When not every tick arrives.
    """
    servers = os.environ.get(BROKER, "").removeprefix(f"{SCHEME}://")
    if not servers:
        raise UsageError(f"bench kafka needs a broker: set {BROKER} to its HOST:PORT")
    query = f"prefix=mdtool-bench-{uuid.uuid4()}&partitions={_PARTITIONS}&wait_s={START_S}"
    url = f"{SCHEME}://{servers}?{query}"
    address = KafkaAddress.parse(url)
    bare = replace(address, prefix=f"{address.prefix}-bare")
    for each in (address, bare):
        await asyncio.to_thread(open_topics, each)
    try:
        async with contextlib.AsyncExitStack() as running:
            running.enter_context(totals := _Totals(address))
            await running.enter_async_context(service("aggregate", "--bus", url))
            ingest = await running.enter_async_context(service("serve-tcp", "--bus", url))
            rates = []
            taken, began_ns = 0, time.time_ns()
            for number in range(-1, rounds):
                count = ticks if number >= 0 else ticks // 10  # the first one warms up
                data = frames(count, began_ns + taken * NS_PER_MS)
                taken += count
                began_s = time.perf_counter()
                await asyncio.to_thread(send, ingest, data, f"Accepted {count} ")
                await asyncio.to_thread(totals.wait, taken)
                committed_s = time.perf_counter() - began_s
                bare_s = await asyncio.to_thread(_move, bare, count)
                if number >= 0:
                    rates.append((count / committed_s, count / bare_s))
    finally:
        for each in (address, bare):
            await asyncio.to_thread(_delete, each)
    return [in_turns("kafka", "ticks/s", _BARE, rates)]


class _Totals:
    """How many ticks are in committed aggregates. A context manager, which owns the connection."""

    def __init__(self, address: KafkaAddress) -> None:
        self._reader = consumer(address)
        topic = address.topic(AGGREGATES)
        self._reader.assign([TopicPartition(topic, p, 0) for p in range(_PARTITIONS)])
        self._partitions = [Aggregates() for _ in range(_PARTITIONS)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._reader.close()

    def wait(self, ticks: int) -> None:
        """Read until so many are there.

        Raises
        ------
        PeerError
            When they are not after a while, or more are.
        """
        deadline_s = time.monotonic() + _PATIENCE_S
        while (total := self._total()) < ticks and time.monotonic() < deadline_s:
            for message in arrived(self._reader, _WAIT_S, 10_000):
                partition = self._partitions[message.partition() or 0]
                partition.apply(message.key(), message.value())
        if total != ticks:
            raise PeerError(f"{total} ticks are in aggregates, not {ticks}")

    def _total(self) -> int:
        return sum(partition.totals.get("ticks", 0) for partition in self._partitions)


def _move(address: KafkaAddress, count: int) -> float:
    """Produce what serve-tcp does of so many ticks, consume it, and return how long that takes."""
    records = list(_records(count))
    sender = producer(address, {"message.timeout.ms": 0})
    topic = address.topic(TICKS)
    places = [TopicPartition(topic, partition) for partition in range(_PARTITIONS)]
    with contextlib.closing(consumer(address)) as reader:
        for place in places:
            place.offset = reader.get_watermark_offsets(place)[1]
        reader.assign(places)
        missing = len(records)

        def read() -> None:
            nonlocal missing
            while missing:
                missing -= len(arrived(reader, _WAIT_S, 10_000))

        reading = threading.Thread(target=read, daemon=True)
        began_s = time.perf_counter()
        reading.start()
        for partition, data in records:
            sender.produce(topic, data, partition=partition)
            sender.poll(0)
        sender.flush()
        reading.join(_PATIENCE_S)
        elapsed_s = time.perf_counter() - began_s
    if missing:
        raise PeerError(f"{missing} of {len(records)} records did not come back")
    return elapsed_s


def _records(count: int) -> Iterator[tuple[int, bytes]]:
    """Yield the records of ticks as serve-tcp writes them."""
    symbols = SymbolTable(SYMBOLS)
    encoder = PartitionEncoder(symbols, _PARTITIONS)
    random = np.random.default_rng(0)
    now_ns = time.time_ns()
    for first in range(0, count, MAX_RUN_FRAMES):
        number = np.arange(first, min(count, first + MAX_RUN_FRAMES))
        trades = Trades(
            symbol=(number % len(SYMBOLS)).astype(np.uint32),
            price=random.integers(100 * PRICE_SCALE, 200 * PRICE_SCALE, len(number)),
            size=random.integers(1, 1_000, len(number)),
            ts_event=now_ns + number * NS_PER_MS,
            ts_recv=np.full(len(number), now_ns),
        )
        yield from encoder.encode(TradeRun(symbols, "bench", first, Frames.of(trades)))


def _delete(address: KafkaAddress) -> None:
    client = admin(address)
    for deleted in client.delete_topics(topic_names(address)).values():
        deleted.result()
