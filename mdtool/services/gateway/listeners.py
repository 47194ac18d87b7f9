"""WebSockets whose clients only listen: how they are opened, bounded, counted and closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from aiohttp import web

from mdtool.services.gateway.closing import CloseCode
from mdtool.services.gateway.outbox import Outbox
from mdtool.services.gateway.tallies import SocketTally
from mdtool.services.http.answers import failure

_HEARTBEAT_S: Final = 20.0
_CLOSE_S: Final = 1.0
"""How long a client may take to answer a close."""
_MAX_MESSAGE_BYTES: Final = 4_096
"""Clients have nothing to say here."""

Following = Callable[[Outbox], AbstractContextManager[object]]
"""Has a client told what it wants to hear, within a block."""


class ListeningSockets:
    """The WebSockets of one path.

    Parameters
    ----------
    max_sockets : int
        How many there may be at once.
    patience_s : float
        How long a client may leave what it is told unread.
    tally : SocketTally
        Where they are counted.
    """

    def __init__(self, max_sockets: int, patience_s: float, tally: SocketTally) -> None:
        self._max_sockets = max_sockets
        self._patience_s = patience_s
        self._tally = tally
        self._open: set[web.WebSocketResponse] = set()

    async def serve(self, request: web.Request, following: Following) -> web.StreamResponse:
        """Serve one client until it leaves."""
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
            await self._tell(socket, request.transport, following)
        finally:
            self._open.discard(socket)
            self._tally.open = len(self._open)
        return socket

    async def close(self, _app: web.Application) -> None:
        """Close every socket, when nothing is listened to any more."""
        closing = (socket.close(code=CloseCode.GOING_AWAY) for socket in self._open)
        await asyncio.gather(*closing, return_exceptions=True)

    async def _tell(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
        following: Following,
    ) -> None:
        if transport is None:
            return
        outbox = Outbox(transport, self._tally, self._patience_s)
        with contextlib.closing(outbox), following(outbox):
            async for _ in socket:
                pass  # what clients say is read, so that pings are answered, and left at that
