"""`WS /graphql`: operations over the graphql-transport-ws protocol."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from mdtool.services.gateway.graphql.conversation import Conversation
from mdtool.services.gateway.graphql.execution import Executor
from mdtool.services.gateway.graphql.live import Source
from mdtool.services.gateway.limits import SocketLimit
from mdtool.services.gateway.open_sockets import OpenSockets
from mdtool.services.gateway.outbox import Outbox
from mdtool.services.gateway.tallies import SocketTally
from mdtool.services.gateway.time_share import TimeShare
from mdtool.services.gateway.upgrade import ClientMessages, websocket
from mdtool.wire import graphql as wire
from mdtool.wire.graphql import MessageError

_INIT_S: Final = 10.0
"""How long a client may take for what it must say first."""


class GraphQLSockets:
    """The WebSockets over which operations run.

    Parameters
    ----------
    executor : Executor
        Runs queries.
    sources : mapping
        Where each field of `Subscription` gets its rows.
    max_message_bytes : int
        How long a client's message may be.
    patience_s : float
        How long a client may leave what it is told unread.
    limit : SocketLimit
        How many there may be.
    time_share : TimeShare
        Each client's, for what it says.
    tally : SocketTally
        Where they are counted.
    """

    def __init__(
        self,
        executor: Executor,
        sources: Mapping[str, Source],
        max_message_bytes: int,
        patience_s: float,
        limit: SocketLimit,
        time_share: TimeShare,
        tally: SocketTally,
    ) -> None:
        self._executor = executor
        self._sources = sources
        self._max_message_bytes = max_message_bytes
        self._patience_s = patience_s
        self._time_share = time_share
        self._tally = tally
        self._open = OpenSockets(limit, tally)
        self.close = self._open.close

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one client until it leaves."""
        socket = websocket(request, self._max_message_bytes, (wire.SUBPROTOCOL,))
        async with self._open.prepared(request, socket):
            if request.transport is not None:
                await self._converse(socket, request.transport)
        return socket

    async def _converse(self, socket: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        if socket.ws_protocol != wire.SUBPROTOCOL:
            code = wire.CloseCode.BAD_SUBPROTOCOL
            await socket.close(code=code, message=b"Subprotocol not acceptable")
            return
        outbox = Outbox(transport, self._tally, self._patience_s)
        with contextlib.closing(outbox):
            async with asyncio.TaskGroup() as tasks:
                conversation = Conversation(outbox, self._executor, self._sources, tasks)
                with contextlib.closing(conversation):
                    error = await self._listened(socket, conversation)
        if error is not None:
            await socket.close(code=error.code, message=str(error).encode())

    async def _listened(
        self, socket: web.WebSocketResponse, conversation: Conversation
    ) -> MessageError | None:
        """Have a client say what it wants until it leaves, or has to: then return why."""
        try:
            async with asyncio.timeout(_INIT_S) as patience:
                async for said in ClientMessages(socket):
                    with await self._time_share.turn():
                        conversation.take(said)
                    if conversation.is_open:
                        patience.reschedule(None)
        except TimeoutError:
            return MessageError(wire.CloseCode.NOT_INITIALISED, "Connection initialisation timeout")
        except MessageError as error:
            return error
        return None
