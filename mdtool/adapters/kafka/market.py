"""The market that aggregators write on Kafka, read by any number of services."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, Final, NoReturn, Self

import numpy as np

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.client import (
    OFFSET_BEGINNING,
    TELLS_ENDS,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
    arrived,
    consumer,
    traceparent_of,
)
from mdtool.adapters.kafka.market_state import BarRow, Changes, MarketState
from mdtool.adapters.kafka.records import TOTALS, RecordError
from mdtool.adapters.kafka.topics import AGGREGATES, BARS, TICKS, opened_topics, watched
from mdtool.adapters.kafka.trade_feed import KafkaTradeFeed
from mdtool.adapters.market import (
    BarReceiver,
    Receiver,
    RefusedError,
    UnavailableError,
    UnknownSymbolError,
)
from mdtool.core.backoff import delays
from mdtool.core.errors import UsageError
from mdtool.core.lifecycle import one_error
from mdtool.core.symbols import SymbolTable
from mdtool.core.threads import run_in_thread
from mdtool.core.trades import Reason
from mdtool.core.units import format_duration, parse_duration
from mdtool.engine.market import LATE_FOR_SESSIONS
from mdtool.engine.saved_state import SESSION
from mdtool.wire.batches import BarColumns, BarUpdates, Counts, Updates

log = logging.getLogger(__name__)

PATIENCE_S: Final = 5.0
"""How long a partition that has ticks may not move before it is reported as stalled."""
_WAIT_S: Final = 0.2
_AT_ONCE: Final = 10_000
_CHECK_S: Final = 1.0
"""How often idle servers, and the lag, are checked."""
_LAG_TIMEOUT_S: Final = 1.0
_LONGEST_DELAY_S: Final = 1.0
_UPDATE_COLUMNS: Final = tuple(column for column in SESSION.names or () if column)
_BAR_FIELDS: Final = ("start", "open", "high", "low", "close", "volume", "trades")


class _Follower:
    """A subscriber, with the changes that it has not received yet."""

    def __init__(self) -> None:
        self.changes = Changes()
        self.event = asyncio.Event()


class KafkaMarket:
    """Reads sessions and bars. An async context manager, which owns the connection.

    Its servers need not be available yet. When a topic has wrong settings or is deleted, its block
    is cancelled and raises StartupError or PeerError.

    Parameters
    ----------
    url : str
    intervals : sequence of str
        The durations of bars.
    keep : int
        How many closed bars of a symbol and interval are held.

    Raises
    ------
    ConfigError
        When the URL is not valid.
    """

    def __init__(self, url: str, intervals: Sequence[str], keep: int) -> None:
        self._address = KafkaAddress.parse(url)
        self._intervals = {parse_duration(interval) for interval in intervals}
        self._keep = keep
        self._followers: set[_Follower] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._is_reading = {AGGREGATES: False, BARS: False}
        """Whether the topic was read to its end once, and the servers are available."""
        self._changed = asyncio.Event()
        self._resources = contextlib.AsyncExitStack()
        self._state = MarketState(sorted(self._intervals), 0, keep)  # no partition is known yet
        self._is_open = asyncio.Event()
        self._partitions = 0
        self._failure: RecordError | None = None

    @property
    def address(self) -> str:
        """Kafka and its servers."""
        return str(self._address)

    @property
    def blocked_reason(self) -> str:
        """The reason where `follow_commits` reports false."""
        return f"no aggregator has read a partition's ticks for {PATIENCE_S:g} s or more"

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            stack.callback(tasks.create_task(self._run(), name=self.address).cancel)
            self._resources = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> bool | None:
        with one_error():
            return await self._resources.__aexit__(*exc_info)  # type: ignore[arg-type]

    async def _run(self) -> None:
        """Open the topics as soon as the servers are available, then read them until cancelled."""
        topics = await opened_topics(self._address)
        self._partitions = partitions = topics.partitions
        self._state = MarketState(sorted(self._intervals), partitions, self._keep)
        self._is_open.set()
        async with watched(topics), asyncio.TaskGroup() as tasks:
            for topic, apply in ((AGGREGATES, self._apply_aggregates), (BARS, self._apply_bars)):
                read = functools.partial(self._read, topic, partitions, apply)
                name = f"{self.address} {topic}"
                tasks.create_task(run_in_thread(name, read, self._stopping.set), name=name)

    def trade_feed(self) -> KafkaTradeFeed:
        """Return a feed of the trades whose sessions and bars these are, for the same block."""
        return KafkaTradeFeed(self._address, self._known_partitions)

    async def _known_partitions(self) -> int:
        """Return how many partitions of ticks there are, once that is known."""
        await self._is_open.wait()
        return self._partitions

    async def follow(self, receive: Receiver) -> None:
        """Pass on the state of every symbol, then changes, until the servers are unavailable."""
        symbols = SymbolTable()
        with self._following() as follower:
            await self._until_reading()
            with self._lock:
                follower.changes.symbols.update(self._state.sessions)
            follower.changes.traceparent = ""  # not of what a reader begins with
            while True:
                updates = self._updates(follower.changes.symbols, symbols)
                updates.traceparent = follower.changes.traceparent
                receive(symbols, updates)
                follower.changes = Changes()
                await self._next(follower)

    async def follow_commits(self, receive: Callable[[bool], None]) -> NoReturn:
        """Pass on, every second, whether aggregators keep up with the ticks."""
        lag = await asyncio.to_thread(_Lag, self._address, await self._known_partitions())
        try:
            while True:
                with self._lock:
                    offsets = self._state.offsets()
                is_stalled = await asyncio.to_thread(lag.is_stalled, offsets)
                receive(not (is_stalled and self._is_reading[AGGREGATES]))
                await asyncio.sleep(_CHECK_S)
        finally:
            await asyncio.to_thread(lag.close)

    async def session(self, symbol: str, which: str, _timeout_s: float) -> Updates:
        """As `MarketReader.session`; the dates of sessions are unknown here."""
        self._check_known(symbol)
        symbols = SymbolTable()
        if not which:
            return self._updates({symbol}, symbols)
        if which != "previous":
            raise RefusedError(f"session {which}: over Kafka there is only the previous one")
        with self._lock:
            row = self._state.past_session(symbol)
        if row is None:
            raise UnknownSymbolError(f"session previous of {symbol} is not kept")
        updates = self._updates({symbol}, symbols)
        values = {**row._asdict(), "count": row.trades, "timestamp": row.last}
        values["ingest_timestamp"] = 0
        columns: dict[str, Any] = {name: np.array([values[name]]) for name in _UPDATE_COLUMNS}
        return replace(updates, **columns)

    async def bars(
        self,
        symbol: str,
        interval: str,
        limit: int,
        before_ns: int,
        timeout_s: float,  # noqa: ARG002 - the answer is in memory
    ) -> BarColumns:
        """Return at most `limit` bars that start before `before_ns`, newest first."""
        length = self._length(interval)
        with self._lock:
            self._check_known(symbol)
            return _columns(self._state.bars(symbol, length, limit, before_ns))

    async def bars_since(
        self,
        symbol: str,
        interval: str,
        limit: int,
        since_ns: int,
        timeout_s: float,  # noqa: ARG002 - the answer is in memory
    ) -> BarColumns:
        """Return at most `limit` bars that start at `since_ns` or later, oldest first."""
        length = self._length(interval)
        with self._lock:
            self._check_known(symbol)
            return _columns(self._state.bars_since(symbol, length, limit, since_ns))

    async def follow_bars(self, symbol: str, interval: str, receive: BarReceiver) -> None:
        """Pass on the newest bar of a symbol, or of all, then the bars that change."""
        length = self._length(interval)
        symbols = SymbolTable()
        with self._following() as follower:
            await self._until_reading()
            with self._lock:
                follower.changes.symbols.update(self._state.sessions)
            while True:
                changes, follower.changes = follower.changes, Changes()
                names, rows = self._changed_bars(changes, symbol, length)
                if rows:
                    indices = np.array([symbols.intern(name) for name in names], np.uint32)
                    receive(symbols, BarUpdates(indices, _columns(rows)))
                await self._next(follower)

    # In the event loop.

    @contextlib.contextmanager
    def _following(self) -> Iterator[_Follower]:
        follower = _Follower()
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    async def _until_reading(self) -> None:
        while not self._is_reading[AGGREGATES]:
            self._changed.clear()
            await self._changed.wait()
            self._check()

    async def _next(self, follower: _Follower) -> None:
        """Wait until something has changed."""
        await follower.event.wait()
        follower.event.clear()
        self._check()
        if not self._is_reading[AGGREGATES]:
            raise UnavailableError(f"{self.address} is unavailable")

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _check_known(self, symbol: str) -> None:
        if not all(self._is_reading.values()):
            raise UnavailableError(
                f"{self.address} is unavailable, or its topics are still being read"
            )
        if symbol not in self._state.sessions:
            raise UnknownSymbolError(f"no trades of symbol {symbol!r}")

    def _length(self, interval: str) -> int:
        try:
            length = parse_duration(interval)
        except UsageError as error:
            raise RefusedError(str(error)) from error
        if length not in self._intervals:
            known = ", ".join(map(format_duration, sorted(self._intervals)))
            raise RefusedError(f"no bars of {interval}: choose from {known}")
        return length

    def _updates(self, changed: set[str], symbols: SymbolTable) -> Updates:
        with self._lock:
            state = self._state
            names = [name for name in changed if name in state.sessions]
            rows = np.frombuffer(b"".join(state.sessions[name] for name in names), SESSION)
            counts = Counts(
                ticks=state.total("ticks"),
                duplicates=state.total("duplicates"),
                late=state.total("late"),
                refused={r.label: state.total(f"refused.{int(r)}") for r in Reason},
                late_for_sessions=state.total(LATE_FOR_SESSIONS),
            )
            lots = {name: state.lots[name] for name in names if name in state.lots}
        indices = np.array([symbols.intern(name) for name in names], np.uint32)
        symbols.give_lots(lots)
        columns: dict[str, Any] = {name: rows[name] for name in _UPDATE_COLUMNS}
        return Updates(symbol=indices, counts=counts, **columns)

    def _changed_bars(
        self, changes: Changes, symbol: str, length: int
    ) -> tuple[list[str], list[BarRow]]:
        """Return the symbols and rows of bars that changed, of each symbol oldest first."""
        wanted = [(s, starts) for (s, n), starts in changes.closed.items() if n == length]
        closed = {s: starts for s, starts in wanted if symbol in {"", s}}
        names: list[str] = []
        rows: list[BarRow] = []
        with self._lock:
            changed = changes.symbols & {symbol} if symbol else changes.symbols
            for name in changed | set(closed):
                opened = self._state.open_bars(name, length)
                found = self._state.closed_bars(name, length, closed.get(name, ()))
                oldest_open = min((row.start for row in opened), default=None)
                found = [row for row in found if oldest_open is None or row.start < oldest_open]
                found += reversed(opened)
                rows += found
                names += [name] * len(found)
        return names, rows

    def _distribute(self) -> None:
        with self._lock:
            changes = self._state.take_changes()
        for follower in self._followers:
            follower.changes.add(changes)
            follower.event.set()

    def _set_reading(self, topic: str, is_reading: bool) -> None:
        self._is_reading[topic] = is_reading
        self._changed.set()
        if not is_reading:
            for follower in self._followers:
                follower.event.set()

    def _fail(self, error: RecordError) -> None:
        self._failure = error
        self._set_reading(AGGREGATES, False)

    # In the reading threads.

    def _read(self, topic: str, partitions: int, apply: Callable[[list[Message]], None]) -> None:
        """Read a topic until stopped; start over after an error."""
        waits = delays(cap_s=_LONGEST_DELAY_S)
        while not self._stopping.is_set():
            try:
                self._read_on(topic, partitions, apply)
            except KafkaException as error:
                log.debug("%s: %s", self.address, error)
            except RecordError as error:
                self._call(self._fail, error)
                return
            self._call(self._set_reading, topic, False)
            self._stopping.wait(next(waits))

    def _read_on(self, topic: str, partitions: int, apply: Callable[[list[Message]], None]) -> None:
        lost = threading.Event()

        def erred(error: KafkaError) -> None:
            if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - its public name
                lost.set()

        settings = {**TELLS_ENDS, "error_cb": erred}
        with contextlib.closing(consumer(self._address, settings)) as reader:
            name = self._address.topic(topic)
            reader.assign(
                [TopicPartition(name, number, OFFSET_BEGINNING) for number in range(partitions)]
            )
            ended: set[int] = set()
            is_read = False
            while not self._stopping.is_set():
                messages = arrived(reader, _WAIT_S, _AT_ONCE, ended)
                with self._lock:
                    apply(messages)
                if not is_read and len(ended) == partitions:
                    is_read = True
                    self._call(self._set_reading, topic, True)
                if messages:
                    self._call(self._distribute)
                elif lost.is_set():
                    self._call(self._set_reading, topic, False)
                    reader.list_topics(name, timeout=_CHECK_S)  # raises while they are unavailable
                    lost.clear()
                    if is_read:
                        self._call(self._set_reading, topic, True)

    def _apply_aggregates(self, messages: list[Message]) -> None:
        for message in messages:
            key, value = message.key() or b"", message.value() or b""
            if key == TOTALS:
                changes = self._state.changes
                changes.traceparent = traceparent_of(message) or changes.traceparent
            self._state.apply_aggregate(message.partition() or 0, key, value)

    def _apply_bars(self, messages: list[Message]) -> None:
        for message in messages:
            self._state.apply_bar(message.key() or b"", message.value() or b"")

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function, *arguments)


def _columns(rows: Sequence[BarRow]) -> BarColumns:
    table = np.array([row[: len(_BAR_FIELDS)] for row in rows], np.int64)
    table = table.reshape(-1, len(_BAR_FIELDS))
    names = [column.name for column in fields(BarColumns)]
    return BarColumns(**{name: table[:, place] for place, name in enumerate(names)})


class _Lag:
    """Compares the offsets of aggregates with the ends of ticks.

    Methods block, and may be called by several threads.

    Parameters
    ----------
    address : KafkaAddress
        The topics exist.
    partitions : int
        Of ticks.
    """

    def __init__(self, address: KafkaAddress, partitions: int) -> None:
        topic = address.topic(TICKS)
        self._places = [TopicPartition(topic, number) for number in range(partitions)]
        self._moved = [(-1, 0.0)] * partitions
        """The last offset of each partition, and since when it has not moved."""
        self._reader = consumer(address)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            self._reader.close()

    def is_stalled(self, offsets: Sequence[int]) -> bool:
        """Return whether a partition has ticks, of which none was aggregated for `PATIENCE_S`.

        False where the servers do not answer.

        Parameters
        ----------
        offsets : sequence of int
            The offset of each partition before which all ticks are aggregated.
        """
        with self._lock, contextlib.suppress(KafkaException):
            places = zip(self._places, offsets, strict=True)
            stalled = [place for place, offset in places if self._is_stalled(place, offset)]
            return bool(stalled)
        return False

    def _is_stalled(self, place: TopicPartition, offset: int) -> bool:
        low, end = self._reader.get_watermark_offsets(place, timeout=_LAG_TIMEOUT_S)
        now_s = time.monotonic()
        seen, since_s = self._moved[place.partition]
        if offset != seen or end <= max(low, offset):
            self._moved[place.partition] = offset, now_s
            return False
        return now_s - since_s > PATIENCE_S
