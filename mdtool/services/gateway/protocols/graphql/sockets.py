"""`WS /graphql`: operations over the graphql-transport-ws protocol."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from mdtool.adapters.identity.errors import TokenError, UnknownKeyError
from mdtool.core.errors import MdtoolError
from mdtool.services.client import Turn
from mdtool.services.gateway.hub import Subscription
from mdtool.services.gateway.protocols.graphql.errors import (
    TOO_MANY,
    DocumentError,
    ErrorObject,
    encode_errors,
    request_error,
)
from mdtool.services.gateway.protocols.graphql.execution import Operations, Prepared
from mdtool.services.gateway.websockets import WebSocket, websocket
from mdtool.services.limits import LimitError
from mdtool.wire.graphql import (
    CONNECTION_ACK,
    NEXT_TAIL,
    PONG,
    SUBPROTOCOL,
    CloseCode,
    Complete,
    MessageError,
    Subscribe,
    complete_message,
    decode_message,
    error_message,
    next_head,
)

MAX_OPERATIONS: Final = 100
"""The most operations of one connection at a time."""
_INIT_S: Final = 10.0
"""How long a client may take to initialise its connection."""


class GraphQLSockets:
    """The WebSockets over which operations run.

    Parameters
    ----------
    operations : Operations
    listener : str
        What metrics call the connections.
    patience_s : float
        How long a client may read nothing while messages wait for it.
    max_message_bytes : int
        A client that sends a longer message is closed.
    """

    def __init__(
        self,
        operations: Operations,
        listener: str,
        patience_s: float,
        max_message_bytes: int,
    ) -> None:
        self._operations = operations
        self._listener = listener
        self._patience_s = patience_s
        self._max_message_bytes = max_message_bytes

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one client until it leaves."""
        async with websocket(
            request, self._listener, self._patience_s, self._max_message_bytes, (SUBPROTOCOL,)
        ) as socket:
            if socket.response.ws_protocol != SUBPROTOCOL:
                socket.close(CloseCode.BAD_SUBPROTOCOL, "Subprotocol not acceptable")
                return socket.response
            async with asyncio.TaskGroup() as tasks:
                connection = _Connection(socket, self._operations, tasks)
                with contextlib.closing(connection):
                    error = await self._read(socket, connection)
            if error is not None:
                socket.close(error.code, str(error))
        return socket.response

    async def _read(self, socket: WebSocket, connection: _Connection) -> MessageError | None:
        """Handle messages until the client leaves, or has to: then return why."""
        try:
            async with asyncio.timeout(_INIT_S) as patience:
                async for message in socket:
                    turn = await socket.client.turn()
                    with turn:
                        connection.handle(message, turn)
                    if connection.is_initialised:
                        patience.reschedule(None)
        except TimeoutError:
            return MessageError(CloseCode.NOT_INITIALISED, "Connection initialisation timeout")
        except MessageError as error:
            return error
        return None


