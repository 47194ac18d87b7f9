"""Order books, which the receiver rebuilds: requested from it, and polled while followed."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from mdtool.adapters.book_services import BookService, UnexpectedAnswerError
from mdtool.adapters.market import UnavailableError, UnknownSymbolError
from mdtool.core.errors import PeerError, UsageError
from mdtool.core.units import parse_price
from mdtool.services.client import Client
from mdtool.services.gateway.feeds.feed import ALL, Audience, Key
from mdtool.services.gateway.fields import Field, Kind
from mdtool.services.gateway.hub import Subscription
from mdtool.services.gateway.upstream import Upstream

log = logging.getLogger(__name__)

POLL_S: Final = 0.2
"""How often a followed book is polled: it may change a million times in between."""
_OK: Final = 200


class Level(NamedTuple):
    """The orders of one price, at 1e-9: their total size, and how many there are."""

    price: int
    size: int
    orders: int


class OrderBook(NamedTuple):
    """A symbol's book; levels best first, of each side at most as many as were requested.

    `records` is how many records have been applied to it, `bid_levels` and `ask_levels` how many
    levels there are.
    """

    symbol: str
    timestamp: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    bid_levels: int
    ask_levels: int
    orders: int
    records: int
    is_partial: bool


_LEVEL: Final = (
    Field("price", Kind.PRICE, "The price."),
    Field("size", Kind.SIZE, "The total size of its orders."),
    Field("orders", Kind.COUNT, "The number of its orders."),
)
FIELDS: Final = (
    Field("symbol", Kind.TEXT, "The symbol."),
    Field("timestamp", Kind.TIME, "When the last record applied to it was received."),
    Field("bids", Kind.ROWS, "Levels of buyers, best first.", fields=_LEVEL),
    Field("asks", Kind.ROWS, "Levels of sellers, best first.", fields=_LEVEL),
    Field("bid_levels", Kind.COUNT, "The number of all levels of buyers."),
    Field("ask_levels", Kind.COUNT, "The number of all levels of sellers."),
    Field("orders", Kind.COUNT, "The number of all orders."),
    Field(
        "partial",
        Kind.FLAG,
        "Whether orders may be missing that are older than its stream.",
        source="is_partial",
    ),
)


class Books:
    """The feed of order books.

    Parameters
    ----------
    receiver : BookService
        It may be unavailable, or have no stream yet.
    upstream : Upstream
        How it gets requests.
    audience : Audience
    tasks : asyncio.TaskGroup
        Where books are polled.
    """

    def __init__(
        self,
        receiver: BookService,
        upstream: Upstream,
        audience: Audience[OrderBook],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._receiver = receiver
        self._upstream = upstream
        self._audience = audience
        self._tasks = tasks
        self._polled: dict[Key, _Polled] = {}

    async def current(self, client: Client, key: Key) -> Sequence[OrderBook]:
        """As `Feed.current`; UnavailableError, too, where the receiver has no stream yet."""
        client.spend_upstream()
        response = await self._upstream.request(lambda _: self._request(key))
        books = self._books(key, *response)
        if not books and key.symbol != ALL:
            raise UnknownSymbolError(f"no book of {key.symbol}")
        return books

    def knows(self, key: Key) -> bool:
        """As `Feed.knows`; only a request to the receiver shows that there is no book."""
        return key not in self._polled or key.symbol in self._polled[key].latest

    def follow(
        self, key: Key, subscription: Subscription, after: str | None = None
    ) -> Callable[[], None]:
        """As `Feed.follow`."""
        polled = self._polled.get(key)
        if polled is None:
            wait_s = subscription.client.reserve_upstream()
            polled = self._polled[key] = _Polled()
            polled.task = self._tasks.create_task(self._poll(key, polled, wait_s))
        leave = self._audience.join(key, subscription, polled.snapshot())

        def end() -> None:
            leave()
            if not self._audience.is_followed(key) and self._polled.get(key) is polled:
                del self._polled[key]
                polled.task.cancel()

        return end

    async def _poll(self, key: Key, polled: _Polled, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        while True:
            try:
                books = self._books(key, *await self._request(key))
            except PeerError as error:
                log.debug("book of %s: %s", key.symbol, error)
            else:
                for book in books:
                    if book != polled.latest.get(book.symbol):
                        polled.latest[book.symbol] = book
                        self._audience.send(key, book, book.symbol)
            await asyncio.sleep(POLL_S)

    async def _request(self, key: Key) -> tuple[int, Sequence[Mapping[str, Any]]]:
        """Return the status and the lines of the receiver's response."""
        query = {"last": "true", "depth": str(key.option)}
        if key.symbol != ALL:
            query["symbols"] = key.symbol
        async with self._receiver.stream("/order-book", query) as response:
            body = await response.read()
        try:
            return response.status, [json.loads(line) for line in body.splitlines()]
        except ValueError as error:
            raise self._odd() from error

    def _books(
        self, key: Key, status: int, lines: Sequence[Mapping[str, Any]]
    ) -> Sequence[OrderBook]:
        """Return the books of a response, by symbol."""
        try:
            if status != _OK:
                raise UnavailableError(f"{self._receiver.name}: {lines[0]['message']}")
            books = [_book_of(line) for line in lines if key.symbol in {ALL, line["symbol"]}]
        except (ValueError, LookupError, TypeError, UsageError) as error:
            raise self._odd() from error
        # Venues may each have one: that with the most records counts.
        busiest = {book.symbol: book for book in sorted(books, key=lambda book: book.records)}
        return [busiest[symbol] for symbol in sorted(busiest)]

    def _odd(self) -> UnexpectedAnswerError:
        where = f"{self._receiver.name} {self._receiver.address}"
        return UnexpectedAnswerError(
            f"{where}: its response is not an order book's; check the address"
        )


class _Polled:
    __slots__ = ("latest", "task")

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.latest: dict[str, OrderBook] = {}

    def snapshot(self) -> Iterator[tuple[OrderBook, str]]:
        for symbol in sorted(self.latest):
            yield self.latest[symbol], symbol


def _book_of(line: Mapping[str, Any]) -> OrderBook:
    levels, stats = line["levels"], line["stats"]
    return OrderBook(
        symbol=line["symbol"],
        timestamp=int(line["timestamp_ns"]),
        bids=tuple(map(_level_of, levels["bids"])),
        asks=tuple(map(_level_of, levels["asks"])),
        bid_levels=int(stats["bid_levels"]),
        ask_levels=int(stats["ask_levels"]),
        orders=int(stats["total_orders"]),
        records=int(line["records"]),
        is_partial=bool(line["partial"]),
    )


def _level_of(level: Mapping[str, Any]) -> Level:
    return Level(parse_price(level["price"]), int(level["size"]), int(level["count"]))
