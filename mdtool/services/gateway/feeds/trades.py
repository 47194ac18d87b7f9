"""Trades: every one as it is committed, the latest in memory, and the history of a store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.market import TradeFeed, UnavailableError, UnknownSymbolError
from mdtool.adapters.stores.port import MAX_NS, MIN_NS, SymbolTotals, TradeKey
from mdtool.core.permissions import Reader
from mdtool.core.trades import TradeRun
from mdtool.services.client import Client
from mdtool.services.gateway.backlog import Event
from mdtool.services.gateway.feeds.feed import ALL, Audience, Key, Page, Rows
from mdtool.services.gateway.feeds.followed_trades import FollowedTrades
from mdtool.services.gateway.feeds.recent_trades import RecentTrades, Trade
from mdtool.services.gateway.feeds.trade_starts import LATEST, Start, TradeStarts, stored_trades
from mdtool.services.gateway.fields import Field, Kind
from mdtool.services.gateway.history import History, Range
from mdtool.services.gateway.hub import Subscription
from mdtool.services.gateway.market import MarketState
from mdtool.services.gateway.parameters import ParameterError
from mdtool.wire.cursors import Cursor, CursorError, decode_cursor, encode_cursor

log = logging.getLogger(__name__)

MAX_IN_MEMORY: Final = 1_000_000
"""Trades of all symbols that are kept in memory, 44 MB."""
MAX_RECENT: Final = 1_000
"""Trades of a symbol that are served from memory."""
MAX_BATCH: Final = 1_000
"""Trades of a symbol, of one batch, that are sent; older ones are reported as missed."""

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
        self._history = history
        self._market = market
        self._audience = audience
        self._recent = RecentTrades(MAX_IN_MEMORY)
        self._starts = TradeStarts(self._recent, history)
        self._stream = FollowedTrades(
            source, self._recent, self._publish, audience.interrupt, is_always=history is None
        )
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        """Follow the stream of trades, while that is needed, until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            await self._stream.run()

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
            await self._stream.catch_up()
            return self._in_memory(key, page, client.principal.access.reader("trades"))
        part = Range(
            page.limit,
            None if page.cursor is None else TradeKey(*_place(page.cursor, key.symbol)),
            MIN_NS if page.from_ns is None else page.from_ns,
            MAX_NS if page.to_ns is None else page.to_ns,
            page.is_ascending,
        )
        stored = await self._history.trades(client, key.symbol, part)
        rows = stored_trades(key.symbol, stored)
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
        if self._stream.is_collecting:
            following.task = self._tasks.create_task(
                self._begin_current(following, key, subscription, behind)
            )
        elif (start := self._starts.from_memory(key, behind, subscription.reader)) is None:
            wait_s = subscription.client.reserve_upstream()
            following.task = self._tasks.create_task(
                self._begin(following, key, subscription, behind, wait_s)
            )
        else:
            following.leave = self._join(key, subscription, start)
        self._stream.acquire()

        def end() -> None:
            if following.end():
                self._stream.release()

        return end

    def _publish(self, run: TradeRun) -> None:
        """Publish a batch that is in memory."""
        if not self._audience:
            return
        symbols = self._recent.indices(run)
        rows = self._followed(symbols)
        if len(rows) > MAX_BATCH:
            rows = self._bounded(symbols, rows)
        for trade in self._recent.trades(self._recent.total - len(symbols) + rows):
            self._audience.publish(Key(trade.symbol), trade, Event(trade.symbol))

    def _followed(self, symbols: NDArray[np.uint32]) -> NDArray[np.intp]:
        """Return the rows of a batch whose symbols a client follows."""
        if self._audience.is_followed(Key(ALL)):
            return np.arange(len(symbols))
        table, followed_keys = self._recent.symbols, self._audience.keys()
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
                symbol = self._recent.symbols[index]
                self._audience.miss(Key(symbol), symbol, dropped)
        return np.sort(rows[order[newer < MAX_BATCH]])

    async def _begin_current(
        self,
        following: _Following,
        key: Key,
        subscription: Subscription,
        behind: tuple[str, int] | None,
    ) -> None:
        """Begin a subscription once the trades that were collected are in memory."""
        await self._stream.catch_up()
        start = self._starts.from_memory(key, behind, subscription.reader)
        assert start is not None  # with a store, nothing is collected
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
            await self._stream.wait_connected()
        except TimeoutError:
            log.debug("trades of %s: the stream of trades is unavailable", key.symbol)
        start = await self._starts.from_store(key, behind)
        following.leave = self._join(key, subscription, start)

    def _join(self, key: Key, subscription: Subscription, start: Start) -> Callable[[], None]:
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

    def _in_memory(self, key: Key, page: Page, reader: Reader | None) -> Rows[Trade]:
        """Return a page of the trades in memory."""
        recent = self._recent
        positions = recent.positions(key.symbol, _choice(page.symbols, reader))[-MAX_RECENT:]
        if not len(positions) and not self.knows(key):
            self._market.check_live()
            raise UnknownSymbolError(f"no trade of {key.symbol} yet")
        places = sorted(zip(recent.times(positions), positions.tolist(), strict=True))
        if page.from_ns is not None:
            places = [place for place in places if place[0] >= page.from_ns]
        if page.to_ns is not None:
            places = [place for place in places if place[0] < page.to_ns]
        if page.cursor is not None:
            time_ns, generation, position = _place(page.cursor, key.symbol)
            if generation != recent.generation:
                raise ParameterError("cursor: of trades that are not in memory any more")
            last = (time_ns, position)
            places = [p for p in places if (p > last if page.is_ascending else p < last)]
        if not page.is_ascending:
            places.reverse()
        chosen = places[: page.limit]
        cursor = None
        if len(places) > page.limit:
            time_ns, position = chosen[-1]
            cursor = encode_cursor(Cursor(key.symbol, time_ns, recent.generation, position))
        return Rows(recent.trades(np.array([place for _, place in chosen], np.intp)), cursor)


def _choice(symbols: Collection[str], reader: Reader | None) -> Callable[[str], bool] | None:
    """Return what chooses the symbols that are requested and may be read, None for all."""
    if not symbols:
        return None if reader is None else reader.can_read
    return lambda symbol: symbol in symbols and (reader is None or reader.can_read(symbol))


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
