"""`WS /ws/marketdata?symbol=`: the aggregate of a symbol, at once and on each update."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from mdtool.services.gateway.encoding import encode_socket
from mdtool.services.gateway.hub import Hub
from mdtool.services.gateway.limits import SocketLimit
from mdtool.services.gateway.listeners import ListeningSockets
from mdtool.services.gateway.outbox import Outbox
from mdtool.services.gateway.parameters import ParameterError, parse_symbol
from mdtool.services.gateway.state import MarketState
from mdtool.services.gateway.tallies import SocketTally


class MarketDataSockets:
    """The WebSockets that follow symbols.

    Parameters
    ----------
    state : MarketState
        What they are told.
    limit : SocketLimit
        How many there may be.
    patience_s : float
        How long one may leave what it is told unread.
    tally : SocketTally
        Where they are counted.
    """

    def __init__(
        self, state: MarketState, limit: SocketLimit, patience_s: float, tally: SocketTally
    ) -> None:
        self._state = state
        self._hub = Hub()
        self._sockets = ListeningSockets(limit, patience_s, tally)
        self.close = self._sockets.close

    def publish(self, changed: NDArray[np.intp]) -> None:
        """Tell everybody who follows one of the symbols what it has become."""
        if not len(self._hub):
            return
        for index in changed.tolist():
            symbol = self._state.symbols[index]
            if symbol in self._hub:
                self._hub.publish(symbol, self._text(index))

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """Serve one client; a symbol that is not known yet is told from its first trade on."""
        if "symbol" not in request.query:
            raise ParameterError("symbol: missing; say ?symbol=AAPL")
        symbol = parse_symbol(request.query["symbol"])
        return await self._sockets.serve(request, lambda outbox: self._following(symbol, outbox))

    @contextlib.contextmanager
    def _following(self, symbol: str, outbox: Outbox) -> Iterator[None]:
        with self._hub.subscription(symbol, outbox) as follower:
            index = self._state.symbols.find(symbol)
            if index is not None:
                follower.send(self._text(index))
            yield

    def _text(self, index: int) -> bytes:
        return encode_socket(self._state.aggregate(index))
