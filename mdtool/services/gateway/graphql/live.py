"""Where each field of `Subscription` gets its rows: one source a field, named as in the schema."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mdtool.core.errors import PeerError
from mdtool.services.gateway.bar_feed import BarFeed
from mdtool.services.gateway.encoding import Bar
from mdtool.services.gateway.graphql.audience import Audience, Operation
from mdtool.services.gateway.graphql.plan import RootField
from mdtool.services.gateway.hub import Hub
from mdtool.services.gateway.order_books import OrderBook, OrderBooks
from mdtool.services.gateway.parameters import check_depth, parse_interval, parse_symbol
from mdtool.services.gateway.quotes.board import LatestQuote, QuoteBoard
from mdtool.services.gateway.state import MarketState


class Source(Protocol):
    """Rows of a field, for whoever follows them."""

    @contextlib.contextmanager
    def following(
        self, field: RootField, operation: Operation, arguments: Mapping[str, Any]
    ) -> Iterator[None]:
        """Have an operation told within the block.

        Raises
        ------
        ParameterError
            For an argument that makes no sense.
        LimitError
            When the client follows too much that has to be asked for.
        """
        ...


class MarketDataSource:
    """The aggregates of symbols, at once and on each update."""

    def __init__(self, state: MarketState, hub: Hub) -> None:
        self._state = state
        self._hub = hub
        self._audiences: dict[str, Audience] = {}

    def publish(self, changed: NDArray[np.intp]) -> None:
        """Tell everybody who follows one of the symbols what it has become."""
        if not self._audiences:
            return
        state = self._state
        for index in changed.tolist():
            audience = self._audiences.get(state.symbols[index])
            if audience is not None:
                audience.tell(state.aggregate(index))

    @contextlib.contextmanager
    def following(
        self, field: RootField, operation: Operation, arguments: Mapping[str, Any]
    ) -> Iterator[None]:
        """Have an operation told of `symbol`."""
        symbol = parse_symbol(arguments["symbol"])
        index = self._state.symbols.find(symbol)
        row = None if index is None else self._state.aggregate(index)
        audience = self._audiences.setdefault(symbol, Audience(self._hub))
        audience.join(field, operation, row, None)
        try:
            yield
        finally:
            audience.leave(field, operation)
            if not audience:
                del self._audiences[symbol]


class BarsSource:
    """The bars of series, from the newest on."""

    def __init__(self, bars: BarFeed, hub: Hub) -> None:
        self._bars = bars
        self._hub = hub
        self._series: dict[tuple[str, str], _Series] = {}

    @contextlib.contextmanager
    def following(
        self, field: RootField, operation: Operation, arguments: Mapping[str, Any]
    ) -> Iterator[None]:
        """Have an operation told of the bars of `symbol` and `interval`."""
        key = (parse_symbol(arguments["symbol"]), parse_interval(arguments["interval"]))
        series = self._series.get(key)
        if series is None:
            series = _Series(self._hub)
            series.feed.enter_context(self._bars.following(*key, series))
            self._series[key] = series
        newest = self._bars.newest(*key)
        series.audience.join(field, operation, newest, newest and newest.start)
        try:
            yield
        finally:
            series.audience.leave(field, operation)
            if not series.audience and self._series.get(key) is series:
                del self._series[key]
                series.feed.close()


class BookSource:
    """The order books of symbols, to some depth."""

    def __init__(self, books: OrderBooks, hub: Hub) -> None:
        self._books = books
        self._hub = hub
        self._followed: dict[tuple[str, int], _Book] = {}

    @contextlib.contextmanager
    def following(
        self, field: RootField, operation: Operation, arguments: Mapping[str, Any]
    ) -> Iterator[None]:
        """Have an operation told of the book of `symbol`, `depth` levels of a side."""
        key = (parse_symbol(arguments["symbol"]), check_depth(arguments["depth"]))
        book = self._followed.get(key)
        if book is None:
            book = _Book(self._hub)
            book.feed.enter_context(self._books.following(*key, book))
            self._followed[key] = book
        book.audience.join(field, operation, self._books.latest(*key), None)
        try:
            yield
        finally:
            book.audience.leave(field, operation)
            if not book.audience:
                del self._followed[key]
                book.feed.close()


class QuoteSource:
    """The quotes of symbols, at once and as they change."""

    def __init__(self, board: QuoteBoard, hub: Hub) -> None:
        self._board = board
        self._hub = hub
        self._audiences: dict[str, Audience] = {}
        board.listen(self._publish)

    @contextlib.contextmanager
    def following(
        self, field: RootField, operation: Operation, arguments: Mapping[str, Any]
    ) -> Iterator[None]:
        """Have an operation told of `symbol`."""
        symbol = parse_symbol(arguments["symbol"])
        audience = self._audiences.setdefault(symbol, Audience(self._hub))
        audience.join(field, operation, self._board.find(symbol), None)
        try:
            yield
        finally:
            audience.leave(field, operation)
            if not audience:
                del self._audiences[symbol]

    def _publish(self, changed: Sequence[LatestQuote]) -> None:
        if not self._audiences:
            return
        for row in changed:
            audience = self._audiences.get(row.symbol)
            if audience is not None:
                audience.tell(row)


class _Fed:
    """An audience, and what holds its feed open."""

    def __init__(self, hub: Hub) -> None:
        self.audience = Audience(hub)
        self.feed = contextlib.ExitStack()


class _Book(_Fed):
    """Those who follow the book of a symbol to a depth."""

    def take(self, book: OrderBook) -> None:
        self.audience.tell(book)


class _Series(_Fed):
    """Those who follow the bars of a symbol and interval."""

    def take(self, bars: list[Bar]) -> None:
        for bar in bars:
            # A client that is behind is told the last of each bar, not only of the newest.
            self.audience.tell(bar, bar.start)

    def refuse(self, error: PeerError) -> None:
        self.audience.fail(error)
