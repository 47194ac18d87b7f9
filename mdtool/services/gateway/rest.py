"""The REST paths: aggregates out of memory, bars from the aggregator."""

from __future__ import annotations

from aiohttp import web

from mdtool.services.gateway.answers import STALE_HEADERS
from mdtool.services.gateway.encoding import encode_bars
from mdtool.services.gateway.parameters import (
    parse_before,
    parse_interval,
    parse_limit,
    parse_symbol,
)
from mdtool.services.gateway.view import MarketView
from mdtool.services.http.answers import answer


class Rest:
    """The handlers of `/api/v1`.

    Parameters
    ----------
    view : MarketView
        What they answer from.
    """

    def __init__(self, view: MarketView) -> None:
        self._view = view
        self._state = view.state

    async def aggregate(self, request: web.Request) -> web.Response:
        """`GET /api/v1/marketdata/{symbol}`."""
        body, is_stale = self._state.rest(self._view.find(request.match_info["symbol"]))
        return answer(body, STALE_HEADERS if is_stale else None)

    async def aggregates(self, _request: web.Request) -> web.Response:
        """`GET /api/v1/marketdata`: an array, in order of symbol, of what each of them answers."""
        if not len(self._state.symbols):
            self._view.check_known()
        body, is_stale = await self._state.listing.read()
        return answer(body, STALE_HEADERS if is_stale else None)

    async def bars(self, request: web.Request) -> web.Response:
        """`GET /api/v1/bars/{symbol}?interval&limit&before`."""
        query = request.query
        limit = parse_limit(query.get("limit"))
        bars, is_stale = await self._view.bar_page(
            parse_symbol(request.match_info["symbol"]),
            parse_interval(query.get("interval", "1m")),
            limit,
            parse_before(query.get("before")),
        )
        headers = {**self._view.limit.headers(), **(STALE_HEADERS if is_stale else {})}
        return answer(encode_bars(bars, limit, is_stale), headers)
