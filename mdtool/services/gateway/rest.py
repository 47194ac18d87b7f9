"""The REST paths: aggregates out of memory, bars from the aggregator."""

from __future__ import annotations

from aiohttp import web

from mdtool.adapters.aggregator import AggregatorClient, UnavailableError, UnknownSymbolError
from mdtool.services.gateway.answers import STALE_HEADERS
from mdtool.services.gateway.encoding import encode_bars
from mdtool.services.gateway.parameters import (
    parse_before,
    parse_interval,
    parse_limit,
    parse_symbol,
)
from mdtool.services.gateway.state import MarketState
from mdtool.services.http.answers import answer


class Rest:
    """The handlers of `/api/v1`.

    Parameters
    ----------
    state : MarketState
        What they answer from.
    aggregator : AggregatorClient
        Whom they ask for bars.
    timeout_s : float
        How long it may take.
    """

    def __init__(self, state: MarketState, aggregator: AggregatorClient, timeout_s: float) -> None:
        self._state = state
        self._aggregator = aggregator
        self._timeout_s = timeout_s

    async def aggregate(self, request: web.Request) -> web.Response:
        """`GET /api/v1/marketdata/{symbol}`."""
        text = request.match_info["symbol"]
        index = self._state.symbols.find(text)
        if index is None:
            index = self._find(parse_symbol(text))
        body, is_stale = self._state.rest(index)
        return answer(body, STALE_HEADERS if is_stale else None)

    async def aggregates(self, _request: web.Request) -> web.Response:
        """`GET /api/v1/marketdata`: an array, in order of symbol, of what each of them answers."""
        if not self._state.is_live and not len(self._state.symbols):
            raise self._nothing_known()
        body, is_stale = self._state.rest_list()
        return answer(body, STALE_HEADERS if is_stale else None)

    async def bars(self, request: web.Request) -> web.Response:
        """`GET /api/v1/bars/{symbol}?interval&limit&before`."""
        query = request.query
        limit = parse_limit(query.get("limit"))
        bars = await self._aggregator.bars(
            parse_symbol(request.match_info["symbol"]),
            parse_interval(query.get("interval", "1m")),
            limit,
            parse_before(query.get("before")),
            self._timeout_s,
        )
        return answer(encode_bars(bars, limit))

    def _find(self, symbol: str) -> int:
        index = self._state.symbols.find(symbol)
        if index is not None:
            return index
        if self._state.is_live:
            raise UnknownSymbolError(f"no trade of {symbol} yet")
        raise self._nothing_known()

    def _nothing_known(self) -> UnavailableError:
        return UnavailableError(
            f"aggregator {self._aggregator.address} is away, and nothing is known from before"
        )
