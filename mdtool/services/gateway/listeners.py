"""WebSockets whose clients only listen: how they are opened, bounded, counted and closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from aiohttp import web

from mdtool.services.gateway.closing import CloseCode
from mdtool.services.gateway.limits import SocketLimit
from mdtool.services.gateway.outbox import Outbox
from mdtool.services.gateway.tallies import SocketTally
from mdtool.services.gateway.upgrade import Sayings, websocket

_MAX_MESSAGE_BYTES: Final = 4_096
"""Clients have nothing to say here."""

Following = Callable[[Outbox], AbstractContextManager[object]]
"""Has a client told what it wants to hear, within a block."""


class ListeningSockets:
    """The WebSockets of one path.

    Parameters
    ----------
    limit : SocketLimit
        How many there may be.
    patience_s : float
        How long a client may leave what it is told unread.
    tally : SocketTally
        Where they are counted.
    """

    def __init__(self, limit: SocketLimit, patience_s: float, tally: SocketTally) -> None:
        self._limit = limit
        self._patience_s = patience_s
        self._tally = tally
        self._open: set[web.WebSocketResponse] = set()

    async def serve(self, request: web.Request, following: Following) -> web.StreamResponse:
        """Serve one client until it leaves."""
        socket = websocket(request, _MAX_MESSAGE_BYTES)
        with self._limit.opened(self._tally):
            self._open.add(socket)
            try:
                await socket.prepare(request)
                await self._tell(socket, request.transport, following)
            finally:
                self._open.discard(socket)
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
            async for _ in Sayings(socket):
                pass  # what clients say is read, so that pings are answered, and left at that
