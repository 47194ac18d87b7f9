"""The feed of all trades on Kafka."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final, NoReturn

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.client import (
    KafkaError,
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
    opened_topics,
    sequence_at,
    source_of,
    stream_of,
    watched,
)
from mdtool.adapters.market import Connected, TradeStream
from mdtool.core.errors import PeerError
from mdtool.core.threads import AsyncReadAhead
from mdtool.core.trades import Frames, TradeRun
from mdtool.wire.batches import BatchError
from mdtool.wire.partitions import PartitionDecoder

log = logging.getLogger(__name__)

_WAIT_S: Final = 0.1
_AT_ONCE: Final = 500
_ANSWER_S: Final = 2.0
_BATCHES_AHEAD: Final = 1
_BEFORE: Final = 1_000
"""Records before the end of each partition, from which only the positions of streams are read."""
_MAX_STREAMS: Final = 100_000


class KafkaTradeFeed:
    """A `TradeFeed` of the topic of ticks.

    A run has the stream and sequences that a store of the bus has for its trades. Frames that an
    ingest server produced again, after a crash, are passed on once.

    Parameters
    ----------
    address : KafkaAddress
    partitions : callable
        Returns how many there are of ticks, once the topics are open.
    """

    def __init__(self, address: KafkaAddress, partitions: Callable[[], Awaitable[int]]) -> None:
        self._address = address
        self._partitions = partitions

    @property
    def name(self) -> str:
        """The name of the feed in messages."""
        return str(self._address)

    async def follow_trades(
        self, connected: Connected, receive: Callable[[TradeRun], None]
    ) -> NoReturn:
        """As `TradeFeed.follow_trades`; records are passed on as they arrive, never collected."""
        stream = TradeStream(lambda _interval_ms: stream.lost(), receive)
        reader = _Reader(self._address, await self._partitions())
        batches = AsyncReadAhead(reader.batches(), _BATCHES_AHEAD)
        try:
            await anext(batches)  # empty, once the ends of partitions are known
            connected(stream)
            async for batch in batches:
                for run in batch:
                    stream.received(run)
        finally:
            reader.stop()
            await batches.close()
        raise AssertionError


@contextlib.asynccontextmanager
async def trade_feed(address: KafkaAddress) -> AsyncIterator[KafkaTradeFeed]:
    """Open the topics, and give their feed for a block.

    When a topic is deleted, the block is cancelled and raises PeerError.
    """
    topics = await opened_topics(address)

    async def partitions() -> int:
        return topics.partitions

    async with watched(topics):
        yield KafkaTradeFeed(address, partitions)


class _Reader:
    """Reads the new trades of all partitions, in a thread.

    Parameters
    ----------
    address : KafkaAddress
    partitions : int
        Their number.
    """

    def __init__(self, address: KafkaAddress, partitions: int) -> None:
        self._address = address
        self._stopping = threading.Event()
        self._is_lost = False
        self._decoders = [PartitionDecoder(number, partitions) for number in range(partitions)]
        self._positions: OrderedDict[str, int] = OrderedDict()
        self._begins: dict[int, int] = {}
        """The offset of each partition from which trades are passed on."""

    def stop(self) -> None:
        """End `batches`."""
        self._stopping.set()

    def batches(self) -> Iterator[list[TradeRun]]:
        """Yield an empty list once positions are known, then runs as they arrive, until stopped.

        Raises
        ------
        PeerError
            When the servers are lost.
        """
        try:
            yield from self._batches()
        except KafkaException as error:
            raise PeerError(f"{self._address}: {error_of(error).str()}") from error

    def _batches(self) -> Iterator[list[TradeRun]]:
        settings = {"isolation.level": "read_uncommitted", "error_cb": self._note}
        with contextlib.closing(consumer(self._address, settings)) as reader:
            ticks = self._address.topic(TICKS)
            places = [TopicPartition(ticks, number) for number in range(len(self._decoders))]
            for place in places:
                low, high = reader.get_watermark_offsets(place, timeout=_ANSWER_S)
                self._begins[place.partition] = high
                place.offset = max(low, high - _BEFORE)
            reader.assign(places)
            yield []
            while not self._stopping.is_set():
                messages = arrived(reader, _WAIT_S, _AT_ONCE)
                runs = [run for message in messages for run in self._runs(message)]
                if runs:
                    yield runs
                elif not messages and self._is_lost:
                    reader.list_topics(timeout=_ANSWER_S)  # raises unless they are reconnected
                    self._is_lost = False

    def _runs(self, message: Message) -> list[TradeRun]:
        """Return the run of a record's new trades, if it has any."""
        partition, offset = message.partition() or 0, message.offset() or 0
        try:
            run = self._new(message.value() or b"", partition, offset)
        except BatchError as problem:
            where = f"{message.topic()}, partition {partition}, offset {offset}"
            log.warning("%s: skipped: %s", where, problem)
            return []
        return [run] if offset >= self._begins[partition] and len(run.trades) else []

    def _new(self, data: bytes, partition: int, offset: int) -> TradeRun:
        part = self._decoders[partition].decode(data)
        source = source_of(part.stream_id, partition)
        position = self._positions.pop(source, 0)
        self._positions[source] = max(position, part.next_sequence)
        if len(self._positions) > _MAX_STREAMS:
            self._positions.popitem(last=False)
        frames = Frames.of(part.since(position).trades, FRAMES)
        stream_id = stream_of(self._address, partition)
        return TradeRun(part.symbols, stream_id, sequence_at(offset), frames)

    def _note(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - its public name
            self._is_lost = True
