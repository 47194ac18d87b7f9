"""The feed of all trades that are on Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NoReturn, Self

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
    open_topics,
    sequence_at,
    source_of,
    stream_of,
    watched,
)
from mdtool.core.errors import PeerError
from mdtool.core.trades import Frames, TradeRun
from mdtool.wire.batches import BatchError
from mdtool.wire.partitions import PartitionDecoder

log = logging.getLogger(__name__)

_WAIT_S: Final = 0.1
_AT_ONCE: Final = 500
_ANSWER_S: Final = 2.0
_BEFORE: Final = 1_000
"""Records before the end of each partition of which only the streams' positions are learnt."""
_MAX_STREAMS: Final = 100_000


class KafkaTradeFeed:
    """A `TradeFeed` of the topic of ticks. An async context manager, which looks at the topics.

    Its block is cancelled, and PeerError raised from it, when a topic is deleted.

    A run is of the stream and sequences that a store of the bus has the trades under. What an
    ingest server produced a second time, after a crash, is handed over once.

    Parameters
    ----------
    url : str
        Where the topics are.

    Raises
    ------
    ConfigError
        When the URL is none.
    """

    def __init__(self, url: str) -> None:
        self._address = KafkaAddress.parse(url)
        self._partitions = 0

    @property
    def address(self) -> str:
        """What it is, for people."""
        return str(self._address)

    async def __aenter__(self) -> Self:
        topics = await asyncio.to_thread(open_topics, self._address)
        self._partitions = topics.partitions
        self._watched = watched(topics)
        await self._watched.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> bool | None:
        return await self._watched.__aexit__(*exc_info)  # type: ignore[arg-type]

    async def follow(
        self, connected: Callable[[], None], receive: Callable[[TradeRun], None]
    ) -> NoReturn:
        """Hand over what comes from now on; see `TradeFeed`."""
        batches: asyncio.Queue[list[TradeRun] | PeerError] = asyncio.Queue(1)
        reading = _Reading(self._address, self._partitions, asyncio.get_running_loop(), batches)
        thread = threading.Thread(target=reading.run, name=self.address, daemon=True)
        thread.start()
        try:
            is_connected = False
            while True:
                batch = await batches.get()
                if isinstance(batch, PeerError):
                    raise batch
                if not is_connected:
                    connected()
                    is_connected = True
                for run in batch:
                    receive(run)
        finally:
            reading.stop()
            while thread.is_alive():  # it may wait for room in the queue
                with contextlib.suppress(asyncio.QueueEmpty):
                    batches.get_nowait()
                await asyncio.to_thread(thread.join, _WAIT_S)


class _Reading:
    """What the thread of one call does: the first batch, which may be empty, says it has begun."""

    def __init__(
        self,
        address: KafkaAddress,
        partitions: int,
        loop: asyncio.AbstractEventLoop,
        batches: asyncio.Queue[list[TradeRun] | PeerError],
    ) -> None:
        self._address = address
        self._partitions = partitions
        self._loop = loop
        self._batches = batches
        self._stopping = threading.Event()
        self._is_lost = threading.Event()
        self._decoders = [PartitionDecoder(number, partitions) for number in range(partitions)]
        self._positions: OrderedDict[str, int] = OrderedDict()
        self._begins: dict[int, int] = {}
        """Of each partition, the offset from which trades are handed over."""

    def stop(self) -> None:
        """Have `run` end."""
        self._stopping.set()

    def run(self) -> None:
        """Read until stopped or lost."""
        try:
            self._read()
        except KafkaException as error:
            self._put(PeerError(f"{self._address}: {error_of(error).str()}"))

    def _read(self) -> None:
        settings = {"isolation.level": "read_uncommitted", "error_cb": self._erred}
        with contextlib.closing(consumer(self._address, settings)) as reader:
            places = [
                TopicPartition(self._address.topic(TICKS), number)
                for number in range(self._partitions)
            ]
            for place in places:
                low, high = reader.get_watermark_offsets(place, timeout=_ANSWER_S)
                self._begins[place.partition] = high
                place.offset = max(low, high - _BEFORE)
            reader.assign(places)
            self._put([])
            while not self._stopping.is_set():
                messages = arrived(reader, _WAIT_S, _AT_ONCE)
                runs = [run for message in messages for run in self._runs(message)]
                if runs:
                    self._put(runs)
                elif not messages and self._is_lost.is_set():
                    reader.list_topics(timeout=_ANSWER_S)  # raises unless it is back
                    self._is_lost.clear()

    def _runs(self, message: Message) -> list[TradeRun]:
        """Return what is new in a record: one run, or none."""
        partition, offset = message.partition() or 0, message.offset() or 0
        try:
            run = self._new(message.value() or b"", partition, offset)
        except BatchError as problem:
            where = f"{message.topic()}, partition {partition}, offset {offset}"
            log.warning("%s: left out: %s", where, problem)
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

    def _put(self, batch: list[TradeRun] | PeerError) -> None:
        """Hand a batch to the loop, and wait until there is room for it."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            asyncio.run_coroutine_threadsafe(self._batches.put(batch), self._loop).result()

    def _erred(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - its public name
            self._is_lost.set()
