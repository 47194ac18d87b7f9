"""`WS /ws/marketdata?symbol=`: the aggregate of a symbol, at once and on each update."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import numpy as np
from aiohttp import WSCloseCode, web
from numpy.typing import NDArray

from mdtool.services.gateway.encoding import encode_socket
from mdtool.services.gateway.hub import Hub
from mdtool.services.gateway.outbox import Outbox
from mdtool.services.gateway.parameters import ParameterError, parse_symbol
from mdtool.services.gateway.state import MarketState
from mdtool.services.gateway.tallies import SocketTally
from mdtool.services.http.answers import failure

_HEARTBEAT_S: Final = 20.0
_CLOSE_S: Final = 1.0
"""How long a client may take to answer a close."""
_MAX_MESSAGE_BYTES: Final = 4_096
"""Clients have nothing to say here."""


class MarketDataSockets:
    """The WebSockets that follow symbols.

    Parameters
    ----------
    state : MarketState
        What they are told.
    max_sockets : int
        How many there may be at once.
    patience_s : float
        How long one may leave what it is told unread.
    tally : SocketTally
        Where they are counted.
    """

    def __init__(
        self, state: MarketState, max_sockets: int, patience_s: float, tally: SocketTally
    ) -> None:
        self._state = state
        self._hub = Hub()
        self._max_sockets = max_sockets
        self._patience_s = patience_s
        self._tally = tally
        self._open: set[web.WebSocketResponse] = set()

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
        socket = web.WebSocketResponse(
            timeout=_CLOSE_S,
            heartbeat=_HEARTBEAT_S,
            compress=False,
            max_msg_size=_MAX_MESSAGE_BYTES,
        )
        if not socket.can_prepare(request):
            message = f"{request.path} speaks WebSocket only"
            return failure(426, "upgrade_required", message, {"Upgrade": "websocket"})
        if len(self._open) >= self._max_sockets:
            self._tally.refused += 1
            return failure(503, "unavailable", f"{self._max_sockets:,} WebSockets are open")
        self._open.add(socket)
        self._tally.opened += 1
        self._tally.open = len(self._open)
        try:
            await socket.prepare(request)
            await self._tell(symbol, socket, request.transport)
        finally:
            self._open.discard(socket)
            self._tally.open = len(self._open)
        return socket

    async def close(self, _app: web.Application) -> None:
        """Close every socket, when nothing is listened to any more."""
        closing = (socket.close(code=WSCloseCode.GOING_AWAY) for socket in self._open)
        await asyncio.gather(*closing, return_exceptions=True)

    async def _tell(
        self, symbol: str, socket: web.WebSocketResponse, transport: asyncio.Transport | None
    ) -> None:
        """Tell a client of a symbol until it leaves."""
        if transport is None:
            return
        with (
            contextlib.closing(Outbox(transport, self._tally, self._patience_s)) as outbox,
            self._hub.subscription(symbol, outbox) as follower,
        ):
            index = self._state.symbols.find(symbol)
            if index is not None:
                follower.send(self._text(index))
            async for _ in socket:
                pass  # what clients say is read, so that pings are answered, and left at that

    def _text(self, index: int) -> bytes:
        return encode_socket(self._state.aggregate(index))
