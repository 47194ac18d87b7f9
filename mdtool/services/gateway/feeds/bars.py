"""Bars: the newest of each symbol and every one that changes, and their history."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, Final, NamedTuple

from mdtool.adapters.market import RefusedError, UnansweredError, UnavailableError
from mdtool.core.backoff import delays
from mdtool.core.errors import PeerError
from mdtool.core.symbols import SymbolTable
from mdtool.core.units import parse_duration
from mdtool.services.client import Client
from mdtool.services.gateway.feeds.feed import ALL, Audience, Key, Page, Rows
from mdtool.services.gateway.fields import STALE, Field, Kind
from mdtool.services.gateway.hub import Subscription
from mdtool.services.gateway.market import MarketStream
from mdtool.services.gateway.parameters import ParameterError
from mdtool.services.gateway.upstream import Upstream
from mdtool.wire.batches import BarColumns, BarUpdates
from mdtool.wire.cursors import Cursor, CursorError, decode_cursor, encode_cursor

log = logging.getLogger(__name__)

MAX_NS: Final = 2**63 - 1
_LONGEST_DELAY_S: Final = 1.0
_PAGES_KEPT: Final = 256
"""Pages to be served stale should the aggregator become unavailable; 1,000 bars are 56 KB."""


class Bar(NamedTuple):
    """A bar of a symbol; its start in ns and inclusive, prices at 1e-9."""

    symbol: str
    interval: str
    start: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    trades: int
    is_stale: bool = False


FIELDS: Final = (
    Field("symbol", Kind.TEXT, "The symbol."),
    Field("start", Kind.TIME, "When the bar starts, inclusive."),
    Field("open", Kind.PRICE, "The first price of the interval."),
    Field("high", Kind.PRICE, "The highest price."),
    Field("low", Kind.PRICE, "The lowest price."),
    Field("close", Kind.PRICE, "The last price."),
    Field("volume", Kind.SIZE, "The total size of its trades."),
    Field("trades", Kind.SIZE, "The number of its trades."),
    STALE,
)


class Bars:
    """The feed of bars. A series, of a symbol or of all, is one call upstream for an interval.

    A series outlives the aggregator: when its call is lost, it is made again, and begins with the
    newest bars.

    Parameters
    ----------
    market : MarketStream
        The aggregator, and the symbols in memory.
    upstream : Upstream
        How the aggregator gets requests.
    audience : Audience
    tasks : asyncio.TaskGroup
        Where series are followed.
    """

    def __init__(
        self,
        market: MarketStream,
        upstream: Upstream,
        audience: Audience[Bar],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._aggregator = market.aggregator
        self._market = market.state
        self._upstream = upstream
        self._audience = audience
        self._tasks = tasks
        self._series: dict[Key, _Series] = {}
        self._pages: dict[tuple[Key, Page], BarColumns] = {}

    async def current(self, client: Client, key: Key) -> Sequence[Bar]:
        """As `Feed.current`: the newest bar of a symbol, or of each."""
        series = self._series.get(key)
        if series is not None and series.newest:
            return [series.newest[symbol] for symbol in sorted(series.newest)]
        if key.symbol != ALL:
            return (await self.history(client, key, Page(1))).rows
        if self._market.is_live and not len(self._market.symbols):
            return []  # where there are none, the aggregator sends nothing
        client.spend_upstream()
        newest = await self._upstream.request(lambda timeout_s: self._newest(key, timeout_s))
        return sorted(newest)

    def knows(self, key: Key) -> bool:
        """As `Feed.knows`."""
        return key.symbol == ALL or self._market.symbols.find(key.symbol) is not None

    def follow(
        self, key: Key, subscription: Subscription, after: str | None = None
    ) -> Callable[[], None]:
        """As `Feed.follow`."""
        series = self._series.get(key)
        if series is None:
            wait_s = subscription.client.reserve_upstream()
            series = self._series[key] = _Series()
            series.task = self._tasks.create_task(self._follow(key, series, wait_s))
        leave = self._audience.join(key, subscription, series.snapshot())

        def end() -> None:
            leave()
            if not self._audience.is_followed(key):
                self._end(key, series)

        return end

    async def history(self, client: Client, key: Key, page: Page) -> Rows[Bar]:
        """As `HistoryFeed.history`; the last known page while the aggregator is unavailable."""
        client.spend_upstream()
        symbol, interval = key.symbol, str(key.option)
        span = _Span.of(key, page)
        is_stale = False
        try:
            columns = await self._upstream.request(
                lambda timeout_s: self._read(key, page, span, timeout_s)
            )
        except (UnavailableError, UnansweredError):
            known = self._pages.get((key, page))
            if known is None:
                raise
            columns, is_stale = known, True
        else:
            self._keep((key, page), columns)
        found = bar_rows(repeat(symbol), interval, columns, is_stale)
        bars = [bar for bar in found if span.from_ns <= bar.start < span.to_ns]
        rows = bars[: page.limit]
        cursor = _cursor(symbol, interval, rows[-1].start) if len(bars) > page.limit else None
        return Rows(rows, cursor, is_stale)

    def _read(self, key: Key, page: Page, span: _Span, timeout_s: float) -> Awaitable[BarColumns]:
        """Request one bar more than the page has, if there are more."""
        symbol, interval, limit = key.symbol, str(key.option), page.limit + 1
        if page.is_ascending:
            since_ns = max(1, span.from_ns)
            return self._aggregator.bars_since(symbol, interval, limit, since_ns, timeout_s)
        before_ns = 0 if span.to_ns == MAX_NS else span.to_ns
        return self._aggregator.bars(symbol, interval, limit, before_ns, timeout_s)

    def _keep(self, page: tuple[Key, Page], columns: BarColumns) -> None:
        self._pages.pop(page, None)
        self._pages[page] = columns
        if len(self._pages) > _PAGES_KEPT:
            del self._pages[next(iter(self._pages))]

    async def _newest(self, key: Key, timeout_s: float) -> Iterable[Bar]:
        """Return the newest bar of each symbol, which a call begins with."""
        first: asyncio.Future[list[Bar]] = asyncio.get_running_loop().create_future()

        def receive(symbols: SymbolTable, updates: BarUpdates) -> None:
            if not first.done():
                first.set_result(_updated(symbols, str(key.option), updates))

        call = asyncio.create_task(self._aggregator.follow_bars("", str(key.option), receive))
        try:
            both: set[asyncio.Future[Any]] = {call, first}
            await asyncio.wait(both, timeout=timeout_s, return_when="FIRST_COMPLETED")
            if first.done():
                return {bar.symbol: bar for bar in first.result()}.values()
            if call.done():
                await call
            raise UnansweredError("aggregator: no bars in time")
        finally:
            call.cancel()

    async def _follow(self, key: Key, series: _Series, wait_s: float) -> None:
        symbol, interval = "" if key.symbol == ALL else key.symbol, str(key.option)

        def receive(symbols: SymbolTable, updates: BarUpdates) -> None:
            bars = _updated(symbols, interval, updates)
            series.receive(bars)
            for bar in bars:
                # Each bar is a state of its own: a later bar does not replace an earlier one.
                self._audience.send(key, bar, (bar.symbol, bar.start))

        await asyncio.sleep(wait_s)
        waits = delays(cap_s=_LONGEST_DELAY_S)
        while True:
            try:
                await self._aggregator.follow_bars(symbol, interval, receive)
            except RefusedError as error:
                self._end(key, series)
                self._audience.fail(key, error)
                return
            except PeerError as error:
                log.debug("%s bars of %s: %s", interval, key.symbol, error)
            if series.has_received:
                series.has_received = False
                waits = delays(cap_s=_LONGEST_DELAY_S)
            await asyncio.sleep(next(waits))

    def _end(self, key: Key, series: _Series) -> None:
        """Close the series to new followers, and end its call."""
        if self._series.get(key) is series:
            del self._series[key]
            if series.task is not asyncio.current_task():
                series.task.cancel()


class _Series:
    __slots__ = ("has_received", "newest", "task")

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.newest: dict[str, Bar] = {}
        self.has_received = False

    def receive(self, bars: Sequence[Bar]) -> None:
        """Apply the bars of a message."""
        if not self.has_received:
            self.newest.clear()  # an aggregator that restarted may not have them any more
        self.has_received = True
        for bar in bars:
            known = self.newest.get(bar.symbol)
            if known is None or bar.start >= known.start:
                self.newest[bar.symbol] = bar

    def snapshot(self) -> Iterator[tuple[Bar, tuple[str, int]]]:
        for symbol in list(self.newest):
            bar = self.newest.get(symbol)
            if bar is not None:
                yield bar, (symbol, bar.start)


class _Span(NamedTuple):
    """The starts of bars that a page may have, inclusive and exclusive."""

    from_ns: int
    to_ns: int

    @classmethod
    def of(cls, key: Key, page: Page) -> _Span:
        from_ns = page.from_ns or 0
        to_ns = MAX_NS if page.to_ns is None else page.to_ns
        if page.cursor is None:
            return cls(from_ns, to_ns)
        place_ns = _place(page.cursor, key)
        if page.is_ascending:
            return cls(max(from_ns, place_ns + 1), to_ns)
        return cls(from_ns, min(to_ns, place_ns))


def _cursor(symbol: str, interval: str, start: int) -> str:
    return encode_cursor(Cursor(symbol, start, parse_duration(interval), 0))


def _place(cursor: str, key: Key) -> int:
    """Return the start of the bar behind which a page begins."""
    try:
        place = decode_cursor(cursor)
    except CursorError as error:
        raise ParameterError(f"cursor: {error}; pass next of the page before") from error
    if place[2:] != (parse_duration(str(key.option)), 0) or place.symbol != key.symbol:
        raise ParameterError("cursor: of another symbol or interval")
    return place.timestamp_ns


def bar_rows(
    symbols: Iterable[str], interval: str, bars: BarColumns, is_stale: bool = False
) -> list[Bar]:
    """Return bars one by one, in the same order, with the symbol of each."""
    columns = (bars.start, bars.open, bars.high, bars.low, bars.close, bars.volume, bars.count)
    values = (column.tolist() for column in columns)
    return list(map(Bar, symbols, repeat(interval), *values, repeat(is_stale)))


def _updated(symbols: SymbolTable, interval: str, updates: BarUpdates) -> list[Bar]:
    names = (symbols[index] for index in updates.symbol.tolist())
    return bar_rows(names, interval, updates.bars)
