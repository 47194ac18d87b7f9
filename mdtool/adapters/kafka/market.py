"""The state of the market, read from the topics that aggregators keep it on, by any number."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Final, NoReturn, Self

import numpy as np

from mdtool.adapters.aggregator import RefusedError, UnavailableError, UnknownSymbolError
from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.backlog import PATIENCE_S, Backlog
from mdtool.adapters.kafka.board import BarRow, Board, News
from mdtool.adapters.kafka.client import (
    OFFSET_BEGINNING,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
    consumer,
)
from mdtool.adapters.kafka.reading import TELLS_ENDS, arrived
from mdtool.adapters.kafka.records import RecordError
from mdtool.adapters.kafka.topics import AGGREGATES, BARS, open_topics
from mdtool.adapters.kafka.watch import watched
from mdtool.adapters.market import BarReceiver, Receiver
from mdtool.core.backoff import delays
from mdtool.core.errors import UsageError
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Reason
from mdtool.core.units import format_duration, parse_duration
from mdtool.engine.sessions import SESSION
from mdtool.wire.batches import BarColumns, BarUpdates, Counts, Updates

log = logging.getLogger(__name__)

_WAIT_S: Final = 0.2
_AT_ONCE: Final = 10_000
_LOOK_S: Final = 1.0
"""How often it is looked whether the servers are there, where nothing comes."""
_LONGEST_DELAY_S: Final = 1.0
_UPDATE_COLUMNS: Final = tuple(column for column in SESSION.names or () if column)
_BAR_FIELDS: Final = ("start", "open", "high", "low", "close", "volume", "trades")


class _Follower:
    """Somebody who takes what changed when there is time for it."""

    def __init__(self) -> None:
        self.news = News()
        self.event = asyncio.Event()


class KafkaMarket:
    """Reads sessions and bars. An async context manager, which owns the connection.

    Its block is cancelled, and PeerError raised from it, when a topic is deleted.

    Parameters
    ----------
    url : str
        Where the topics are.
    intervals : sequence of str
        The durations of the bars that are kept.
    keep : int
        How many closed bars of a symbol and interval are held.

    Raises
    ------
    ConfigError
        When the URL is none.
    """

    def __init__(self, url: str, intervals: Sequence[str], keep: int) -> None:
        self._address = KafkaAddress.parse(url)
        self._intervals = {parse_duration(interval) for interval in intervals}
        self._keep = keep
        self._followers: set[_Follower] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._is_reading = {AGGREGATES: False, BARS: False}
        """Whether all that was there at first is read, and the servers are there."""
        self._changed = asyncio.Event()
        self._resources = contextlib.AsyncExitStack()
        self._failure: RecordError | None = None

    @property
    def address(self) -> str:
        """Kafka and its servers."""
        return str(self._address)

    @property
    def blocked_reason(self) -> str:
        """That nobody aggregates."""
        return f"no aggregator has taken a partition's ticks for {PATIENCE_S:g} s or more"

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        topics = await asyncio.to_thread(open_topics, self._address)
        self._partitions = partitions = topics.partitions
        self._board = Board(sorted(self._intervals), partitions, self._keep)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(watched(topics))
            for topic, take in ((AGGREGATES, self._take_aggregates), (BARS, self._take_bars)):
                thread = threading.Thread(
                    target=self._read, args=(topic, partitions, take), daemon=True
                )
                stack.push_async_callback(asyncio.to_thread, thread.join)
                thread.start()
            stack.callback(self._stopping.set)
            self._resources = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> bool | None:
        return await self._resources.__aexit__(*exc_info)  # type: ignore[arg-type]

    async def follow(self, receive: Receiver) -> None:
        """Hand over the state of every symbol, then what changes, until the servers are away."""
        symbols = SymbolTable()
        with self._following() as follower:
            await self._until_reading()
            with self._lock:
                follower.news.symbols.update(self._board.sessions)
            while True:
                receive(symbols, self._updates(follower.news.symbols, symbols))
                follower.news = News()
                await self._next(follower)

    async def follow_commits(self, receive: Callable[[bool], None]) -> NoReturn:
        """Hand over whether aggregators take the ticks that there are, every second."""
        backlog = await asyncio.to_thread(Backlog, self._address, self._partitions)
        try:
            while True:
                with self._lock:
                    offsets = self._board.offsets()
                stands = await asyncio.to_thread(backlog.stands, offsets)
                receive(not (stands and self._is_reading[AGGREGATES]))
                await asyncio.sleep(_LOOK_S)
        finally:
            await asyncio.to_thread(backlog.close)

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
        if not all(self._is_reading.values()):
            raise UnavailableError(f"{self.address} is away, or being read still")
        with self._lock:
            if symbol not in self._board.sessions:
                raise UnknownSymbolError(f"no trades of symbol {symbol!r}")
            return _columns(self._board.bars(symbol, length, limit, before_ns))

    async def follow_bars(self, symbol: str, interval: str, receive: BarReceiver) -> None:
        """Hand over the newest bar of a symbol, or of all, then the bars that change."""
        length = self._length(interval)
        symbols = SymbolTable()
        with self._following() as follower:
            await self._until_reading()
            with self._lock:
                follower.news.symbols.update(self._board.sessions)
            while True:
                news, follower.news = follower.news, News()
                names, rows = self._changed_bars(news, symbol, length)
                if rows:
                    indices = np.array([symbols.intern(name) for name in names], np.uint32)
                    receive(symbols, BarUpdates(indices, _columns(rows)))
                await self._next(follower)

    # What the loop does.

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
            raise UnavailableError(f"{self.address} is away")

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

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
            board = self._board
            names = [name for name in changed if name in board.sessions]
            rows = np.frombuffer(b"".join(board.sessions[name] for name in names), SESSION)
            counts = Counts(
                ticks=board.total("ticks"),
                duplicates=board.total("duplicates"),
                late=board.total("late"),
                refused={r.label: board.total(f"refused.{int(r)}") for r in Reason},
            )
        indices = np.array([symbols.intern(name) for name in names], np.uint32)
        return Updates(symbol=indices, counts=counts, **{c: rows[c] for c in _UPDATE_COLUMNS})

    def _changed_bars(self, news: News, symbol: str, length: int) -> tuple[list[str], list[BarRow]]:
        """Return bars that have changed, of each symbol oldest first, and whose they are."""
        wanted = [(s, starts) for (s, n), starts in news.closed.items() if n == length]
        closed = {s: starts for s, starts in wanted if symbol in {"", s}}
        names: list[str] = []
        rows: list[BarRow] = []
        with self._lock:
            for name in (news.symbols if not symbol else news.symbols & {symbol}) | set(closed):
                opened = self._board.open_bars(name, length)
                found = self._board.closed_bars(name, length, closed.get(name, ()))
                oldest_open = min((row.start for row in opened), default=None)
                found = [row for row in found if oldest_open is None or row.start < oldest_open]
                found += reversed(opened)
                rows += found
                names += [name] * len(found)
        return names, rows

    def _distribute(self) -> None:
        with self._lock:
            news = self._board.take_news()
        for follower in self._followers:
            follower.news.add(news)
            follower.event.set()

    def _say(self, topic: str, is_reading: bool) -> None:
        self._is_reading[topic] = is_reading
        self._changed.set()
        if not is_reading:
            for follower in self._followers:
                follower.event.set()

    def _fail(self, error: RecordError) -> None:
        self._failure = error
        self._say(AGGREGATES, False)

    # What the reading threads do.

    def _read(self, topic: str, partitions: int, take: Callable[[list[Message]], None]) -> None:
        """Read a topic until stopped, anew after an error."""
        waits = delays(cap_s=_LONGEST_DELAY_S)
        while not self._stopping.is_set():
            try:
                self._read_on(topic, partitions, take)
            except KafkaException as error:
                log.debug("%s: %s", self.address, error)
            except RecordError as error:
                self._call(self._fail, error)
                return
            self._call(self._say, topic, False)
            self._stopping.wait(next(waits))

    def _read_on(self, topic: str, partitions: int, take: Callable[[list[Message]], None]) -> None:
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
                    take(messages)
                if not is_read and len(ended) == partitions:
                    is_read = True
                    self._call(self._say, topic, True)
                if messages:
                    self._call(self._distribute)
                elif lost.is_set():
                    self._call(self._say, topic, False)
                    reader.list_topics(name, timeout=_LOOK_S)  # raises until they are back
                    lost.clear()
                    if is_read:
                        self._call(self._say, topic, True)

    def _take_aggregates(self, messages: list[Message]) -> None:
        for message in messages:
            key, value = message.key() or b"", message.value() or b""
            self._board.take_aggregate(message.partition() or 0, key, value)

    def _take_bars(self, messages: list[Message]) -> None:
        for message in messages:
            self._board.take_bar(message.key() or b"", message.value() or b"")

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function, *arguments)


def _columns(rows: Sequence[BarRow]) -> BarColumns:
    table = np.array([row[: len(_BAR_FIELDS)] for row in rows], np.int64)
    table = table.reshape(-1, len(_BAR_FIELDS))
    names = [column.name for column in fields(BarColumns)]
    return BarColumns(**{name: table[:, place] for place, name in enumerate(names)})
