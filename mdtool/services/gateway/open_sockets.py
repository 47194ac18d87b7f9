"""The WebSockets that are open on one path: bounded, counted, and closed together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from mdtool.services.gateway.closing import CloseCode
from mdtool.services.gateway.limits import SocketLimit
from mdtool.services.gateway.tallies import SocketTally


class OpenSockets:
    """Those of one path.

    Parameters
    ----------
    limit : SocketLimit
        How many there may be.
    tally : SocketTally
        Where they are counted.
    """

    def __init__(self, limit: SocketLimit, tally: SocketTally) -> None:
        self._limit = limit
        self._tally = tally
        self._open: set[web.WebSocketResponse] = set()

    @contextlib.asynccontextmanager
    async def prepared(
        self, request: web.Request, socket: web.WebSocketResponse
    ) -> AsyncIterator[None]:
        """Answer a request with a socket, which is one of them until the block ends."""
        with self._limit.opened(self._tally):
            self._open.add(socket)
            try:
                await socket.prepare(request)
                yield
            finally:
                self._open.discard(socket)

    async def close(self, _app: web.Application) -> None:
        """Close every socket, when nothing is listened to any more."""
        closing = (socket.close(code=CloseCode.GOING_AWAY) for socket in self._open)
        await asyncio.gather(*closing, return_exceptions=True)
