"""Feeds of the gateway's table out of plain rows, without the services that they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mdtool.adapters.market import UnknownSymbolError
from mdtool.services.client import Client
from mdtool.services.gateway import table
from mdtool.services.gateway.backlog import Event
from mdtool.services.gateway.feeds import Feeds
from mdtool.services.gateway.feeds.books import Level
from mdtool.services.gateway.feeds.feed import ALL, Audience, Key, Page, Rows
from mdtool.services.gateway.fields import Field, Kind
from mdtool.services.gateway.hub import Hub, Subscription
from mdtool.services.gateway.table import FeedRow


class Trade(NamedTuple):
    symbol: str
    sequence: str
    timestamp: int
    price: int
    size: int


class Halt(NamedTuple):
    """A row of a feed that only this table has."""

    symbol: str
    halt_id: int
    level: int | None
    causes: Sequence[Level] = ()


HALTS = FeedRow(
    name="halts",
    about="Halts of a symbol.",
    fields=(
        Field("symbol", Kind.TEXT, "The symbol."),
        Field("halt_id", Kind.COUNT, "Its number."),
        Field("level", Kind.PRICE, 'The "level".', is_optional=True),
        Field(
            "causes",
            Kind.ROWS,
            "The causes.",
            fields=(
                Field("price", Kind.PRICE, "The price."),
                Field("size", Kind.SIZE, "The size."),
                Field("orders", Kind.COUNT, "The number of orders."),
            ),
        ),
    ),
    destination="/topic/halts/",
    graphql_field="halts",
    graphql_type="Halt",
    has_history=True,
    has_events=True,
)
TABLE = (*table.TABLE.values(), HALTS)


class PlainFeed:
    """A feed of rows, newest first.

    Attributes
    ----------
    rows : list
    totals : list
        What is stored of each symbol.
    error : Exception or None
        Raised instead of returning rows.
    pages : list of (Key, Page)
        Requested so far.
    """

    def __init__(self, audience: Audience[Any], has_events: bool) -> None:
        self.rows: list[Any] = []
        self.totals: list[Any] = []
        self.error: Exception | None = None
        self.is_stale = False
        self.pages: list[tuple[Key, Page]] = []
        self._audience = audience
        self._has_events = has_events

    def __bool__(self) -> bool:
        """Return whether somebody follows it."""
        return bool(self._audience)

    async def current(self, _client: Client, key: Key) -> Sequence[Any]:
        rows = self._found(key)
        if isinstance(key.option, int):
            rows = [
                row._replace(bids=row.bids[: key.option], asks=row.asks[: key.option])
                for row in rows
            ]
        return rows

    async def history(self, _client: Client, key: Key, page: Page) -> Rows[Any]:
        self.pages.append((key, page))
        rows = self._found(key)
        if page.to_ns is not None:
            rows = [row for row in rows if row.start < page.to_ns]
        next_ = "more" if len(rows) > page.limit else None
        return Rows(rows[: page.limit], next_, self.is_stale)

    def names(self) -> list[str]:
        return sorted(row.symbol for row in self._found(Key(ALL)))

    async def stored(self, _client: Client) -> list[Any]:
        return self.totals

    def knows(self, key: Key) -> bool:
        return any(row.symbol == key.symbol for row in self.rows)

    def follow(
        self, key: Key, subscription: Subscription, after: str | None = None
    ) -> Callable[[], None]:
        if self.error is not None:
            raise self.error
        rows = [row for row in self.rows if key.symbol in {ALL, row.symbol}]
        return self._audience.join(key, subscription, [(row, self._state(row)) for row in rows])

    def publish(self, row: Any, option: str | int | None = None) -> None:
        self._audience.publish(Key(row.symbol, option), row, self._state(row))

    def miss(self, symbol: str, count: int | None) -> None:
        self._audience.miss(Key(symbol), symbol, count)

    def fail(self, key: Key, error: Any) -> None:
        self._audience.fail(key, error)

    def _found(self, key: Key) -> list[Any]:
        if self.error is not None:
            raise self.error
        rows = [row for row in self.rows if key.symbol in {ALL, row.symbol}]
        if not rows and key.symbol != ALL:
            raise UnknownSymbolError(f"{key.symbol}: unknown")
        return rows

    def _state(self, row: Any) -> Any:
        return Event(row.symbol) if self._has_events else row.symbol


class PlainFeeds(Feeds):
    """Feeds, and by name what they are made of."""

    def __init__(self, plain: dict[str, PlainFeed], rows: Sequence[FeedRow]) -> None:
        super().__init__(plain, {row.name: row for row in rows})
        self.plain = plain


def plain_feeds(rows: Sequence[FeedRow] = TABLE) -> PlainFeeds:
    """Return a feed without rows for each row of a table."""
    hub = Hub()
    return PlainFeeds({row.name: PlainFeed(Audience(hub), row.has_events) for row in rows}, rows)
