"""A bus over Kafka: committed ticks survive this process and the aggregators."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mdtool.adapters.bus.base import BaseBus
from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.client import (
    Headers,
    KafkaError,
    KafkaException,
    Message,
    client_errors,
    error_of,
    producer,
    traced_headers,
)
from mdtool.adapters.kafka.stream_positions import StreamPositions, encode_claim, encode_position
from mdtool.adapters.kafka.topics import STREAMS, TICKS, opened_topics, watched
from mdtool.core import tracing
from mdtool.core.errors import PeerError
from mdtool.core.symbols import SymbolTable
from mdtool.core.threads import run_in_thread
from mdtool.core.trades import Frames, TradeRun, take_run
from mdtool.wire.partitions import MAX_RUN_FRAMES, PartitionEncoder

log = logging.getLogger(__name__)

_MAX_IN_FLIGHT: Final = 8
"""Runs in flight at once; ticks that arrive meanwhile make the next runs longer."""
_POLL_S: Final = 0.1
_UNLIMITED: Final = {"message.timeout.ms": 0}


@dataclass(slots=True, eq=False)
class _Run:
    """Consecutive frames of a stream in flight."""

    stream_id: str
    next_sequence: int
    parts_left: int = 1
    """Parts that are not acknowledged yet, and one until all are produced."""


class _Stream:
    """The runs of a stream in flight, and its positions."""

    __slots__ = ("acknowledged", "is_publishing", "published", "runs")

    def __init__(self) -> None:
        self.runs: deque[_Run] = deque()
        self.acknowledged = 0
        """The servers have all frames before it."""
        self.published = 0
        """The position in the stream's record."""
        self.is_publishing = False
        """Whether a record of the position is in flight."""


