"""The order books that the receiver rebuilds, as they are when somebody looks, and looked at."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

from mdtool.adapters.aggregator import UnavailableError, UnknownSymbolError
from mdtool.adapters.book_services import BookService, OddAnswerError
from mdtool.core.errors import PeerError, UsageError
from mdtool.core.units import parse_price
from mdtool.services.gateway.limits import UpstreamLimit
from mdtool.services.gateway.parameters import parse_symbol

log = logging.getLogger(__name__)

LOOK_S: Final = 0.2
"""How often a book that is followed is looked at: it may change a million times in between."""
_OK: Final = 200


class Level(NamedTuple):
    """The orders of one price, which is at 1e-9; how many they are, and their size."""

    price: int
    size: int
    orders: int


class OrderBook(NamedTuple):
    """A symbol's book; levels best first, of each side at most as many as were asked for.

    `records` is how many have made it what it is, `bid_levels` and `ask_levels` how many levels
    there are.
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


class BookFollower(Protocol):
    """Somebody who follows a book."""

    def take(self, book: OrderBook) -> None:
        """Take what it has become, without waiting."""
        ...


class OrderBooks:
    """Asks the receiver.

    Parameters
    ----------
    receiver : BookService
        It may be away, or have nothing to do yet.
    limit : UpstreamLimit
        How often each client may have it asked.
    tasks : asyncio.TaskGroup
        Where books are followed.
    """

    def __init__(
        self, receiver: BookService, limit: UpstreamLimit, tasks: asyncio.TaskGroup
    ) -> None:
        self._receiver = receiver
        self._limit = limit
        self._tasks = tasks
        self._followed: dict[tuple[str, int], _Followed] = {}

    async def find(self, text: str, depth: int) -> OrderBook:
        """Return the book of a symbol, as a client wrote it.

        Raises
        ------
        ParameterError
            When it can be no symbol.
        LimitError
            When the client asked too often.
        UnknownSymbolError
            When there is no such book.
        UnavailableError
            When nothing is processed yet.
        PeerError
            When the receiver is away, does not answer in time, or is another program.
        """
        symbol = parse_symbol(text)
        self._limit.spend()
        return await self._look(symbol, depth)

    def latest(self, symbol: str, depth: int) -> OrderBook | None:
        """Return what a book that is followed was when it was looked at last, None if never."""
        followed = self._followed.get((symbol, depth))
        return None if followed is None else followed.latest

    @contextlib.contextmanager
    def following(self, symbol: str, depth: int, follower: BookFollower) -> Iterator[None]:
        """Have somebody follow the book of a symbol, upper-case, from as soon as there is one.

        Raises
        ------
        LimitError
            When the client follows too many new ones at once.
        """
        key = (symbol, depth)
        followed = self._followed.get(key)
        if followed is None:
            wait_s = self._limit.reserve()
            followed = self._followed[key] = _Followed()
            followed.task = self._tasks.create_task(self._follow(*key, followed, wait_s))
        elif followed.latest is not None:
            follower.take(followed.latest)
        followed.followers.add(follower)
        try:
            yield
        finally:
            followed.followers.discard(follower)
            if not followed.followers:
                del self._followed[key]
                followed.task.cancel()

    async def _follow(self, symbol: str, depth: int, followed: _Followed, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        while True:
            try:
                followed.tell(await self._look(symbol, depth))
            except PeerError as error:
                log.debug("book of %s: %s", symbol, error)
            await asyncio.sleep(LOOK_S)

    async def _look(self, symbol: str, depth: int) -> OrderBook:
        query = {"last": "true", "depth": str(depth), "symbols": symbol}
        async with self._receiver.stream("/order-book", query) as response:
            body = await response.read()
        try:
            lines = [json.loads(line) for line in body.splitlines()]
            if response.status != _OK:
                raise UnavailableError(f"{self._receiver.name}: {lines[0]['message']}")
            books = [_book_of(line) for line in lines if line["symbol"] == symbol]
        except (ValueError, LookupError, TypeError, UsageError) as error:
            raise OddAnswerError(
                f"{self._receiver.name} {self._receiver.address} does not answer as one"
            ) from error
        if not books:
            raise UnknownSymbolError(f"no book of {symbol}")
        # Venues may each have one: that in which most happens.
        return max(books, key=lambda book: book.records)


class _Followed:
    __slots__ = ("followers", "latest", "task")

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.followers: set[BookFollower] = set()
        self.latest: OrderBook | None = None

    def tell(self, book: OrderBook) -> None:
        """Tell everybody, if the book is not what it was."""
        if book != self.latest:
            self.latest = book
            for follower in list(self.followers):
                follower.take(book)


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
