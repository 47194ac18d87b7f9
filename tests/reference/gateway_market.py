"""A market as a gateway knows it, out of plain rows, without an aggregator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mdtool.adapters.aggregator import UnavailableError, UnknownSymbolError
from mdtool.adapters.stores.port import SymbolTotals, TradeKey
from mdtool.core.symbols import SymbolTable
from mdtool.services.gateway.encoding import Bar
from mdtool.services.gateway.history.encoding import Trade, TradesPage
from mdtool.services.gateway.order_books import OrderBook
from mdtool.services.gateway.quotes.board import LatestQuote
from mdtool.services.gateway.state import MarketState
from mdtool.services.gateway.view import BarPage, MarketView
from mdtool.wire.batches import Counts, Updates

Row = tuple[int, int, int, int, int, int]
"""Open, high, low, close, volume and the time in ns of a session."""


def updates_of(sessions: Mapping[str, Row], table: SymbolTable) -> Updates:
    """The sessions as the aggregator sends them."""
    symbol = np.array([table.intern(name) for name in sessions], np.uint32)
    opened, high, low, close, volume, timestamp = (
        np.array(list(sessions.values()), np.int64).reshape(-1, 6).T
    )
    nothing = np.zeros(len(symbol), np.int64)
    return Updates(symbol, opened, high, low, close, volume, nothing, timestamp, nothing, Counts())


def plain_quotes(*quotes: LatestQuote) -> Callable[[str], LatestQuote]:
    """What finds these quotes, and no others."""
    by_symbol = {quote.symbol: quote for quote in quotes}

    def find(text: str) -> LatestQuote:
        try:
            return by_symbol[text.strip().upper()]
        except KeyError:
            raise UnknownSymbolError(text) from None

    return find


class PlainBooks:
    """Has these books, and no others."""

    def __init__(self, *books: OrderBook) -> None:
        self._books = {book.symbol: book for book in books}

    async def find(self, text: str, depth: int) -> OrderBook:
        book = self._books.get(text.strip().upper())
        if book is None:
            raise UnknownSymbolError(text)
        return book._replace(bids=book.bids[:depth], asks=book.asks[:depth])


class PlainTrades:
    """Has these trades of AAPL, newest first, and of no other symbol."""

    def __init__(self, *trades: Trade, totals: Sequence[SymbolTotals] = ()) -> None:
        self._trades = trades
        self._totals = totals

    async def symbols(self) -> list[SymbolTotals]:
        return list(self._totals)

    async def page(self, symbol: str, limit: int, before: TradeKey | None) -> TradesPage:
        if symbol != "AAPL":
            raise UnknownSymbolError(symbol)
        assert before is None
        cursor = "more" if len(self._trades) > limit else None
        return TradesPage(list(self._trades[:limit]), cursor)


class PlainView(MarketView):
    """Answers from what it was made of; symbols without bars are unknown."""

    def __init__(
        self, sessions: Mapping[str, Row], bars: Mapping[str, Sequence[Bar]] | None = None
    ) -> None:
        self.state = MarketState()
        self._bars = bars or {}
        table = SymbolTable()
        self.state.apply(table, updates_of(sessions, table))

    def check_known(self) -> None:
        if not self.state.is_live:
            raise UnavailableError("the aggregator is away")

    async def bar_page(self, symbol: str, interval: str, limit: int, before_ns: int) -> BarPage:
        if symbol not in self._bars:
            raise UnknownSymbolError(symbol)
        older = (bar for bar in self._bars[symbol] if not before_ns or bar.start < before_ns)
        return BarPage(list(older)[:limit], is_stale=not self.state.is_live)
