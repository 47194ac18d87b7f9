"""Feeds as clients see them: what a principal may not read is as absent as what does not exist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

from mdtool.adapters.market import UnknownSymbolError
from mdtool.core.permissions import Reader
from mdtool.services.client import Client
from mdtool.services.gateway.feeds.feed import (
    ALL,
    Feed,
    HistoryFeed,
    Key,
    LazyRows,
    MemoryFeed,
    Page,
    Rows,
    SessionFeed,
)
from mdtool.services.gateway.hub import Subscription

if TYPE_CHECKING:
    from mdtool.adapters.stores.port import SymbolTotals
    from mdtool.services.gateway.feeds.symbols import Symbols
    from mdtool.services.gateway.feeds.trades import Trades
    from mdtool.services.gateway.table import FeedRow


class PermittedFeed:
    """A feed, each of whose methods respects the permissions of the client that calls it.

    Protocols get feeds in this form alone, so that none of them can forget.

    Parameters
    ----------
    feed : Feed
    row : FeedRow
        Its row of the table.
    """

    def __init__(self, feed: Feed[Any], row: FeedRow) -> None:
        self._feed = feed
        self._row = row

    async def current(self, client: Client, key: Key) -> Sequence[Any]:
        """As `Feed.current`."""
        reader = self._reader(client)
        if reader is None:
            return await self._feed.current(client, key)
        if key.symbol == ALL:
            return readable(await self._feed.current(client, key), reader)
        self._check(client, key, reader)
        try:
            return await self._feed.current(client, key)
        except UnknownSymbolError:
            self._deny(key)

    def find(self, client: Client, symbol: str) -> Any:
        """As `MemoryFeed.find`."""
        feed: Any = self._feed
        if client.security is None or (reader := self._reader(client)) is None:
            return feed.find(symbol)
        key = Key(symbol)
        self._check(client, key, reader)
        try:
            return feed.find(symbol)
        except UnknownSymbolError:
            self._deny(key)

    @property
    def changes(self) -> int:
        """As `MemoryFeed.changes`."""
        return cast("MemoryFeed[Any]", self._feed).changes

    def names(self, client: Client) -> Sequence[str]:
        """As `Symbols.names`."""
        reader, names = self._reader(client), cast("Symbols", self._feed).names()
        return names if reader is None else list(filter(reader.can_read, names))

    async def stored(self, client: Client) -> Sequence[SymbolTotals]:
        """As `Symbols.stored`."""
        reader = self._reader(client)
        return readable(await cast("Symbols", self._feed).stored(client), reader)

    def check_stored(self) -> None:
        """As `Trades.check_stored`."""
        cast("Trades", self._feed).check_stored()

    def knows(self, client: Client, key: Key) -> bool:
        """Return whether a symbol has such data, as far as the client may know."""
        reader = self._reader(client)
        if reader is not None and key.symbol != ALL and not reader.can_read(key.symbol):
            return False
        return self._feed.knows(key)

    def follow(
        self, key: Key, subscription: Subscription, after: str | None = None
    ) -> Callable[[], None]:
        """As `Feed.follow`; of a symbol that may not be read, nothing ever comes."""
        client = subscription.client
        if client.security is None:
            return self._feed.follow(key, subscription, after)
        reader = self._reader(client)
        leave = client.subscribe()
        end: Callable[[], None] = _nothing
        try:
            if reader is None or key.symbol == ALL or reader.can_read(key.symbol):
                subscription.reader = reader
                end = self._feed.follow(key, subscription, after)
        except BaseException:
            leave()
            raise
        has_ended = False

        def end_both() -> None:
            nonlocal has_ended
            if not has_ended:
                has_ended = True
                leave()
                end()

        return end_both

    async def history(self, client: Client, key: Key, page: Page) -> Rows[Any]:
        """As `HistoryFeed.history`."""
        feed = cast("HistoryFeed[Any]", self._feed)
        reader = self._reader(client)
        if reader is None:
            return await feed.history(client, key, page)
        if key.symbol == ALL:
            found = await feed.history(client, key, page)
            return Rows(readable(found.rows, reader), found.next, found.is_stale)
        self._check(client, key, reader)
        try:
            return await feed.history(client, key, page)
        except UnknownSymbolError:
            self._deny(key)

    async def past(self, client: Client, key: Key, session: str) -> Any:
        """As `SessionFeed.past`."""
        feed = cast("SessionFeed[Any]", self._feed)
        reader = self._reader(client)
        if reader is None:
            return await feed.past(client, key, session)
        self._check(client, key, reader)
        try:
            return await feed.past(client, key, session)
        except UnknownSymbolError:
            self._deny(key)

    def _reader(self, client: Client) -> Reader | None:
        """Return what the client may read, None for everything.

        Raises
        ------
        TokenError
            When it has yet to authenticate.
        ForbiddenError
            When it may read nothing of the feed.
        """
        if client.security is None:
            return None
        client.check_feed(self._row.name)
        return client.principal.access.reader(self._row.name)

    def _check(self, client: Client, key: Key, reader: Reader) -> None:
        """Raise UnknownSymbolError for a symbol that may not be read, at the cost of one."""
        if not reader.can_read(key.symbol):
            if self._row.is_upstream:
                client.spend_upstream()
            self._deny(key)

    def _deny(self, key: Key) -> NoReturn:
        """Raise the one error of symbols that are unknown, whatever the reason."""
        raise UnknownSymbolError(f"{self._row.name}: {key.symbol} is unknown")


def readable(rows: Sequence[Any], reader: Reader | None) -> Sequence[Any]:
    """Return the rows whose symbols may be read, in the same order."""
    if reader is None:
        return rows
    if isinstance(rows, LazyRows):
        return rows.only(reader.can_read)
    return [row for row in rows if reader.can_read(row.symbol)]


def _nothing() -> None:
    """End what has not begun."""
