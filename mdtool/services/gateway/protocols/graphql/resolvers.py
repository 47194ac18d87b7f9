"""What finds the rows of each field of `Query`, and the feed of each field of `Subscription`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from graphql import GraphQLSchema, get_nullable_type, is_list_type

from mdtool.adapters.market import UnknownSymbolError
from mdtool.services.client import Client
from mdtool.services.gateway.feeds import Feeds
from mdtool.services.gateway.feeds.feed import ALL, Key, Page
from mdtool.services.gateway.feeds.permitted import PermittedFeed
from mdtool.services.gateway.parameters import (
    ParameterError,
    check_limit,
    parse_session,
    parse_symbol,
)
from mdtool.services.gateway.table import FeedRow

Arguments = Mapping[str, Any]


class Found(NamedTuple):
    """What a field of `Query` has: a row, rows, a page of rows, or None for null."""

    value: Any
    is_stale: bool = False


Resolve = Callable[[Client, Arguments], Awaitable[Found]]


@dataclass(frozen=True, slots=True)
class FeedField:
    """A field of `Subscription`, and of `Query`, that has a feed's rows.

    Attributes
    ----------
    feed : PermittedFeed
    row : FeedRow
        Of the table.
    is_list : bool
        Whether the field of `Query` is a list of rows, not a row or a page.
    """

    feed: PermittedFeed
    row: FeedRow
    is_list: bool

    def key(self, arguments: Arguments) -> Key:
        """Return what the arguments select, which may be every symbol.

        Raises
        ------
        ParameterError
            When one is not valid.
        """
        symbol = arguments["symbol"]
        symbol = ALL if symbol.strip() == ALL else parse_symbol(symbol)
        option = self.row.option
        return Key(symbol, None if option is None else option.value_of(arguments[option.name]))

    async def find(self, client: Client, arguments: Arguments) -> Found:
        """Return the current row of a symbol, or the rows or the page of its history.

        Raises
        ------
        ParameterError, LimitError, PeerError
            As the feed does.
        """
        key = self.key(arguments)
        if key.symbol == ALL:
            raise ParameterError(f"symbol: {ALL} selects every symbol, in subscriptions only")
        try:
            if self.row.has_history:
                return await self._page(
                    client,
                    key,
                    Page.before(check_limit(arguments["limit"]), arguments.get("before")),
                )
            session = parse_session(arguments.get("session")) if self.row.has_past else None
            if session is not None:
                return Found(await self.feed.past(client, key, session))
            rows = await self.feed.current(client, key)
        except UnknownSymbolError:
            return Found(None)
        is_stale = any(getattr(row, "is_stale", False) for row in rows)
        return Found(rows if self.is_list else rows[0], is_stale)

    async def _page(self, client: Client, key: Key, page: Page) -> Found:
        found = await self.feed.history(client, key, page)
        return Found(found.rows if self.is_list else found, found.is_stale)


def feed_fields(schema: GraphQLSchema, feeds: Feeds) -> Mapping[str, FeedField]:
    """Return the fields that have feeds' rows, by name."""
    assert schema.query_type is not None
    fields = schema.query_type.fields
    return {
        (name := row.graphql_field): FeedField(
            feeds[row.name], row, is_list_type(get_nullable_type(fields[name].type))
        )
        for row in feeds.rows
    }


def symbols_of(feeds: Feeds) -> Resolve:
    """Return what finds `symbols`, the names alone."""
    feed = feeds["symbols"]

    async def find(client: Client, _arguments: Arguments) -> Found:
        return Found(feed.names(client))

    return find


def stored_symbols_of(feeds: Feeds) -> Resolve:
    """Return what finds `storedSymbols`."""
    feed = feeds["symbols"]

    async def find(client: Client, _arguments: Arguments) -> Found:
        return Found(await feed.stored(client))

    return find