class KafkaBus(BaseBus):
    """Produces the parts of each run, and then the stream's position, which commits it.

    The client itself retries records that are not acknowledged, in order and numbered, so that
    nothing is repeated or lost within a partition.

    Parameters
    ----------
    url : str
    symbols : SymbolTable
        The names of the symbol indices of published ticks; it may grow.

    Raises
    ------
    ConfigError
        When the URL is not valid.
    """

    def __init__(self, url: str, symbols: SymbolTable) -> None:
        super().__init__()
        self._address = KafkaAddress.parse(url)
        self._symbols = symbols
        self._unsent: dict[str, deque[TradeRun]] = {}
        self._streams: dict[str, _Stream] = {}
        self._in_flight = 0
        self._changed = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._refusal: PeerError | None = None
        self._is_unavailable = False
        self._is_closing = threading.Event()

    @property
    def peer(self) -> str:
        """Kafka and its servers."""
        return str(self._address)

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        self._loop = asyncio.get_running_loop()
        topics = await opened_topics(self._address)
        self._encoder = PartitionEncoder(self._symbols, topics.partitions)
        self._positions = StreamPositions(self._address)
        stack.push_async_callback(asyncio.to_thread, self._positions.close)
        settings = {**_UNLIMITED, "error_cb": self._erred}
        self._producer = producer(self._address, settings)
        await stack.enter_async_context(watched(topics))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        tasks.create_task(run_in_thread(self.peer, self._poll, self._is_closing.set))
        stack.callback(self._purge)
        stack.callback(tasks.create_task(self._send(), name=self.peer).cancel)

    def publish(self, stream_id: str, first_sequence: int, frames: Frames) -> None:
        """Queue the run for the next records."""
        run = TradeRun(self._symbols, stream_id, first_sequence, frames)
        self._unsent.setdefault(stream_id, deque()).append(run)
        self._changed.set()

    async def _request_position(self, stream_id: str) -> int | None:
        return await asyncio.to_thread(self._positions.position, stream_id)

    async def _request_owner(self, stream_id: str, principal: str) -> str | None:
        """As `BaseBus._request_owner`: of several claims, the first one in the topic holds."""
        async with self._claiming:
            owner = await asyncio.to_thread(self._positions.owner, stream_id)
            if owner != "":
                return owner
            key, value = encode_claim(stream_id, principal)
            await self._produced(key, value)
            owner = await asyncio.to_thread(self._positions.owner, stream_id)
            if owner and owner != principal:  # another server was a moment earlier
                await self._produced(key, None)
        return owner or None

    async def _produced(self, key: bytes, value: bytes | None) -> None:
        """Produce a record of a stream, and wait until the servers have it."""
        has_arrived = asyncio.Event()
        self._produce(STREAMS, 0, key, value, has_arrived.set)
        await has_arrived.wait()

    async def _send(self) -> None:
        while True:
            while self._unsent and self._in_flight < _MAX_IN_FLIGHT and self._refusal is None:
                self._send_next()
                await asyncio.sleep(0)
            if self._refusal is not None:
                raise self._refusal
            self._changed.clear()
            await self._changed.wait()

    def _send_next(self) -> None:
        """Produce the parts of the next run, which has all queued frames of a stream."""
        stream_id = next(iter(self._unsent))
        waiting = self._unsent.pop(stream_id)
        taken = take_run(waiting, MAX_RUN_FRAMES)
        if waiting:
            self._unsent[stream_id] = waiting
        run = _Run(stream_id, taken.next_sequence)
        self._streams.setdefault(stream_id, _Stream()).runs.append(run)
        self._in_flight += 1
        headers = traced_headers(tracing.traceparent_of(taken))
        for partition, data in self._encoder.encode(taken):
            run.parts_left += 1
            acknowledged = functools.partial(self._part_acknowledged, run)
            self._produce(TICKS, partition, None, data, acknowledged, headers)
        self._part_acknowledged(run)

    def _part_acknowledged(self, run: _Run) -> None:
        """Count a part that the servers acknowledged."""
        run.parts_left -= 1
        if run.parts_left:
            return
        self._in_flight -= 1
        self._changed.set()
        stream = self._streams[run.stream_id]
        while stream.runs and not stream.runs[0].parts_left:
            stream.acknowledged = stream.runs.popleft().next_sequence
        if stream.acknowledged > stream.published and not stream.is_publishing:
            self._publish_position(run.stream_id, stream)

    def _publish_position(self, stream_id: str, stream: _Stream) -> None:
        """Produce the position of a stream."""
        stream.is_publishing = True
        key, value = encode_position(stream_id, stream.acknowledged)
        published = functools.partial(
            self._position_published, stream_id, stream, stream.acknowledged
        )
        self._produce(STREAMS, 0, key, value, published)

    def _position_published(self, stream_id: str, stream: _Stream, next_sequence: int) -> None:
        stream.is_publishing, stream.published = False, next_sequence
        if stream.acknowledged > next_sequence:
            self._publish_position(stream_id, stream)
        elif not stream.runs:
            del self._streams[stream_id]
        self._notify(stream_id, next_sequence)

    def _produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        acknowledged: Callable[[], None],
        headers: Headers = None,
    ) -> None:
        """Produce a record; `acknowledged` is called in the loop once the servers have it."""

        def delivered(error: KafkaError | None, _message: Message) -> None:
            self._call(self._delivered, error, acknowledged)

        name = self._address.topic(topic)
        try:
            self._producer.produce(
                name, value, key, partition=partition, on_delivery=delivered, headers=headers
            )
        except (KafkaException, BufferError) as error:
            reason = error_of(error).str() if isinstance(error, KafkaException) else str(error)
            self._refuse(reason)

    def _delivered(self, error: KafkaError | None, acknowledged: Callable[[], None]) -> None:
        if error is not None:
            self._refuse(error.str())
            return
        if self._is_unavailable:
            self._is_unavailable = False
            log.info("%s: reconnected", self.peer)
        acknowledged()

    def _refuse(self, reason: str) -> None:
        self._refusal = PeerError(f"{self.peer} refused: {reason}")
        self._changed.set()

    # In the polling thread.

    def _poll(self) -> None:
        try:
            with client_errors():
                while not self._is_closing.is_set():
                    self._producer.poll(_POLL_S)
        except KafkaException as error:  # a fatal one
            self._call(self._refuse, error_of(error).str())

    def _erred(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - its public name
            self._call(self._note_outage)

    def _call(self, function: object, *arguments: object) -> None:
        """Call a function in the loop, unless the bus is closing."""
        if not self._is_closing.is_set():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]

    def _note_outage(self) -> None:
        if not self._is_unavailable:
            self._is_unavailable = True
            log.warning("%s: unavailable; uncommitted ticks are sent again later", self.peer)

    def _purge(self) -> None:
        """Drop records in flight."""
        self._is_closing.set()
        self._producer.purge(in_queue=True, in_flight=True, blocking=False)
