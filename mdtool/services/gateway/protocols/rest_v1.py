"""REST version 1: paths whose shapes are fixed, each over one feed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from mdtool.adapters.market import UnknownSymbolError
from mdtool.core.permissions import Access, Reader
from mdtool.services.client import Client
from mdtool.services.gateway import formats
from mdtool.services.gateway.feeds import Feeds
from mdtool.services.gateway.feeds.aggregates import Aggregates
from mdtool.services.gateway.feeds.feed import ALL, Key, Page
from mdtool.services.gateway.feeds.permitted import readable, readable_only
from mdtool.services.gateway.feeds.quotes import Quotes
from mdtool.services.gateway.feeds.trades import Trades
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
from mdtool.services.http.answers import answer, client_of, reader_of

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
        # What these are asked for directly is checked by `readable` or `readable_only`.
        self._aggregates = cast("Aggregates", feeds.source("aggregates"))
        self._quotes = cast("Quotes", feeds.source("quotes"))
        self._trades = cast("Trades", feeds.source("trades"))
        self._encoded: dict[int, tuple[bytes, bool]] = {}
        """Aggregates requested since they last changed, and whether they are stale."""
        self._market_changes = 0
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

    def market_changed(self, changed: NDArray[np.integer]) -> None:
        """Have the aggregates of symbols encoded again; a `MarketListener`."""
        self._market_changes += 1
        if len(changed) >= len(self._encoded):
            self._encoded.clear()
        else:
            for index in changed.tolist():
                self._encoded.pop(index, None)

    async def aggregate(self, request: web.Request) -> web.Response:
        """`GET /api/v1/marketdata/{symbol}`."""
        symbol = request.match_info["symbol"]
        if (reader := reader_of(request, "aggregates")) is None:
            index = self._aggregates.find(symbol)
        else:
            index = self._readable(symbol, reader)
        encoded = self._encoded.get(index)
        if encoded is None:
            row = self._aggregates.row(index)
            encoded = self._encoded[index] = formats.encode_aggregate(row), row.is_stale
        body, is_stale = encoded
        return answer(body, STALE_HEADERS if is_stale else None)

    def _readable(self, text: str, reader: Reader) -> int:
        """Return the index of a symbol that may be read, found as the feed finds it."""
        with contextlib.suppress(UnknownSymbolError):
            index = self._aggregates.find(text)
            if reader.can_read(self._aggregates.symbol(index)):
                return index
        raise UnknownSymbolError(f"aggregates: {parse_symbol(text)} is unknown")

    async def aggregates(self, request: web.Request) -> web.Response:
        """`GET /api/v1/marketdata?symbols=`: an array, in order of symbol, of all or of these."""
        aggregates = self._aggregates
        if symbols := parse_symbols(request.query):
            reader = reader_of(request, "aggregates")
            find = readable_only(aggregates.find, reader, "aggregates")
            chosen = known(symbols, lambda symbol: aggregates.row(find(symbol)))
            return _array(chosen, formats.encode_aggregate)
        client = client_of(request)
        rows = await self._feeds["aggregates"].current(client, Key(ALL))
        changes = self._market_changes
        return await self._list(client, "aggregates", changes, rows, formats.encode_aggregate)

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
        totals = readable(await self._trades.stored_symbols(client), reader_of(request, "symbols"))
        body = formats.encode_totals(totals)
        return answer(body, client.upstream_headers())

    async def trades(self, request: web.Request) -> web.Response:
        """`GET /api/v1/trades/{symbol}?limit&before`: those that are stored."""
        query, client = request.query, client_of(request)
        key = Key(parse_symbol(request.match_info["symbol"]))
        page = Page.before(parse_limit(query.get("limit")), query.get("before"))
        self._trades.check_stored()
        try:
            found = await self._feeds["trades"].history(client, key, page)
        except ParameterError as error:
            raise ParameterError(str(error).replace("cursor:", "before:")) from error
        return answer(formats.encode_trades(found.rows, found.next), client.upstream_headers())

    async def quotes(self, request: web.Request) -> web.Response:
        """`GET /v1/quotes`: of `?symbol=AAPL` its quote; of several an array, else of all."""
        symbols = parse_symbols(request.query)
        find = readable_only(self._quotes.find, reader_of(request, "quotes"), "quotes")
        if len(symbols) == 1 and "symbol" in request.query:
            row = find(symbols[0])
            body = formats.encode_latest_quote(row)
            return answer(body, STALE_HEADERS if row.is_stale else None)
        if symbols:
            return _array(known(symbols, find), formats.encode_latest_quote)
        client = client_of(request)
        rows = await self._feeds["quotes"].current(client, Key(ALL))
        changes = self._quotes.changes
        return await self._list(client, "quotes", changes, rows, formats.encode_latest_quote)

    async def _list(
        self,
        client: Client,
        name: str,
        changes: int,
        rows: Sequence[R],
        encode: Callable[[R], bytes],
    ) -> web.Response:
        """Answer rows as an array, which is encoded once a change and class, some rows a turn."""
        lists = self._lists.setdefault(client.principal.access, {})
        known = lists.get(name)
        if known is None or known[0] != changes:
            has_stale = False

            def encode_noting(row: R) -> bytes:
                nonlocal has_stale
                has_stale |= cast("Any", row).is_stale
                return encode(row)

            body = await encode_in_turns(rows, encode_noting)
            known = lists[name] = changes, b"[%b]" % body, has_stale
        _, body, is_stale = known
        return answer(body, STALE_HEADERS if is_stale else None)


def known(symbols: Iterable[str], find: Callable[[str], R]) -> list[R]:
    """Return the rows of those symbols that are known, in order of symbol."""
    rows = []
    for symbol in sorted(symbols):
        with contextlib.suppress(UnknownSymbolError):
            rows.append(find(symbol))
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
