"""REST version 1: paths whose shapes are fixed, each over one feed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar, cast
from weakref import WeakKeyDictionary

from aiohttp import web

from mdtool.adapters.market import UnknownSymbolError
from mdtool.core.permissions import Access
from mdtool.services.client import Client
from mdtool.services.gateway import formats
from mdtool.services.gateway.feeds import Feeds
from mdtool.services.gateway.feeds.aggregates import Aggregate
from mdtool.services.gateway.feeds.feed import ALL, Key, Page
from mdtool.services.gateway.feeds.permitted import PermittedFeed
from mdtool.services.gateway.http import STALE_HEADERS
from mdtool.services.gateway.parameters import (
    ParameterError,
    parse_before,
    parse_interval,
    parse_limit,
    parse_symbol,
    parse_symbols,
)
from mdtool.services.gateway.protocols import Paths
from mdtool.services.http.answers import answer, client_of, memory_client_of

AT_ONCE: Final = 256
"""Rows encoded in one turn of the event loop, which takes 2.5 ms; 20,000 rows take 0.2 s."""

R = TypeVar("R")


class RestV1:
    """The handlers of `/api/v1` and `/v1/quotes`.

    Parameters
    ----------
    feeds : Feeds
    """

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds
        self._aggregates = feeds["aggregates"]
        self._encoded: dict[str, tuple[Aggregate, bytes]] = {}
        """The aggregates requested last, by symbol."""
        self._lists: WeakKeyDictionary[Access, dict[str, tuple[int, bytes, bool]]]
        self._lists = WeakKeyDictionary()
        """Whole lists as they were answered last, by permission class."""

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {
            ("GET", "/api/v1/marketdata/{symbol}"): self.aggregate,
            ("GET", "/api/v1/marketdata"): self.aggregates,
            ("GET", "/api/v1/bars/{symbol}"): self.bars,
            ("GET", "/api/v1/symbols"): self.symbols,
            ("GET", "/api/v1/trades/{symbol}"): self.trades,
            ("GET", "/v1/quotes"): self.quotes,
        }

    async def aggregate(self, request: web.Request) -> web.Response:
        """`GET /api/v1/marketdata/{symbol}`."""
        symbol = parse_symbol(request.match_info["symbol"])
        row = self._aggregates.find(memory_client_of(request), symbol)
        encoded = self._encoded.get(symbol)
        if encoded is None or encoded[0] is not row:
            encoded = self._encoded[symbol] = row, formats.encode_aggregate(row)
        return answer(encoded[1], STALE_HEADERS if row.is_stale else None)

    async def aggregates(self, request: web.Request) -> web.Response:
        """`GET /api/v1/marketdata?symbols=`: an array, in order of symbol, of all or of these."""
        client, feed = memory_client_of(request), self._aggregates
        if symbols := parse_symbols(request.query):
            return _array(known(feed, client, symbols), formats.encode_aggregate)
        return await self._list(client, "aggregates", formats.encode_aggregate)

    async def bars(self, request: web.Request) -> web.Response:
        """`GET /api/v1/bars/{symbol}?interval&limit&before`."""
        query, client = request.query, client_of(request)
        limit = parse_limit(query.get("limit"))
        key = Key(
            parse_symbol(request.match_info["symbol"]),
            parse_interval(query.get("interval") or "1m"),
        )
        before_ns = parse_before(query.get("before"))
        page = await self._feeds["bars"].history(client, key, Page(limit, to_ns=before_ns or None))
        headers = {**client.upstream_headers(), **(STALE_HEADERS if page.is_stale else {})}
        return answer(formats.encode_bars(page.rows, limit, page.is_stale), headers)

    async def symbols(self, request: web.Request) -> web.Response:
        """`GET /api/v1/symbols`: those of which trades are stored."""
        client = client_of(request)
        totals = await self._feeds["symbols"].stored(client)
        body = formats.encode_totals(totals)
        return answer(body, client.upstream_headers())

    async def trades(self, request: web.Request) -> web.Response:
        """`GET /api/v1/trades/{symbol}?limit&before`: those that are stored."""
        query, client = request.query, client_of(request)
        key = Key(parse_symbol(request.match_info["symbol"]))
        page = Page.before(parse_limit(query.get("limit")), query.get("before"))
        self._feeds["trades"].check_stored()
        try:
            found = await self._feeds["trades"].history(client, key, page)
        except ParameterError as error:
            raise ParameterError(str(error).replace("cursor:", "before:")) from error
        return answer(formats.encode_trades(found.rows, found.next), client.upstream_headers())

    async def quotes(self, request: web.Request) -> web.Response:
        """`GET /v1/quotes`: of `?symbol=AAPL` its quote; of several an array, else of all."""
        client, feed = memory_client_of(request), self._feeds["quotes"]
        symbols = parse_symbols(request.query)
        if len(symbols) == 1 and "symbol" in request.query:
            row = feed.find(client, symbols[0])
            body = formats.encode_latest_quote(row)
            return answer(body, STALE_HEADERS if row.is_stale else None)
        if symbols:
            return _array(known(feed, client, symbols), formats.encode_latest_quote)
        return await self._list(client, "quotes", formats.encode_latest_quote)

    async def _list(
        self, client: Client, name: str, encode: Callable[[Any], bytes]
    ) -> web.Response:
        """Answer all rows as an array, encoded once a change and class, some rows a turn."""
        feed = self._feeds[name]
        rows, changes = await feed.current(client, Key(ALL)), feed.changes
        lists = self._lists.setdefault(client.principal.access, {})
        known = lists.get(name)
        if known is None or known[0] != changes:
            has_stale = False

            def encode_noting(row: Any) -> bytes:
                nonlocal has_stale
                has_stale |= row.is_stale
                return encode(row)

            body = await encode_in_turns(rows, encode_noting)
            known = lists[name] = changes, b"[%b]" % body, has_stale
        _, body, is_stale = known
        return answer(body, STALE_HEADERS if is_stale else None)


def known(feed: PermittedFeed, client: Client, symbols: Iterable[str]) -> list[Any]:
    """Return the rows of those symbols that are known, in order of symbol."""
    rows = []
    for symbol in sorted(symbols):
        with contextlib.suppress(UnknownSymbolError):
            rows.append(feed.find(client, symbol))
    return rows


def _array(rows: Sequence[R], encode: Callable[[R], bytes]) -> web.Response:
    is_stale = any(cast("Any", row).is_stale for row in rows)
    return answer(b"[%b]" % b",".join(map(encode, rows)), STALE_HEADERS if is_stale else None)


async def encode_in_turns(rows: Sequence[R], encode: Callable[[R], bytes]) -> bytes:
    """Return encoded rows with commas; other tasks run in between."""
    encoded: list[bytes] = []
    for begin in range(0, len(rows), AT_ONCE):
        if begin:
            await asyncio.sleep(0)
        encoded += map(encode, rows[begin : begin + AT_ONCE])
    return b",".join(encoded)
