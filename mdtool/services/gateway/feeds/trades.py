"""Trades: every one as it is committed, the latest in memory, and the history of a store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.market import TradeFeed, TradeStream, UnavailableError, UnknownSymbolError
from mdtool.adapters.stores.port import MAX_NS, MIN_NS, SymbolTotals, TradeKey
from mdtool.core.backoff import delays
from mdtool.core.errors import PeerError
from mdtool.core.permissions import Reader
from mdtool.core.symbols import SymbolMap, SymbolTable
from mdtool.core.trades import TradeRun
from mdtool.core.trades import Trades as TradeColumns
from mdtool.services.client import Client
from mdtool.services.gateway.backlog import Event
from mdtool.services.gateway.feeds.feed import ALL, Audience, Key, Page, Rows
from mdtool.services.gateway.fields import Field, Kind
from mdtool.services.gateway.history import History, Range, StoredTrades
from mdtool.services.gateway.hub import Subscription
from mdtool.services.gateway.market import MarketState
from mdtool.services.gateway.parameters import ParameterError
from mdtool.wire.cursors import Cursor, CursorError, decode_cursor, encode_cursor

log = logging.getLogger(__name__)

RING_TRADES: Final = 1_000_000
"""Trades of all symbols that are kept in memory, 44 MB."""
LATEST: Final = 50
"""Trades of a symbol with which a subscription begins."""
MAX_RECENT: Final = 1_000
"""Trades of a symbol that are served from memory."""
MAX_BATCH: Final = 1_000
"""Trades of a symbol, of one batch, that are sent; older ones are reported as missed."""
MAX_RESUMED: Final = 10_000
"""Trades that a resumed subscription gets from the store."""
_MAX_WAITING: Final = 1_024
"""Trades that wait to be entered into the ring."""
_COLUMNS: Final = ("timestamp", "price", "size", "number")
_LONGEST_DELAY_S: Final = 1.0
_UNFOLLOWED_MS: Final = 100
"""How far apart trades come while no client follows them; each message takes 0.1 ms."""
_CATCH_UP_S: Final = 0.5
"""How long a request waits for the trades that are committed by then."""
_CONNECT_S: Final = 2.0
"""How long a subscription waits for the stream of trades before it begins without it."""


class Trade(NamedTuple):
    """A trade: its exchange time in ns, its price at 1e-9, and its place in its ingest stream."""

    symbol: str
    timestamp: int
    price: int
    size: int
    stream: str
    number: int

    @property
    def sequence(self) -> str:
        """What identifies the trade."""
        return f"{self.stream}:{self.number}"


FIELDS: Final = (
    Field("symbol", Kind.TEXT, "The symbol."),
    Field("sequence", Kind.TEXT, "The trade's identity: its stream, and its place in it."),
    Field("timestamp", Kind.TIME, "The exchange time."),
    Field("price", Kind.PRICE, "The price."),
    Field("size", Kind.SIZE, "The size."),
)


class Trades:
    """The feed of trades.

    With a store the stream of trades is followed while a client follows trades, else always: while
    nobody does, trades are collected at their source, until they are requested.

    Parameters
    ----------
    source : TradeFeed
        The stream of all trades; entered by the caller.
    history : History or None
        The store, where there is one.
    market : MarketState
        What knows symbols.
    audience : Audience
    """

    def __init__(
        self,
        source: TradeFeed,
        history: History | None,
        market: MarketState,
        audience: Audience[Trade],
    ) -> None:
        self._source = source
        self._history = history
        self._market = market
        self._audience = audience
        self._ring = _Ring(RING_TRADES)
        self._connected = asyncio.Event()
        self._stream: TradeStream | None = None
        self._has_gap = False
        self._followers = 0
        self._following: asyncio.Task[None] | None = None
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        """Follow the stream of trades, while that is needed, until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            if self._history is None:
                await self._follow_source()
            await asyncio.Event().wait()

    async def current(self, client: Client, key: Key) -> Sequence[Trade]:
        """As `Feed.current`: the latest trades, oldest first."""
        return (await self.history(client, key, Page(LATEST))).rows[::-1]

    def knows(self, key: Key) -> bool:
        """As `Feed.knows`."""
        return key.symbol == ALL or self._market.symbols.find(key.symbol) is not None

    async def history(self, client: Client, key: Key, page: Page) -> Rows[Trade]:
        """As `HistoryFeed.history`: of a symbol from the store, where there is one.

        Of every symbol, or without a store, it is the last `MAX_RECENT` in memory.
        """
        if self._history is None or key.symbol == ALL:
            await self._catch_up()
            return self._recent(key, page, client.principal.access.reader("trades"))
        part = Range(
            page.limit,
            None if page.cursor is None else TradeKey(*_place(page.cursor, key.symbol)),
            MIN_NS if page.from_ns is None else page.from_ns,
            MAX_NS if page.to_ns is None else page.to_ns,
            page.is_ascending,
        )
        stored = await self._history.trades(client, key.symbol, part)
        rows = _rows(key.symbol, stored)
        cursor = None
        if stored.has_more:
            cursor = encode_cursor(Cursor(key.symbol, *stored.page.key(page.limit - 1)))
        return Rows(rows, cursor)

    async def stored_symbols(self, client: Client) -> Sequence[SymbolTotals]:
        """Return the symbols of which trades are stored, in order.

        Raises
        ------
        UnavailableError
            When there is no store.
        LimitError, PeerError
            As `History.symbols` does.
        """
        return await self.check_stored().symbols(client)

    def check_stored(self) -> History:
        """Return the store; raise UnavailableError where there is none."""
        if self._history is None:
            raise UnavailableError("trades: no history; start the gateway with a store")
        return self._history

    def follow(
        self, key: Key, subscription: Subscription, after: str | None = None
    ) -> Callable[[], None]:
        """As `Feed.follow`: the latest trades first, or those behind `after`.

        Where those are not known any more, the latest come behind a report that an unknown number
        was missed.
        """
        behind = None if after is None else _parse_sequence(after)
        following = _Following()
        if self._stream is not None and self._stream.is_collecting:
            following.task = self._tasks.create_task(
                self._begin_current(following, key, subscription, behind)
            )
        elif (start := self._start(key, behind, subscription.reader)) is None:
            wait_s = subscription.client.reserve_upstream()
            following.task = self._tasks.create_task(
                self._begin(following, key, subscription, behind, wait_s)
            )
        else:
            following.leave = self._join(key, subscription, start)
        self._followers += 1
        self._set_interval()
        if self._history is not None and self._following is None:
            self._following = self._tasks.create_task(self._follow_source())

        def end() -> None:
            if following.end():
                self._followers -= 1
                self._stop_unneeded()
                self._set_interval()

        return end

    def _stop_unneeded(self) -> None:
        if self._following is not None and not self._followers:
            self._following.cancel()
            self._following = self._stream = None
            self._connected.clear()
            self._has_gap = False
            self._ring.clear()

    def _set_interval(self) -> None:
        if self._stream is not None:
            self._stream.collect(0 if self._followers else _UNFOLLOWED_MS)

    async def _catch_up(self) -> None:
        """Wait for the trades that were collected at their source."""
        if self._stream is not None and self._stream.is_collecting:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CATCH_UP_S):
                    await self._stream.catch_up()

    async def _follow_source(self) -> None:
        waits = delays(cap_s=_LONGEST_DELAY_S)
        reason: str | None = None

        def connected(stream: TradeStream) -> None:
            nonlocal waits, reason
            self._stream = stream
            self._set_interval()
            waits = delays(cap_s=_LONGEST_DELAY_S)
            reason = None
            self._ring.begin()
            if self._has_gap:
                self._audience.interrupt()
            self._has_gap = True
            self._connected.set()

        while True:
            try:
                await self._source.follow_trades(connected, self._receive)
            except PeerError as error:
                if str(error) != reason:
                    log.info("trades: %s; reconnecting", error)
                reason = str(error)
            self._stream = None
            self._connected.clear()
            await asyncio.sleep(next(waits))

    def _receive(self, run: TradeRun) -> None:
        self._ring.append(run)
        if not self._audience:
            return
        symbols = self._ring.indices(run)
        rows = self._followed(symbols)
        if len(rows) > MAX_BATCH:
            rows = self._bounded(symbols, rows)
        for trade in self._ring.trades(self._ring.total - len(symbols) + rows):
            self._audience.publish(Key(trade.symbol), trade, Event(trade.symbol))

    def _followed(self, symbols: NDArray[np.uint32]) -> NDArray[np.intp]:
        """Return the rows of a batch whose symbols a client follows."""
        if self._audience.is_followed(Key(ALL)):
            return np.arange(len(symbols))
        table, followed_keys = self._ring.symbols, self._audience.keys()
        followed = [table.find(key.symbol) for key in followed_keys]
        known = [index for index in followed if index is not None]
        return np.flatnonzero(np.isin(symbols, known))

    def _bounded(self, symbols: NDArray[np.uint32], rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the last `MAX_BATCH` of each symbol, and report the others as missed."""
        chosen = symbols[rows]
        order = np.argsort(chosen, kind="stable")
        found, first, count = np.unique(chosen[order], return_index=True, return_counts=True)
        # Of each row, how many of its symbol follow it.
        newer = np.repeat(first + count, count) - np.arange(len(order)) - 1
        for index, dropped in zip(found.tolist(), (count - MAX_BATCH).tolist(), strict=True):
            if dropped > 0:
                symbol = self._ring.symbols[index]
                self._audience.miss(Key(symbol), symbol, dropped)
        return np.sort(rows[order[newer < MAX_BATCH]])

    def _start(
        self, key: Key, behind: tuple[str, int] | None, reader: Reader | None
    ) -> _Start | None:
        """Return the trades that a subscription begins with, None where only the store knows."""
        has_store = self._history is not None and key.symbol != ALL
        positions = self._ring.positions(key.symbol, reader)
        if behind is not None:
            place = self._ring.find(*behind)
            if place is not None and place >= self._ring.contiguous_from:
                newer = positions[positions > place]
                is_complete = len(newer) <= MAX_RESUMED
                return _Start(self._ring.trades(newer[-MAX_RESUMED:]), is_complete, is_resumed=True)
        if has_store and (behind is not None or len(positions) < LATEST):
            return None
        return _Start(self._ring.trades(positions[-LATEST:]), behind is None)

    async def _begin_current(
        self,
        following: _Following,
        key: Key,
        subscription: Subscription,
        behind: tuple[str, int] | None,
    ) -> None:
        """Begin a subscription once the trades that were collected are in memory."""
        await self._catch_up()
        start = self._start(key, behind, subscription.reader)
        assert start is not None
        following.leave = self._join(key, subscription, start)

    async def _begin(
        self,
        following: _Following,
        key: Key,
        subscription: Subscription,
        behind: tuple[str, int] | None,
        wait_s: float,
    ) -> None:
        """Begin a subscription with trades from the store, then those in memory."""
        await asyncio.sleep(wait_s)
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._connected.wait()
        except TimeoutError:
            log.debug("trades of %s: the stream of trades is unavailable", key.symbol)
        requested_at = self._ring.total
        start = await self._stored(key, behind)
        known = {(trade.stream, trade.number) for trade in start.trades}
        recent = self._committed(key.symbol, behind, requested_at)
        trades = [*start.trades, *(each for each in recent if each[-2:] not in known)]
        if behind is None or not start.is_complete:
            trades = trades[-LATEST:]
        following.leave = self._join(key, subscription, start._replace(trades=trades))

    def _committed(
        self, symbol: str, behind: tuple[str, int] | None, since: int
    ) -> Sequence[Trade]:
        """Return the trades in memory that a store may not have had when it was read.

        Those are the ones from a position on, and of the stream that is resumed all behind its
        trade: on a bus, the store follows later.
        """
        positions = self._ring.positions(symbol)
        positions = positions[positions >= self._ring.contiguous_from]
        trades = self._ring.trades(positions)
        if behind is None:
            return trades
        stream, number = behind
        return [
            trade
            for trade, position in zip(trades, positions.tolist(), strict=True)
            if (trade.number > number if trade.stream == stream else position >= since)
        ]

    async def _stored(self, key: Key, behind: tuple[str, int] | None) -> _Start:
        assert self._history is not None
        limit = LATEST if behind is None else MAX_RESUMED
        try:
            stored = await self._history.trades(None, key.symbol, Range(limit))
        except UnknownSymbolError:
            return _Start([], behind is None)
        except PeerError as error:
            log.debug("trades of %s: %s", key.symbol, error)
            return _Start([], behind is None)
        trades = _rows(key.symbol, stored)[::-1]
        if behind is None:
            return _Start(trades, is_complete=True)
        received = stored.page.trades.ts_recv[:limit][::-1].tolist()
        for trade, time_ns in zip(trades, received, strict=True):
            if trade[-2:] == behind:
                newer = [
                    each
                    for each, its_time_ns in zip(trades, received, strict=True)
                    if (each.stream == trade.stream and each.number > trade.number)
                    or (each.stream != trade.stream and its_time_ns >= time_ns)
                ]
                return _Start(newer, is_complete=True, is_resumed=True)
        return _Start(trades, is_complete=False)

    def _join(self, key: Key, subscription: Subscription, start: _Start) -> Callable[[], None]:
        layout = subscription.format
        updates = [
            subscription.update(layout.encode(trade, not start.is_resumed), Event(trade.symbol))
            for trade in start.trades
        ]
        if not start.is_complete:
            missed = layout.missed(key.symbol, None)
            updates.insert(0, subscription.update(missed, Event(key.symbol, None)))
        if updates:
            subscription.outlet.send_all(updates)
        return self._audience.join(Key(key.symbol), subscription, ())

    def _recent(self, key: Key, page: Page, reader: Reader | None) -> Rows[Trade]:
        """Return a page of the trades in memory."""
        ring = self._ring
        positions = ring.positions(key.symbol, reader)[-MAX_RECENT:]
        if not len(positions) and not self.knows(key):
            self._market.check_live()
            raise UnknownSymbolError(f"no trade of {key.symbol} yet")
        places = sorted(zip(ring.times(positions), positions.tolist(), strict=True))
        if page.from_ns is not None:
            places = [place for place in places if place[0] >= page.from_ns]
        if page.to_ns is not None:
            places = [place for place in places if place[0] < page.to_ns]
        if page.cursor is not None:
            time_ns, generation, position = _place(page.cursor, key.symbol)
            if generation != ring.generation:
                raise ParameterError("cursor: of trades that are not in memory any more")
            last = (time_ns, position)
            places = [p for p in places if (p > last if page.is_ascending else p < last)]
        if not page.is_ascending:
            places.reverse()
        chosen = places[: page.limit]
        cursor = None
        if len(places) > page.limit:
            time_ns, position = chosen[-1]
            cursor = encode_cursor(Cursor(key.symbol, time_ns, ring.generation, position))
        return Rows(ring.trades(np.array([place for _, place in chosen], np.intp)), cursor)


class _Start(NamedTuple):
    """The trades with which a subscription begins.

    `is_complete` is whether none was missed before them, `is_resumed` whether they follow the last
    one that the client has.
    """

    trades: Sequence[Trade]
    is_complete: bool
    is_resumed: bool = False


class _Following:
    """A subscription that has begun, or waits for the store."""

    __slots__ = ("has_ended", "leave", "task")

    def __init__(self) -> None:
        self.leave: Callable[[], None] | None = None
        self.task: asyncio.Task[None] | None = None
        self.has_ended = False

    def end(self) -> bool:
        """End it; return False where it has ended before."""
        if self.has_ended:
            return False
        self.has_ended = True
        if self.leave is not None:
            self.leave()
        elif self.task is not None:
            self.task.cancel()
        return True


class _Ring:
    """The last trades of all symbols, in the order of their commits.

    A trade's position counts all trades before it.

    Parameters
    ----------
    size : int
        How many are kept.

    Attributes
    ----------
    symbols : SymbolTable
    total : int
        The position of the next trade.
    contiguous_from : int
        The position from which on no trade was missed.
    generation : int
        Tells the positions of this ring from those of another process.
    """

    def __init__(self, size: int) -> None:
        self.symbols = SymbolTable()
        self._map = SymbolMap(SymbolTable(), self.symbols.intern)
        self.generation = secrets.randbits(62)
        self.total = 0
        self.contiguous_from = 0
        self._size = size
        self._symbol = np.empty(size, np.int32)
        self._columns = {name: np.empty(size, np.int64) for name in _COLUMNS}
        self._stream = np.empty(size, object)
        self._waiting: list[TradeRun] = []
        """Batches of one table of symbols that are not entered yet."""
        self._n_waiting = 0
        self._oldest = 0
        """The position of the first trade since the ring was cleared."""

    def begin(self) -> None:
        """Take note that trades before the next one may have been missed."""
        self.contiguous_from = self.total

    def clear(self) -> None:
        """Forget all trades."""
        self._enter()
        self._oldest = self.contiguous_from = self.total

    def append(self, run: TradeRun) -> None:
        """Append a batch. It is entered with others when trades are read, or many wait."""
        count = len(run.trades)
        if self._waiting and run.symbols is not self._waiting[-1].symbols:
            self._enter()
        self._waiting.append(run)
        self._n_waiting += count
        self.total += count
        if self._n_waiting >= _MAX_WAITING or len(self._waiting) >= _MAX_WAITING:
            self._enter()

    def indices(self, run: TradeRun) -> NDArray[np.uint32]:
        """Return the own index of each symbol of a batch that was appended, shape (n,)."""
        self._enter()
        return self._map.map(run.trades.symbol)

    def _enter(self) -> None:
        """Enter what waits: one batch of many ticks costs little more than one of one."""
        runs, self._waiting, self._n_waiting = self._waiting, [], 0
        if not runs:
            return
        trades = TradeColumns.concatenate([run.trades for run in runs])
        if runs[0].symbols is not self._map.source:
            self._map = SymbolMap(runs[0].symbols, self.symbols.intern)
        own = self._map.map(trades.symbol)
        n = len(own)
        skipped = max(0, n - self._size)
        first = (self.total - n + skipped) % self._size
        if first + n - skipped <= self._size:
            places: slice | NDArray[np.intp] = slice(first, first + n - skipped)
        else:
            places = np.arange(first, first + n - skipped) % self._size
        streams = np.empty(len(runs), object)
        streams[:] = [run.stream_id for run in runs]
        streams = np.repeat(streams, [len(run.trades) for run in runs])
        number = np.concatenate(
            [run.first_sequence + run.frames.offset.astype(np.int64) for run in runs]
        )
        self._symbol[places] = own[skipped:]
        self._stream[places] = streams[skipped:]
        values = (trades.ts_event, trades.price, trades.size, number)
        for name, column in zip(_COLUMNS, values, strict=True):
            self._columns[name][places] = column[skipped:]

    def positions(self, symbol: str, reader: Reader | None = None) -> NDArray[np.intp]:
        """Return the positions of a symbol's trades, or of all that may be read, rising."""
        self._enter()
        if symbol == ALL:
            positions = np.arange(max(self._oldest, self.total - self._size), self.total)
            if reader is None:
                return positions
            allowed = np.array(list(map(reader.can_read, self.symbols)), np.bool_)
            return positions[allowed[self._symbol[positions % self._size]]]
        index = self.symbols.find(symbol)
        if index is None:
            return np.empty(0, np.intp)
        return self._equal(self._symbol, index)

    def find(self, stream: str, number: int) -> int | None:
        """Return the position of the trade at a place in a stream."""
        self._enter()
        for position in self._equal(self._columns["number"], number).tolist():
            if self._stream[position % self._size] == stream:
                return int(position)
        return None

    def _equal(self, column: NDArray[np.integer], value: int) -> NDArray[np.intp]:
        """Return the positions at which a column has a value, rising."""
        places = np.flatnonzero(column[: min(self.total, self._size)] == value)
        positions = places + self.total // self._size * self._size
        positions[positions >= self.total] -= self._size
        return np.sort(positions[positions >= max(self._oldest, self.total - self._size)])

    def times(self, positions: NDArray[np.intp]) -> list[int]:
        """Return the exchange times of trades, in ns."""
        times: list[int] = self._columns["timestamp"][positions % self._size].tolist()
        return times

    def trades(self, positions: NDArray[np.intp]) -> list[Trade]:
        """Return trades one by one."""
        places = positions % self._size
        table = self.symbols
        symbols = [table[index] for index in self._symbol[places].tolist()]
        timestamp, price, size, number = (self._columns[name][places].tolist() for name in _COLUMNS)
        streams = self._stream[places].tolist()
        return list(map(Trade, symbols, timestamp, price, size, streams, number))


def _rows(symbol: str, stored: StoredTrades) -> list[Trade]:
    """Return the trades that were requested of a store, one by one."""
    page, n = stored.page, len(stored.streams)
    columns = (page.trades.ts_event, page.trades.price, page.trades.size)
    values = (column[:n].tolist() for column in columns)
    sequence = page.sequence[:n].tolist()
    return list(map(Trade._make, zip(repeat(symbol), *values, stored.streams, sequence)))


def _parse_sequence(text: str) -> tuple[str, int]:
    stream, _, number = text.rpartition(":")
    if stream and number.isascii() and number.isdigit() and len(number) < 20:
        return stream, int(number)
    raise ParameterError("after: expects the sequence of a trade, STREAM:NUMBER")


def _place(cursor: str, symbol: str) -> tuple[int, int, int]:
    """Return the place in a symbol's trades behind which a page begins."""
    try:
        place = decode_cursor(cursor)
    except CursorError as error:
        raise ParameterError(f"cursor: {error}; pass the one of the page before") from error
    if place.symbol != symbol:
        raise ParameterError("cursor: of another symbol; pass the one of the page before")
    return place[1:]
