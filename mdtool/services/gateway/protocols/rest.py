"""REST version 2: every feed of the table, with one envelope, `{"data", "next", "error"}`."""

from __future__ import annotations

import contextlib
import json
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from mdtool.adapters.market import UnknownSymbolError
from mdtool.services.gateway.feeds import Feeds
from mdtool.services.gateway.feeds.feed import ALL, Key, Page, Rows
from mdtool.services.gateway.feeds.permitted import PermittedFeed
from mdtool.services.gateway.fields import encoder
from mdtool.services.gateway.http import STALE_HEADERS
from mdtool.services.gateway.parameters import (
    ParameterError,
    parse_limit,
    parse_moment,
    parse_order,
    parse_session,
    parse_symbol,
    parse_symbols,
)
from mdtool.services.gateway.protocols import Paths
from mdtool.services.gateway.protocols.rest_v1 import encode_in_turns
from mdtool.services.gateway.table import FeedRow
from mdtool.services.http.answers import Handler, answer, client_of
from mdtool.wire.cursors import Cursor, CursorError, decode_cursor, encode_cursor

PREFIX: Final = "/api/v2"
MAX_ROWS: Final = 10_000
_LIST: Final = -1
"""The time in the cursor of a list of symbols: no trade or bar has it."""


class Rest:
    """The handlers of `/api/v2`.

    Parameters
    ----------
    feeds : Feeds
    """

    def __init__(self, feeds: Feeds) -> None:
        self._resources = [_Resource(row, feeds[row.name]) for row in feeds.rows]

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        routes: dict[tuple[str, str], Handler] = {}
        for resource in self._resources:
            routes["GET", f"{PREFIX}/{resource.row.name}"] = resource.all
            if not resource.row.is_whole:
                routes["GET", f"{PREFIX}/{resource.row.name}/{{symbol}}"] = resource.one
        return routes


class _Resource:
    """The handlers of one feed."""

    def __init__(self, row: FeedRow, feed: PermittedFeed) -> None:
        self.row = row
        self._feed = feed
        self._encode: Callable[[Any], bytes] = encoder(row.fields)

    async def one(self, request: web.Request) -> web.Response:
        """`GET /api/v2/FEED/{symbol}`: its state, or its history where there is one."""
        key = self._key(request, parse_symbol(request.match_info["symbol"]))
        if key.symbol == ALL:  # one symbol is requested, and none is called so
            raise UnknownSymbolError(f"{self.row.name}: {ALL} is unknown")
        if self.row.has_history:
            return await self._history(request, key)
        if session := parse_session(request.query.get("session")) if self.row.has_past else None:
            past = await self._feed.past(client_of(request), key, session)
            return self._answer(request, self._encode(past), None, False)
        row, *_ = await self._feed.current(client_of(request), key)
        is_stale = getattr(row, "is_stale", False)
        return self._answer(request, self._encode(row), None, is_stale)

    async def all(self, request: web.Request) -> web.Response:
        """`GET /api/v2/FEED`: the state of every symbol, or of some; of events, the latest."""
        key = self._key(request, ALL)
        query = request.query
        symbols = parse_symbols(query)
        if self.row.has_events:
            return await self._history(request, key, symbols)
        if self.row.has_past and parse_session(query.get("session")) is not None:
            path = f"{PREFIX}/{self.row.name}/{{symbol}}"
            raise ParameterError(f"session: is for one symbol; request {path}?session=..")
        limit = parse_limit(query.get("limit"), MAX_ROWS)
        is_ascending = parse_order(query.get("order"), "asc")
        cursor = query.get("cursor")
        behind = _symbol_behind(cursor) if cursor else None
        if symbols:
            rows = await self._some(request, symbols)
        else:
            rows = await self._feed.current(client_of(request), key)
        chosen, has_more = _part(rows, limit, behind, is_ascending)
        next_ = encode_cursor(Cursor(chosen[-1].symbol, _LIST, 0, 0)) if has_more else None
        return await self._answer_rows(request, Rows(chosen, next_))

    async def _some(self, request: web.Request, symbols: Collection[str]) -> Sequence[Any]:
        """Return the state of those symbols that are known, in order of symbol."""
        if self.row.is_whole:
            every = await self._feed.current(client_of(request), self._key(request, ALL))
            return [row for row in every if row.symbol in symbols]
        rows: list[Any] = []
        for symbol in sorted(symbols):
            with contextlib.suppress(UnknownSymbolError):
                rows += await self._feed.current(client_of(request), self._key(request, symbol))
        return rows

    async def _history(
        self, request: web.Request, key: Key, symbols: Collection[str] = ()
    ) -> web.Response:
        query = request.query
        page = Page(
            parse_limit(query.get("limit"), MAX_ROWS),
            query.get("cursor") or None,
            parse_moment("from", query.get("from")),
            parse_moment("to", query.get("to")),
            parse_order(query.get("order"), "desc"),
            frozenset(symbols),
        )
        found = await self._feed.history(client_of(request), key, page)
        return await self._answer_rows(request, found)

    def _key(self, request: web.Request, symbol: str) -> Key:
        option = self.row.option
        if option is None:
            return Key(symbol)
        return Key(symbol, option.value_of(request.query.get(option.name)))

    async def _answer_rows(self, request: web.Request, found: Rows[Any]) -> web.Response:
        data = b"[%b]" % await encode_in_turns(found.rows, self._encode)
        is_stale = found.is_stale or any(getattr(row, "is_stale", False) for row in found.rows)
        return self._answer(request, data, found.next, is_stale)

    def _answer(
        self, request: web.Request, data: bytes, next_: str | None, is_stale: bool
    ) -> web.Response:
        headers = STALE_HEADERS if is_stale else {}
        if self.row.is_upstream:
            headers = {**headers, **client_of(request).upstream_headers()}
        body = b'{"data":%b,"next":%b,"error":null}' % (data, json.dumps(next_).encode())
        return answer(body, headers)


def fail(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return an error as version 2 answers it."""
    envelope = {"data": None, "next": None, "error": {"code": code, "message": message}}
    return answer(json.dumps(envelope, separators=(",", ":")).encode(), headers, status)


def _part(
    rows: Sequence[Any], limit: int, behind: str | None, is_ascending: bool
) -> tuple[Sequence[Any], bool]:
    """Return rows of a list that is in order of symbol, and whether more follow."""
    symbol = _symbol_of
    if is_ascending:
        begin = 0 if behind is None else bisect_right(rows, behind, key=symbol)
        return rows[begin : begin + limit], begin + limit < len(rows)
    end = len(rows)
    if behind is not None:
        end = bisect_right(rows, behind, key=symbol)
        end -= end > 0 and rows[end - 1].symbol == behind
    return rows[max(0, end - limit) : end][::-1], end > limit


def _symbol_of(row: Any) -> str:
    symbol: str = row.symbol
    return symbol


def _symbol_behind(cursor: str) -> str:
    try:
        place = decode_cursor(cursor)
    except CursorError as error:
        raise ParameterError(f"cursor: {error}; pass next of the page before") from error
    if place.timestamp_ns != _LIST:
        raise ParameterError("cursor: of another request; pass next of the page before")
    return place.symbol