class _Connection:
    """One client's connection: whether it is initialised, and its operations by id.

    Queries run as tasks, so that the next message does not wait for them.
    """

    def __init__(self, socket: WebSocket, operations: Operations, tasks: asyncio.TaskGroup) -> None:
        self.is_initialised = False
        self._client = socket.client
        self._outbox = socket.outbox
        self._operations = operations
        self._tasks = tasks
        self._ends: dict[str, Callable[[], object]] = {}

    def handle(self, data: object, turn: Turn) -> None:
        """Handle a message; raise MessageError where the protocol does not allow it."""
        message = decode_message(data)
        if isinstance(message, Subscribe):
            self._begin(message, turn)
        elif isinstance(message, Complete):
            self._end(message.id)
        elif message.kind == "connection_init":
            if self.is_initialised:
                reason = "Too many initialisation requests"
                raise MessageError(CloseCode.TOO_MANY_INITIALISATIONS, reason)
            self._authenticate(message.payload, self._initialise)
        elif message.kind == "ping":
            # A newer token may come with a ping: there is only one initialisation.
            self._authenticate(message.payload, lambda: self._outbox.post(PONG))

    def close(self) -> None:
        """End all operations."""
        for id_ in list(self._ends):
            self._end(id_)

    def _initialise(self) -> None:
        self._client.check_token()
        self.is_initialised = True
        self._outbox.post(CONNECTION_ACK)

    def _authenticate(self, payload: Mapping[str, Any], proceed: Callable[[], None]) -> None:
        """Take the token of a payload, if it has one, and proceed."""
        try:
            token = None if self._client.security is None else self._token_of(payload)
            if token is not None:
                try:
                    self._client.authenticate(token)
                except UnknownKeyError:
                    self._tasks.create_task(self._authenticate_later(token, proceed))
                    return
            proceed()
        except (TokenError, LimitError) as error:
            raise MessageError(CloseCode.UNAUTHORIZED, str(error)) from error

    def _token_of(self, payload: Mapping[str, Any]) -> str | None:
        """Return the token of a payload: `Authorization`, as of HTTP, or `token`, if not empty."""
        for name in ("Authorization", "authorization"):
            if (text := payload.get(name)) and isinstance(text, str):
                return self._client.bearer([text])
        token = payload.get("token")
        return token if token and isinstance(token, str) else None

    async def _authenticate_later(self, token: str, proceed: Callable[[], None]) -> None:
        try:
            await self._client.authenticate_now(token)
            proceed()
        except (TokenError, LimitError) as error:
            self._client.close(CloseCode.UNAUTHORIZED, str(error))

    def _begin(self, message: Subscribe, turn: Turn) -> None:
        id_ = message.id
        if not self.is_initialised:
            raise MessageError(CloseCode.UNAUTHORIZED, "Unauthorized")
        if id_ in self._ends:
            raise MessageError(CloseCode.ID_IN_USE, f"Subscriber for {id_} already exists")
        if len(self._ends) == MAX_OPERATIONS:
            reason = f"limit of {MAX_OPERATIONS} operations reached; complete one first"
            self._fail(id_, [request_error(reason, TOO_MANY)])
            return
        try:
            prepared = self._operations.prepare(message.request, self._client)
        except DocumentError as error:
            self._fail(id_, error.errors)
            return
        if prepared.operation.is_subscription:
            self._follow(id_, prepared)
        else:
            self._ends[id_] = self._tasks.create_task(self._answer(id_, prepared, turn)).cancel

    async def _answer(self, id_: str, prepared: Prepared, turn: Turn) -> None:
        response = await self._operations.query(self._client, turn, prepared)
        del self._ends[id_]
        self._outbox.post(next_head(id_) + response.body + NEXT_TAIL)
        self._outbox.post(complete_message(id_))

    def _follow(self, id_: str, prepared: Prepared) -> None:
        def fail(error: MdtoolError) -> None:
            self._fail(id_, self._operations.failure(prepared, error))

        # The feed may fail at once, before it returns what ends the subscription.
        ends = contextlib.ExitStack()
        self._ends[id_] = ends.close
        try:
            feed, key, format_ = self._operations.follow(prepared)
            subscription = Subscription(self._client, self._outbox, format_, next_head(id_), fail)
            end = feed.follow(key, subscription)
        except DocumentError as error:
            self._fail(id_, error.errors)
        except MdtoolError as error:
            fail(error)
        else:
            if self._ends.get(id_) == ends.close:
                ends.callback(end)
            else:
                end()

    def _fail(self, id_: str, errors: Sequence[ErrorObject]) -> None:
        """End an operation with errors."""
        self._end(id_)
        self._outbox.post(error_message(id_, encode_errors(errors)))

    def _end(self, id_: str) -> None:
        """End an operation, which may have ended before."""
        if end := self._ends.pop(id_, None):
            end()
