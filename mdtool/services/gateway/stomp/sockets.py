"""STOMP over WebSocket: raw at `/ws/websocket`, or within SockJS."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from aiohttp import web

from mdtool.services.gateway.closing import CloseCode
from mdtool.services.gateway.limits import SocketLimit
from mdtool.services.gateway.outbox import Outbox
from mdtool.services.gateway.stomp.connection import Connection
from mdtool.services.gateway.stomp.connections import Connections
from mdtool.services.gateway.stomp.messages import Wrapping
from mdtool.services.gateway.tallies import SocketTally
from mdtool.services.gateway.time_share import TimeShare
from mdtool.services.gateway.upgrade import CLOSE_S, ClientMessages, Socket, websocket
from mdtool.wire import sockjs
from mdtool.wire.sockjs import SockJsError
from mdtool.wire.stomp import MAX_FRAME_BYTES
from mdtool.wire.websocket import close_frame, close_reason, text_frame

_SUBPROTOCOLS: Final = ("v12.stomp", "v11.stomp", "v10.stomp")
_MAX_RAW_BYTES: Final = 2 * MAX_FRAME_BYTES
"""Of a message, so that one frame that is too long can still be told what is wrong with it."""
_MAX_SOCKJS_BYTES: Final = 6 * MAX_FRAME_BYTES
"""The same: JSON makes six bytes of some."""


class StompSockets:
    """The handlers of WebSockets.

    Parameters
    ----------
    connections : Connections
        Who is connected.
    patience_s : float
        How long a client may leave what it is told unread.
    limit : SocketLimit
        How many there may be.
    time_share : TimeShare
        Each client's, for what it says.
    raw_tally, sockjs_tally : SocketTally
        Where they are counted.
    """

    def __init__(
        self,
        connections: Connections,
        patience_s: float,
        limit: SocketLimit,
        time_share: TimeShare,
        raw_tally: SocketTally,
        sockjs_tally: SocketTally,
    ) -> None:
        self._connections = connections
        self._patience_s = patience_s
        self._limit = limit
        self._time_share = time_share
        self._raw_tally = raw_tally
        self._sockjs_tally = sockjs_tally

    async def raw(self, request: web.Request) -> web.StreamResponse:
        """`WS /ws/websocket`."""
        socket = websocket(request, _MAX_RAW_BYTES, _SUBPROTOCOLS)
        return await self._serve(request, socket, Wrapping.NONE, self._raw_tally)

    async def sockjs(self, request: web.Request) -> web.StreamResponse:
        """`WS /ws/{server}/{session}/websocket`."""
        socket = websocket(request, _MAX_SOCKJS_BYTES)
        return await self._serve(request, socket, Wrapping.SOCKJS, self._sockjs_tally)

    async def _serve(
        self,
        request: web.Request,
        socket: Socket,
        wrapping: Wrapping,
        tally: SocketTally,
    ) -> web.StreamResponse:
        with self._limit.opened(tally):
            await socket.prepare(request)
            if request.transport is not None:
                await self._converse(request, request.transport, socket, wrapping, tally)
        return socket

    async def _converse(
        self,
        request: web.Request,
        transport: asyncio.Transport,
        socket: Socket,
        wrapping: Wrapping,
        tally: SocketTally,
    ) -> None:
        is_sockjs = wrapping is Wrapping.SOCKJS
        farewell = _farewell if is_sockjs else close_frame
        closing: list[asyncio.Task[None]] = []
        with contextlib.closing(Outbox(transport, tally, self._patience_s, farewell)) as outbox:

            def end(code: CloseCode, reason: str) -> None:
                if is_sockjs:
                    outbox.post(sockjs.close(code, reason))
                outbox.flush()
                outbox.close()
                closing.append(asyncio.create_task(_close(request, socket, code, reason)))

            with self._connections.opened(outbox, wrapping, end) as connection:
                socket.tell_too_large = connection.fail
                if is_sockjs:
                    outbox.post(sockjs.OPEN)
                take = _take_wrapped if is_sockjs else _take
                async for said in ClientMessages(socket):
                    with await self._time_share.turn():
                        take(connection, said)
        await asyncio.gather(*closing)


def _take(connection: Connection, data: str | bytes) -> None:
    data = data.encode() if isinstance(data, str) else data
    connection.receive(data, asyncio.get_running_loop().time())


def _take_wrapped(connection: Connection, data: str | bytes) -> None:
    try:
        for message in sockjs.read_messages(data) if data else ():
            _take(connection, message)
    except SockJsError as error:
        connection.leave(CloseCode.POLICY, str(error))


def _farewell(code: int, reason: str) -> bytes:
    return text_frame(sockjs.close(code, reason)) + close_frame(code, reason)


async def _close(request: web.Request, socket: Socket, code: int, reason: str) -> None:
    """Close a socket, whether or not its client has a part in that."""
    try:
        async with asyncio.timeout(2 * CLOSE_S):
            await socket.close(code=code, message=close_reason(reason))
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
