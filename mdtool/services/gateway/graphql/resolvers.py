"""Where each field of `Query` gets its rows: one function a field, named as in the schema."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mdtool.adapters.aggregator import UnknownSymbolError
from mdtool.adapters.stores.port import SymbolTotals
from mdtool.services.gateway.encoding import Aggregate, Bar
from mdtool.services.gateway.history.encoding import TradesPage
from mdtool.services.gateway.history.paging import parse_place
from mdtool.services.gateway.history.view import HistoryView
from mdtool.services.gateway.order_books import OrderBook, OrderBooks
from mdtool.services.gateway.parameters import (
    check_depth,
    check_limit,
    parse_before,
    parse_interval,
    parse_symbol,
)
from mdtool.services.gateway.quotes.board import LatestQuote
from mdtool.services.gateway.view import MarketView

Resolver = Callable[..., Awaitable[Any]]
"""Takes the field's arguments by name; returns a row, rows, or None for null."""


class StaleRows(list[Any]):
    """Rows that were answered before, by an aggregator that is away now."""

    is_stale = True


def resolvers(
    view: MarketView,
    find_quote: Callable[[str], LatestQuote],
    books: OrderBooks,
    history: HistoryView,
) -> Mapping[str, Resolver]:
    """Return the resolver of each field.

    Parameters
    ----------
    view : MarketView
        What they ask.
    find_quote : callable
        Returns the quote of a symbol, as a client wrote it, or raises UnknownSymbolError.
    books : OrderBooks
        What finds order books.
    history : HistoryView
        What has the trades.
    """
    in_order: list[str] = []

    async def market_data(symbol: str) -> Aggregate | None:
        try:
            return view.state.aggregate(view.find(symbol))
        except UnknownSymbolError:
            return None

    async def symbols() -> list[str]:
        known = view.state.symbols
        if not len(known):
            view.check_known()
        if len(known) != len(in_order):
            in_order[:] = sorted(known)
        return in_order

    async def bars(
        symbol: str, interval: str, limit: int, before: str | None = None
    ) -> list[Bar] | None:
        try:
            page = await view.bar_page(
                parse_symbol(symbol),
                parse_interval(interval),
                check_limit(limit),
                parse_before(before),
            )
        except UnknownSymbolError:
            return None
        return StaleRows(page.bars) if page.is_stale else page.bars

    async def quote(symbol: str) -> LatestQuote | None:
        try:
            return find_quote(symbol)
        except UnknownSymbolError:
            return None

    async def book(symbol: str, depth: int) -> OrderBook | None:
        try:
            return await books.find(symbol, check_depth(depth))
        except UnknownSymbolError:
            return None

    async def trades(symbol: str, limit: int, before: str | None = None) -> TradesPage | None:
        symbol = parse_symbol(symbol)
        try:
            return await history.page(symbol, check_limit(limit), parse_place(before, symbol))
        except UnknownSymbolError:
            return None

    async def stored_symbols() -> list[SymbolTotals]:
        return await history.symbols()

    return {
        "marketData": market_data,
        "symbols": symbols,
        "bars": bars,
        "quote": quote,
        "book": book,
        "trades": trades,
        "storedSymbols": stored_symbols,
    }
