"""A bus that keeps ticks on Kafka: what is committed there survives this process and others."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import Final, Self

from mdtool.adapters.bus.port import CommitListener
from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.client import (
    KafkaError,
    KafkaException,
    Message,
    error_of,
    producer,
)
from mdtool.adapters.kafka.stream_positions import StreamPositions, encode_position
from mdtool.adapters.kafka.topics import STREAMS, TICKS, open_topics, watched
from mdtool.core.backoff import delays
from mdtool.core.errors import PeerError
from mdtool.core.lifecycle import first_error
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Frames, TradeRun, take_run
from mdtool.wire.partitions import MAX_RUN_FRAMES, PartitionEncoder

log = logging.getLogger(__name__)

_MAX_IN_FLIGHT: Final = 8
"""How many runs are on their way at once; what comes meanwhile makes the next ones longer."""
_POLL_S: Final = 0.1
_MAX_WAIT_S: Final = 2.0
_UNLIMITED: Final = {"message.timeout.ms": 0}


@dataclass(slots=True, eq=False)
class _Run:
    """Consecutive frames of a stream that are on their way."""

    stream_id: str
    next_sequence: int
    parts_left: int = 1
    """Parts that the servers have not taken yet, and one until all are produced."""


class _Stream:
    """What of a stream is on its way, and how far it was told to be."""

    __slots__ = ("is_being_told", "runs", "taken", "told")

    def __init__(self) -> None:
        self.runs: deque[_Run] = deque()
        self.taken = 0
        """The servers have all of the stream before it."""
        self.told = 0
        """What its record says."""
        self.is_being_told = False
        """Whether a record of its position is on its way."""


class KafkaBus:
    """Produces the parts of each run, and then the stream's position: that is a commit.

    What the servers do not take is produced again, in order, by the client itself, which numbers
    what it sends, so that nothing is doubled or left out within a partition.

    Parameters
    ----------
    url : str
        Where the topics are.
    symbols : SymbolTable
        What the symbol indices of published ticks mean; it may grow.

    Raises
    ------
    ConfigError
        When the URL is none.
    """

    def __init__(self, url: str, symbols: SymbolTable) -> None:
        self._address = KafkaAddress.parse(url)
        self._symbols = symbols
        self._listeners: list[CommitListener] = []
        self._unsent: dict[str, deque[TradeRun]] = {}
        self._streams: dict[str, _Stream] = {}
        self._in_flight = 0
        self._changed = asyncio.Event()
        self._refusal: PeerError | None = None
        self._is_away = False
        self._is_leaving = threading.Event()
        self._resources = contextlib.AsyncExitStack()

    @property
    def peer(self) -> str:
        """Kafka and its servers."""
        return str(self._address)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        topics = await asyncio.to_thread(open_topics, self._address)
        async with contextlib.AsyncExitStack() as stack:
            self._encoder = PartitionEncoder(self._symbols, topics.partitions)
            self._positions = StreamPositions(self._address)
            stack.push_async_callback(asyncio.to_thread, self._positions.close)
            settings = {**_UNLIMITED, "error_cb": self._erred}
            self._producer = producer(self._address, settings)
            polling = threading.Thread(target=self._poll, name=self.peer, daemon=True)
            stack.push_async_callback(asyncio.to_thread, polling.join)
            stack.callback(self._leave)
            polling.start()
            await stack.enter_async_context(watched(topics))
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            stack.callback(tasks.create_task(self._send(), name=self.peer).cancel)
            self._resources = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> bool | None:
        try:
            return await self._resources.__aexit__(*exc_info)  # type: ignore[arg-type]
        except ExceptionGroup as group:
            raise first_error(group) from group

    def subscribe(self, listener: CommitListener) -> None:
        """Have `listener` called when a stream's position is on Kafka."""
        self._listeners.append(listener)

    def publish(self, stream_id: str, first_sequence: int, frames: Frames) -> None:
        """Keep the run for the next records."""
        run = TradeRun(self._symbols, stream_id, first_sequence, frames)
        self._unsent.setdefault(stream_id, deque()).append(run)
        self._changed.set()

    async def position(self, stream_id: str) -> int:
        """Read it, again and again while the servers are away."""
        for delay_s in delays(cap_s=_MAX_WAIT_S):
            position = await asyncio.to_thread(self._positions.position, stream_id)
            if position is not None:
                return position
            await asyncio.sleep(delay_s)
        raise AssertionError

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
        """Produce the parts of the next run, which is all that there is of a stream."""
        stream_id = next(iter(self._unsent))
        waiting = self._unsent.pop(stream_id)
        taken = take_run(waiting, MAX_RUN_FRAMES)
        if waiting:
            self._unsent[stream_id] = waiting
        run = _Run(stream_id, taken.next_sequence)
        self._streams.setdefault(stream_id, _Stream()).runs.append(run)
        self._in_flight += 1
        for partition, data in self._encoder.encode(taken):
            run.parts_left += 1
            landed = functools.partial(self._landed, run)
            self._produce(TICKS, partition, None, data, landed)
        self._landed(run)

    def _landed(self, run: _Run) -> None:
        """Take note of a part that the servers have."""
        run.parts_left -= 1
        if run.parts_left:
            return
        self._in_flight -= 1
        self._changed.set()
        stream = self._streams[run.stream_id]
        while stream.runs and not stream.runs[0].parts_left:
            stream.taken = stream.runs.popleft().next_sequence
        if stream.taken > stream.told and not stream.is_being_told:
            self._tell(run.stream_id, stream)

    def _tell(self, stream_id: str, stream: _Stream) -> None:
        """Produce the position of a stream."""
        stream.is_being_told = True
        key, value = encode_position(stream_id, stream.taken)
        told = functools.partial(self._told, stream_id, stream, stream.taken)
        self._produce(STREAMS, 0, key, value, told)

    def _told(self, stream_id: str, stream: _Stream, next_sequence: int) -> None:
        stream.is_being_told, stream.told = False, next_sequence
        if stream.taken > next_sequence:
            self._tell(stream_id, stream)
        elif not stream.runs:
            del self._streams[stream_id]
        for listener in self._listeners:
            listener(stream_id, next_sequence)

    def _produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes,
        landed: functools.partial[None],
    ) -> None:
        """Produce a record; `landed` is called in the loop once the servers have it."""

        def delivered(error: KafkaError | None, _message: Message) -> None:
            self._call(self._delivered, error, landed)

        name = self._address.topic(topic)
        try:
            self._producer.produce(name, value, key, partition=partition, on_delivery=delivered)
        except (KafkaException, BufferError) as error:
            reason = error_of(error).str() if isinstance(error, KafkaException) else str(error)
            self._refuse(reason)

    def _delivered(self, error: KafkaError | None, landed: functools.partial[None]) -> None:
        if error is not None:
            self._refuse(error.str())
            return
        if self._is_away:
            self._is_away = False
            log.info("%s: back", self.peer)
        landed()

    def _refuse(self, reason: str) -> None:
        self._refusal = PeerError(f"{self.peer} refused: {reason}")
        self._changed.set()

    # What the polling thread calls.

    def _poll(self) -> None:
        while not self._is_leaving.is_set():
            self._producer.poll(_POLL_S)

    def _erred(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - its public name
            self._call(self._away)
        elif error.fatal():
            self._call(self._refuse, error.str())

    def _call(self, function: object, *arguments: object) -> None:
        """Call a function in the loop, unless the bus is being left."""
        if not self._is_leaving.is_set():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]

    def _away(self) -> None:
        if not self._is_away:
            self._is_away = True
            log.warning("%s: away; what it has not committed is kept and sent again", self.peer)

    def _leave(self) -> None:
        """Drop what is on its way."""
        self._is_leaving.set()
        self._producer.purge(in_queue=True, in_flight=True, blocking=False)
