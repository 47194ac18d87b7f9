"""Where each field of `Subscription` gets its rows: one source a field, named as in the schema."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
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
        self._audiences = _Audiences(hub)

    def publish(self, changed: NDArray[np.intp]) -> None:
        """Tell everybody who follows one of the symbols what it has become."""
        if not self._audiences:
            return
        state = self._state
        for index in changed.tolist():
            audience = self._audiences.find(state.symbols[index])
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
        with self._audiences.of(symbol) as audience, audience.joined(field, operation, row):
            yield


class QuoteSource:
    """The quotes of symbols, at once and as they change."""

    def __init__(self, board: QuoteBoard, hub: Hub) -> None:
        self._board = board
        self._audiences = _Audiences(hub)
        board.listen(self._publish)

    @contextlib.contextmanager
    def following(
        self, field: RootField, operation: Operation, arguments: Mapping[str, Any]
    ) -> Iterator[None]:
        """Have an operation told of `symbol`."""
        symbol = parse_symbol(arguments["symbol"])
        row = self._board.find(symbol)
        with self._audiences.of(symbol) as audience, audience.joined(field, operation, row):
            yield

    def _publish(self, changed: Sequence[LatestQuote]) -> None:
        if not self._audiences:
            return
        for row in changed:
            audience = self._audiences.find(row.symbol)
            if audience is not None:
                audience.tell(row)


class BarsSource:
    """The bars of series, from the newest on."""

    def __init__(self, bars: BarFeed, hub: Hub) -> None:
        self._bars = bars
        self._audiences = _Audiences(hub)

    @contextlib.contextmanager
    def following(
        self, field: RootField, operation: Operation, arguments: Mapping[str, Any]
    ) -> Iterator[None]:
        """Have an operation told of the bars of `symbol` and `interval`."""
        key = (parse_symbol(arguments["symbol"]), parse_interval(arguments["interval"]))
        with self._audiences.of(
            key, lambda audience: self._bars.following(*key, _Series(audience))
        ) as audience:
            newest = self._bars.newest(*key)
            with audience.joined(field, operation, newest, newest and newest.start):
                yield


class BookSource:
    """The order books of symbols, to some depth."""

    def __init__(self, books: OrderBooks, hub: Hub) -> None:
        self._books = books
        self._audiences = _Audiences(hub)

    @contextlib.contextmanager
    def following(
        self, field: RootField, operation: Operation, arguments: Mapping[str, Any]
    ) -> Iterator[None]:
        """Have an operation told of the book of `symbol`, `depth` levels of a side."""
        key = (parse_symbol(arguments["symbol"]), check_depth(arguments["depth"]))
        with (
            self._audiences.of(
                key, lambda audience: self._books.following(*key, _Book(audience))
            ) as audience,
            audience.joined(field, operation, self._books.latest(*key)),
        ):
            yield


class _Audiences:
    """Those of a source, by what they follow: there is one while anybody is in it."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._audiences: dict[Hashable, tuple[Audience, contextlib.ExitStack]] = {}

    def __bool__(self) -> bool:
        return bool(self._audiences)

    def find(self, key: Hashable) -> Audience | None:
        """Return who follows this, None where nobody does."""
        found = self._audiences.get(key)
        return None if found is None else found[0]

    @contextlib.contextmanager
    def of(
        self,
        key: Hashable,
        feed: Callable[[Audience], AbstractContextManager[None]] | None = None,
    ) -> Iterator[Audience]:
        """Give the audience to join, which `feed` feeds from the first one on until the last."""
        if key not in self._audiences:
            audience = Audience(self._hub)
            stack = contextlib.ExitStack()
            if feed is not None:
                stack.enter_context(feed(audience))
            self._audiences[key] = audience, stack
        entry = audience, stack = self._audiences[key]
        try:
            yield audience
        finally:
            if not audience and self._audiences.get(key) is entry:
                del self._audiences[key]
                stack.close()


class _Series:
    """Hands the bars of a symbol and interval to those who follow them."""

    def __init__(self, audience: Audience) -> None:
        self._audience = audience

    def take(self, bars: list[Bar]) -> None:
        for bar in bars:
            # A client that is behind is told the last of each bar, not only of the newest.
            self._audience.tell(bar, bar.start)

    def refuse(self, error: PeerError) -> None:
        self._audience.fail(error)


class _Book:
    """Hands the book of a symbol to those who follow it to a depth."""

    def __init__(self, audience: Audience) -> None:
        self._audience = audience

    def take(self, book: OrderBook) -> None:
        self._audience.tell(book)
