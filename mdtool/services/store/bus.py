"""`store --bus`: the trades of a bus, written into a store and resumed from its own positions."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.client import (
    Consumer,
    KafkaException,
    Message,
    TopicPartition,
    arrived,
    consumer,
    error_of,
)
from mdtool.adapters.kafka.topics import (
    FRAMES,
    TICKS,
    Topics,
    offset_of,
    opened_topics,
    sequence_at,
    source_of,
    stream_of,
    watched,
)
from mdtool.adapters.stores import Store, open_store
from mdtool.adapters.stores.errors import StoreError, StoreUnavailableError
from mdtool.core.lifecycle import Started
from mdtool.core.threads import run_in_thread
from mdtool.core.trades import Frames, TradeRun
from mdtool.engine.market import Change, Market
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.markets import FrameCheck
from mdtool.services.aggregator.storage import StoreSize
from mdtool.services.kafka_reading import KafkaReading
from mdtool.services.metrics import metrics_served
from mdtool.services.store.awaited import Awaited
from mdtool.services.store.retention import retained
from mdtool.services.store.writer import MarketWriter
from mdtool.wire.batches import BatchError
from mdtool.wire.partitions import PartitionDecoder

if TYPE_CHECKING:
    from prometheus_client.core import Metric

log = logging.getLogger(__name__)

_WAIT_S: Final = 0.1
_STEP_RECORDS: Final = 200
"""The largest number of records in one step of the store."""
_ANSWER_S: Final = 5.0
_PAUSE_S: Final = 1.0


class BusStore:
    """Writes the trades of a bus into a store.

    Parameters
    ----------
    bus : str
        The URL of the bus.
    url : str
        The store's.
    config : AggregatorConfig
        The settings of an aggregation service on the same store.
    keep : str, optional
        What the store keeps: `[store] keep`.
    metrics_port : int, optional
        Where its metrics are served; by default nowhere.

    Raises
    ------
    ConfigError
        When the URL of the bus is not valid.
    """

    name = "store"

    def __init__(
        self,
        bus: str,
        url: str,
        config: AggregatorConfig,
        keep: str = "",
        metrics_port: int | None = None,
    ) -> None:
        self._metrics_port = metrics_port
        self._keep = keep
        self._address = KafkaAddress.parse(bus)
        self._url = url
        self._config = config

    async def run(self, started: Started) -> None:
        """Write until cancelled.

        Raises
        ------
        StartupError
            When Kafka rejects it, or another process holds the store.
        StoreError
            When the store cannot be written any more. Servers that are unavailable are waited for.
        PeerError
            When a topic was deleted.
        """
        reader = _TicksReader(self._address, self._url, self._config)
        loop = asyncio.get_running_loop()

        def ready(address: str) -> None:
            log.info("%s: stores the trades of %s", address, self._address)
            loop.call_soon_threadsafe(started, metrics)

        async with metrics_served(
            self._metrics_port, reader.measures, is_ready=lambda: reader.is_open
        ) as metrics:
            topics = await opened_topics(self._address)
            async with watched(topics), retained(self._url, self._keep, self._config.session):
                await run_in_thread(
                    str(self._address), lambda: reader.run(topics, ready), reader.stop
                )


class _TicksReader:
    """Reads the topic of ticks into a store. Its methods block.

    Parameters
    ----------
    address : KafkaAddress
    url : str
        The store's.
    config : AggregatorConfig
        The settings of an aggregation service on the same store.
    """

    def __init__(self, address: KafkaAddress, url: str, config: AggregatorConfig) -> None:
        self._address = address
        self._ticks = address.topic(TICKS)
        self._url = url
        self._config = config
        self._stopping = threading.Event()
        self._partitions: list[_Partition] = []
        self._reading = KafkaReading()
        self._size: StoreSize | None = None

    @property
    def is_open(self) -> bool:
        """Whether the store was opened."""
        return self._size is not None

    def stop(self) -> None:
        """End `run` after the step that is being written."""
        self._stopping.set()

    def run(self, topics: Topics, ready: Callable[[str], None]) -> None:
        """Read until stopped.

        Parameters
        ----------
        topics : Topics
            Those of the address.
        ready : callable
            Called with the store's address once it is open.

        Raises
        ------
        StoreClaimedError
            When another process holds the store.
        StoreError
            When the store cannot be written any more.
        """
        with (
            contextlib.ExitStack() as stack,
            contextlib.closing(self._consumer()) as reader,
        ):
            opened = self._opened(stack)
            if opened is None:
                return
            store, writer = opened
            self._size = StoreSize(store)
            self._restore_partitions(topics.partitions, store, writer.market)
            self._check_topic(topics.ticks_id, store, writer)
            self._assign(reader)
            ready(store.address)
            while not self._stopping.is_set():
                messages = self._arrived(reader)
                changes = self._changes(messages)
                if changes and self._write(writer, changes):
                    self._commit_offsets(reader, messages)
                self._size.measure()
                positions = {each.number: offset_of(each.sequence) for each in self._partitions}
                self._reading.place(reader, self._ticks, positions)

    def measures(self) -> Iterator[Metric]:
        """Yield its metrics."""
        yield from self._reading.measures()
        if self._size is not None:
            yield from self._size.measures()

    def _opened(self, stack: contextlib.ExitStack) -> tuple[Store, MarketWriter] | None:
        """Open the store as soon as it is available, None when stopped before."""
        awaited = Awaited(self._url)
        while not self._stopping.is_set():
            try:
                with contextlib.ExitStack() as attempt:
                    store = attempt.enter_context(open_store(self._url))
                    writer = MarketWriter(store, self._config)
                    stack.enter_context(attempt.pop_all())
                    return store, writer
            except StoreUnavailableError as error:
                self._stopping.wait(awaited.pause_s(error))
        return None

    def _write(self, writer: MarketWriter, changes: Sequence[Change]) -> bool:
        """Write changes and count them; return whether they are written."""
        began_s = time.monotonic()
        if not writer.write(changes, self._stopping):
            return False
        self._reading.times.add(time.monotonic() - began_s)
        self._reading.ticks += sum(len(change.run.trades) for change in changes)
        return True

    def _consumer(self) -> Consumer:
        digest = hashlib.sha256(self._url.encode()).hexdigest()[:12]
        group = self._address.topic(f"store-{digest}")
        settings = {"group.id": group, "isolation.level": "read_uncommitted"}
        return consumer(self._address, settings)

    def _restore_partitions(self, count: int, store: Store, market: Market) -> None:
        for number in range(count):
            partition = _Partition(self._address, number, count, market)
            position = store.position(partition.stream_id)
            if position is not None:  # however many streams were written since
                market.remember(partition.stream_id, position)
            self._partitions.append(partition)

    def _check_topic(self, topic_id: str, store: Store, writer: MarketWriter) -> None:
        """Check that the store has the trades of this topic, not of another with its name.

        The store knows the topic's id as a stream of one frame, without trades.
        """
        stream_id = f"{self._ticks}@{topic_id}"
        if store.position(stream_id) is not None:
            return
        if any(partition.sequence for partition in self._partitions):
            raise StoreError(
                f"{self._address}: {self._ticks} was recreated since its trades were stored; name "
                "another store"
            )
        writer.write([writer.market.apply(stream_id, 0, Frames.empty(1))], self._stopping)

    def _assign(self, reader: Consumer) -> None:
        """Read each partition from the position that is stored."""
        reader.assign([self._place(reader, partition) for partition in self._partitions])

    def _place(self, reader: Consumer, partition: _Partition) -> TopicPartition:
        place = TopicPartition(self._ticks, partition.number)
        next_offset = offset_of(partition.sequence)
        low = next_offset
        with contextlib.suppress(KafkaException):
            low, high = reader.get_watermark_offsets(place, timeout=_ANSWER_S)
            if next_offset > high:
                raise StoreError(
                    f"{self._address}: partition {partition.number} is stored up to {next_offset}, "
                    f"but {place.topic} ends at {high}; name another store"
                )
        if next_offset and low > next_offset:
            log.error("%s: records %d to %d are lost", partition.stream_id, next_offset, low)
        place.offset = max(next_offset, low)
        return place

    def _arrived(self, reader: Consumer) -> list[Message]:
        """Return the next records; after an error none, and read again from what is stored."""
        try:
            return arrived(reader, _WAIT_S, _STEP_RECORDS)
        except KafkaException as error:
            log.warning("%s: %s; retrying", self._address, error_of(error).str())
            self._stopping.wait(_PAUSE_S)
            self._assign(reader)
            return []

    def _changes(self, messages: Sequence[Message]) -> list[Change]:
        changes: list[Change] = []
        for message in messages:
            partition, offset = self._partitions[message.partition() or 0], message.offset() or 0
            if offset < offset_of(partition.sequence):
                continue
            try:
                changes += partition.apply(message.value() or b"", offset)
            except BatchError as error:
                log.warning("%s, offset %d: skipped: %s", partition.stream_id, offset, error)
                self._reading.dead_letters += 1
                changes += partition.skip(offset)
        return changes

    def _commit_offsets(self, reader: Consumer, messages: Sequence[Message]) -> None:
        """Commit offsets, which show tools the lag of the store."""
        ends = {message.partition(): (message.offset() or 0) + 1 for message in messages}
        with contextlib.suppress(KafkaException):
            reader.commit(
                offsets=[TopicPartition(self._ticks, p or 0, end) for p, end in ends.items()],
                asynchronous=True,
            )


class _Partition:
    """Applies the records of one partition to the market.

    A trade's stream is the partition, its sequence the record's offset and its number in the
    record. Frames that an ingest server produced again, after a crash, have another offset: the
    position of each client's stream in the partition is stored too, as a stream without trades.

    Parameters
    ----------
    address : KafkaAddress
    number : int
        Of the partition.
    partitions : int
        Their number.
    market : Market
        Shared by all partitions.
    """

    def __init__(self, address: KafkaAddress, number: int, partitions: int, market: Market) -> None:
        self.stream_id = stream_of(address, number)
        self.number = number
        self._market = market
        self._decoder = PartitionDecoder(number, partitions)
        self._check = FrameCheck(market, self._decoder.symbols)

    @property
    def sequence(self) -> int:
        """The position of the partition."""
        return self._market.position(self.stream_id) or 0

    def apply(self, data: bytes, offset: int) -> list[Change]:
        """Apply the record at an offset; return the changes, which belong in one step.

        Raises
        ------
        BatchError
            When it cannot be decoded; nothing has changed.
        """
        run = self._decoder.decode(data)
        return self._apply(run, self._check.admit(run.frames), offset)

    def skip(self, offset: int) -> list[Change]:
        """Move the partition behind the record at an offset."""
        return self._move(self.stream_id, sequence_at(offset + 1))

    def _apply(self, run: TradeRun, frames: Frames, offset: int) -> list[Change]:
        source = source_of(run.stream_id, self.number)
        position = self._market.position(source)
        new = frames if position is None else frames.after(position - run.first_sequence)
        self._market.counts.duplicates += len(frames.trades) - len(new.trades)
        numbered = dataclasses.replace(
            new, offset=np.arange(len(new.trades), dtype=np.uint32), count=FRAMES
        )
        changes = self._move(self.stream_id, sequence_at(offset))
        changes.append(self._market.apply(self.stream_id, sequence_at(offset), numbered))
        if position is None:
            self._market.skip(source, run.first_sequence)
        return changes + self._move(source, run.next_sequence)

    def _move(self, stream_id: str, sequence: int) -> list[Change]:
        """Move a stream forward to a sequence, without trades."""
        position = self._market.position(stream_id) or 0
        if sequence <= position:
            return []
        return [self._market.apply(stream_id, position, Frames.empty(sequence - position))]
