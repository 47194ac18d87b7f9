"""Quotes: the best prices and the last trade of each symbol, from a hub that gateways may share."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.market import UnavailableError, UnknownSymbolError
from mdtool.adapters.quotes import QuoteHub
from mdtool.adapters.quotes.port import TTL_S
from mdtool.core.units import NS_PER_MS
from mdtool.services.client import Client
from mdtool.services.gateway.feeds.feed import ALL, Audience, Key, LazyRows
from mdtool.services.gateway.fields import STALE, Field, Kind
from mdtool.services.gateway.hub import Changes, Subscription
from mdtool.services.gateway.market import MarketState
from mdtool.services.gateway.upstream import peer_state
from mdtool.wire.quotes import Quote

if TYPE_CHECKING:
    from mdtool.adapters.quotes.dbn_stream import DbnQuotes
    from mdtool.core.batch import Batch

log = logging.getLogger(__name__)

Observer: TypeAlias = "Callable[[str, Batch], None]"
"""Takes the address of a DBN stream, and some of its records."""

MAX_SYMBOLS: Final = 100_000
"""Quotes of further symbols are dropped: anybody who shares a hub may publish on it."""
_CLOSE: Final = 3
_TIME: Final = 6
_AT_ONCE: Final = 500
"""Quotes that are published again in one turn of the event loop: 3 ms."""
_REPEAT_S: Final = TTL_S / 4
"""How often this gateway publishes its fresh quotes again."""


class LatestQuote(NamedTuple):
    """A quote: prices at 1e-9, None where unknown, and the time in ms; see `Quote`."""

    symbol: str
    bid: int | None
    ask: int | None
    last: int | None
    ts_ms: int
    is_partial: bool = False
    is_stale: bool = False

    @property
    def timestamp(self) -> int:
        """The time in ns."""
        return self.ts_ms * NS_PER_MS

    @property
    def is_of_book(self) -> bool:
        """Whether it has a side of the book, not trades alone."""
        return self.bid is not None or self.ask is not None


FIELDS: Final = (
    Field("symbol", Kind.TEXT, "The symbol."),
    Field("bid", Kind.PRICE, "The best price of buyers.", is_optional=True),
    Field("ask", Kind.PRICE, "The best price of sellers.", is_optional=True),
    Field("last", Kind.PRICE, "The price of the last trade.", is_optional=True),
    Field("timestamp", Kind.TIME, "When a price changed last, or a trade took place."),
    Field(
        "partial",
        Kind.FLAG,
        "Whether its book began without a snapshot, or lost records: better prices may be missing.",
        source="is_partial",
        is_sparse=True,
    ),
    STALE,
)


class QuoteBoard:
    """The latest quote of each symbol.

    A quote that was not published for `TTL_S` is stale, and remains until there is another.

    Parameters
    ----------
    publish : callable
        Called with the quotes that changed, or became stale, each symbol once.
    now_s : callable, optional
        A monotonic clock.
    """

    def __init__(
        self,
        publish: Callable[[Sequence[LatestQuote]], None],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publish = publish
        self._now_s = now_s
        self._rows: dict[str, LatestQuote] = {}
        self._received_s: dict[str, float] = {}
        self._in_order: list[str] = []
        self._is_full = False

    def __len__(self) -> int:
        return len(self._rows)

    def has_room_for(self, symbol: str) -> bool:
        """Return whether quotes of a symbol are not dropped."""
        return len(self._rows) < MAX_SYMBOLS or symbol in self._rows

    def receive(self, quotes: Sequence[Quote]) -> None:
        """Apply quotes that were published, the same again or others."""
        now_s = self._now_s()
        changed = []
        for quote in quotes:
            known = self._rows.get(quote.symbol)
            if known is None and len(self._rows) == MAX_SYMBOLS:
                self.warn_full()
                continue
            self._received_s[quote.symbol] = now_s
            if known != (*quote, False):
                row = self._rows[quote.symbol] = LatestQuote(*quote, is_stale=False)
                changed.append(row)
        if changed:
            self._publish(changed)

    def renew_trades(self, symbols: Iterable[str]) -> list[str]:
        """Keep fresh quotes fresh that are trades alone; return the other symbols of these."""
        now_s = self._now_s()
        others = []
        for symbol in symbols:
            row = self._rows[symbol]
            if row.is_stale or row.is_of_book:
                others.append(symbol)
            else:
                self._received_s[symbol] = now_s
        return others

    def expire(self) -> None:
        """Mark quotes stale that were published too long ago."""
        oldest_s = self._now_s() - TTL_S
        changed = [
            row._replace(is_stale=True)
            for row in self._rows.values()
            if self._received_s[row.symbol] < oldest_s and not row.is_stale
        ]
        self._rows.update((row.symbol, row) for row in changed)
        if changed:
            self._publish(changed)

    def find(self, symbol: str) -> LatestQuote | None:
        """Return the quote of a symbol, None where there never was one."""
        return self._rows.get(symbol)

    def row(self, symbol: str) -> LatestQuote:
        """Return the quote of a symbol that has one; raise KeyError otherwise."""
        return self._rows[symbol]

    def symbols(self) -> list[str]:
        """Return the symbols, in order."""
        if len(self._in_order) != len(self._rows):
            self._in_order = sorted(self._rows)
        return self._in_order

    def stale_count(self) -> int:
        """Return how many are stale."""
        return sum(row.is_stale for row in self._rows.values())

    def warn_full(self) -> None:
        """Log once that there are more symbols than it has room for."""
        if not self._is_full:
            self._is_full = True
            log.warning("quotes: more than %d symbols; dropping those of further ones", MAX_SYMBOLS)


class Quotes:
    """The feed of quotes. They are those of DBN streams, if any is configured, else last trades.

    Parameters
    ----------
    hub : QuoteHub
        Where quotes are published and received; not entered yet.
    streams : sequence of str
        HOST:PORT of each DBN stream.
    market : MarketState
        Where last trades are.
    audience : Audience

    Attributes
    ----------
    board : QuoteBoard
    changes : int
        Rises whenever a quote changes.
    """

    def __init__(
        self,
        hub: QuoteHub,
        streams: Sequence[str],
        market: MarketState,
        audience: Audience[LatestQuote],
    ) -> None:
        self.board = QuoteBoard(self._publish)
        self.changes = 0
        self._hub = hub
        self._stream_addresses = streams
        self._streams: list[DbnQuotes] = []
        self._listeners: list[Callable[[Sequence[LatestQuote]], None]] = []
        self._observe: Observer = lambda _address, _batch: None
        self._market = market
        self._audience = audience
        self._changed = Changes(audience.hub, self._publish_latest)
        hub.subscribe(self.board.receive)

    def listen(self, listener: Callable[[Sequence[LatestQuote]], None]) -> None:
        """Have a listener called with quotes that changed, or became stale."""
        self._listeners.append(listener)

    def listen_to_records(self, observe: Observer) -> None:
        """Have the records of streams passed on, as they arrive."""
        self._observe = observe

    async def run(self) -> None:
        """Keep quotes current until cancelled; the hub is entered by then."""
        async with asyncio.TaskGroup() as tasks:
            for address in self._stream_addresses:
                observe = functools.partial(self._observe, address)
                stream = await asyncio.to_thread(_dbn_quotes, address, self._hub, observe)
                self._streams.append(stream)
                tasks.create_task(stream.run())
            while True:
                await asyncio.sleep(_REPEAT_S)
                for stream in self._streams:
                    stream.repeat()
                await self._repeat_trades()
                self.board.expire()

    async def _repeat_trades(self) -> None:
        """Keep last trades of the market fresh, some in each turn of the loop.

        Who shares the hub has them published again. Within one process those that are fresh are
        what the market has, for it publishes each that changes.
        """
        if not self._market.is_live:
            return
        lost = set(self._market.stale_symbols())
        symbols = [symbol for symbol in self.board.symbols() if symbol not in lost]
        for begin in range(0, len(symbols), _AT_ONCE):
            due = symbols[begin : begin + _AT_ONCE]
            if not self._hub.is_shared:
                due = self.board.renew_trades(due)
            found = map(self._market.symbols.find, due)
            self.trade(np.array([index for index in found if index is not None], np.intp))
            await asyncio.sleep(0)

    async def current(self, _client: Client, key: Key) -> Sequence[LatestQuote]:
        """As `Feed.current`."""
        if key.symbol != ALL:
            return [self.find(key.symbol)]
        if not len(self.board):
            self._check_source()
        return LazyRows(self.board.symbols(), self.board.row)

    def knows(self, key: Key) -> bool:
        """As `Feed.knows`."""
        return key.symbol == ALL or self.board.find(key.symbol) is not None

    def follow(
        self, key: Key, subscription: Subscription, after: str | None = None
    ) -> Callable[[], None]:
        """As `Feed.follow`."""
        return self._audience.join(key, subscription, self._snapshot(key.symbol))

    def find(self, symbol: str) -> LatestQuote:
        """Return the quote of a symbol.

        Raises
        ------
        UnknownSymbolError
            When there is none.
        UnavailableError
            When that is unknown, for no source of quotes is available.
        """
        row = self.board.find(symbol)
        if row is None:
            self._check_source()
            raise UnknownSymbolError(f"no quote of {symbol} yet")
        return row

    def trade(self, changed: NDArray[np.integer]) -> None:
        """Publish last trades as quotes, of symbols without a fresh quote of their book.

        Parameters
        ----------
        changed : int[n]
            Symbols, as indices into the market.
        """
        if not self._market.is_live:
            return
        quotes = []
        for index in changed.tolist():
            symbol = self._market.symbols[index]
            if not self.board.has_room_for(symbol):
                self.board.warn_full()
                continue
            session = self._market.session(index)
            known = self.board.find(symbol)
            has_better = known is not None and known.is_of_book and not known.is_stale
            if not (session[-1] or has_better):
                ts_ms = session[_TIME] // NS_PER_MS
                quotes.append(Quote(symbol, None, None, session[_CLOSE], ts_ms))
        if quotes:
            self._hub.publish(quotes)

    def report(self) -> Mapping[str, Any]:
        """Return the state of quotes, for `/health`."""
        hub, streams = self._hub, self._streams
        address = ", ".join(stream.address for stream in streams)
        reasons = [stream.lost_because for stream in streams if stream.lost_because is not None]
        return {
            "known": len(self.board),
            "stale": self.board.stale_count(),
            "hub": peer_state(hub.address, hub.lost_because),
            "source": peer_state(address, "; ".join(reasons) or None) if streams else None,
        }

    def _publish(self, changed: Sequence[LatestQuote]) -> None:
        self.changes += 1
        for listener in self._listeners:
            listener(changed)
        if self._audience:
            self._changed.add(row.symbol for row in changed)

    def _publish_latest(self, symbols: Iterable[str]) -> None:
        for symbol in symbols:
            self._audience.publish(Key(symbol), self.board.row(symbol), symbol)

    def _snapshot(self, symbol: str) -> Iterator[tuple[LatestQuote, str]]:
        for name in self.board.symbols() if symbol == ALL else (symbol,):
            row = self.board.find(name)
            if row is not None:
                yield row, name

    def _check_source(self) -> None:
        """Raise UnavailableError where no source is available, so that nothing can be known."""
        has_stream = any(stream.lost_because is None for stream in self._streams)
        has_fresh = self.board.stale_count() < len(self.board)
        if not (self._market.is_live or has_stream or has_fresh):
            raise UnavailableError("quotes: no source of them is available")


def _dbn_quotes(address: str, hub: QuoteHub, observe: Callable[[Batch], None]) -> DbnQuotes:
    """Return a stream; its modules are imported here."""
    from mdtool.adapters.quotes.dbn_stream import DbnQuotes

    return DbnQuotes(address, hub.publish, observe)
