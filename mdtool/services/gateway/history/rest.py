"""The REST paths of the history: symbols, and trades page by page."""

from __future__ import annotations

from aiohttp import web

from mdtool.services.gateway.history.encoding import encode_symbols, encode_trades
from mdtool.services.gateway.history.paging import parse_place
from mdtool.services.gateway.history.view import HistoryView
from mdtool.services.gateway.parameters import parse_limit, parse_symbol
from mdtool.services.http.answers import answer


class HistoryRest:
    """The handlers of `/api/v1/symbols` and `/api/v1/trades`.

    Parameters
    ----------
    view : HistoryView
        What they answer from.
    """

    def __init__(self, view: HistoryView) -> None:
        self._view = view

    async def symbols(self, _request: web.Request) -> web.Response:
        """`GET /api/v1/symbols`."""
        body = encode_symbols(await self._view.symbols())
        return answer(body, self._view.limit.headers())

    async def trades(self, request: web.Request) -> web.Response:
        """`GET /api/v1/trades/{symbol}?limit&before`."""
        query = request.query
        symbol = parse_symbol(request.match_info["symbol"])
        limit = parse_limit(query.get("limit"))
        page = await self._view.page(symbol, limit, parse_place(query.get("before"), symbol))
        return answer(encode_trades(page), self._view.limit.headers())
