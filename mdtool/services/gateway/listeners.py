"""WebSockets whose clients only listen: how they are opened, bounded, counted and closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from aiohttp import web

from mdtool.services.gateway.limits import SocketLimit
from mdtool.services.gateway.open_sockets import OpenSockets
from mdtool.services.gateway.outbox import Outbox
from mdtool.services.gateway.tallies import SocketTally
from mdtool.services.gateway.upgrade import ClientMessages, websocket

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
        self._patience_s = patience_s
        self._tally = tally
        self._open = OpenSockets(limit, tally)
        self.close = self._open.close

    async def serve(self, request: web.Request, following: Following) -> web.StreamResponse:
        """Serve one client until it leaves."""
        socket = websocket(request, _MAX_MESSAGE_BYTES)
        async with self._open.prepared(request, socket):
            await self._tell(socket, request.transport, following)
        return socket

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
            async for _ in ClientMessages(socket):
                pass  # what clients say is read, so that pings are answered, and left at that
