"""WebSockets of clients: upgraded, admitted, read, and closed with a code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Self

from aiohttp import WSCloseCode, WSMsgType, web

from mdtool.adapters.identity.errors import TokenError
from mdtool.core.errors import MdtoolError
from mdtool.services.client import Client
from mdtool.services.gateway.http import UpgradeRequiredError
from mdtool.services.gateway.outbox import Metered, Outbox
from mdtool.services.http.answers import Handler, client_of
from mdtool.services.http.entry import requests_socket
from mdtool.services.limits import LONGEST_WAIT_S, LimitError
from mdtool.wire.websocket import CloseCode, close_reason

HEARTBEAT_S: Final = 20.0
"""How often clients are pinged; one that does not answer within half of that is cut off."""
STOPPING: Final = "the gateway stops"
_CLOSE_S: Final = 1.0
"""How long a client may take to answer a close."""
_LISTENER_BYTES: Final = 32_768
"""The largest message accepted on sockets where clients send nothing but tokens."""
_DATA: Final = frozenset({WSMsgType.TEXT, WSMsgType.BINARY})

_MEANINGS: Final = {
    CloseCode.NORMAL: "The client disconnected.",
    CloseCode.GOING_AWAY: "The gateway stops. Reconnect.",
    CloseCode.PROTOCOL_ERROR: "The client broke the protocol: an ERROR frame said how, or the bytes"
    " were not a WebSocket frame.",
    CloseCode.NO_TEXT: "A text message is not UTF-8.",
    CloseCode.POLICY: "The client's messages are not SockJS, or what its path requests is rejected,"
    " such as a subscription beyond its quota.",
    CloseCode.TOO_BIG: "A message is too large.",
    CloseCode.BEHIND: "The client stopped reading: for `slow_client_s`, or with too many messages"
    " waiting that cannot be conflated, or with 32 MB of states. Or it sent messages although its"
    f" quota of bytes is used up for {LONGEST_WAIT_S} s. Reconnect, and read faster or subscribe to"
    " less.",
    CloseCode.UNAUTHORIZED: "The token is missing, not valid, expired or revoked. Reconnect with a"
    " new one.",
}
_PINGS: Final = (
    f"Clients are pinged every {HEARTBEAT_S:g} s. A client that does not answer a ping within"
    f" {HEARTBEAT_S / 2:g} s is disconnected without a code, which browsers show as 1006. GraphQL"
    " has its own codes besides, those of graphql-transport-ws."
)


def about_closing() -> str:
    """Return the close codes as a table in Markdown, and how silent clients are found."""
    rows = "".join(f"| {code} | {_MEANINGS[code]} |\n" for code in CloseCode)
    return f"| code | why a WebSocket is closed |\n|---|---|\n{rows}\n{_PINGS}\n"


def upgrading(sockets: Handler, otherwise: Handler) -> Handler:
    """Return a handler of a path that answers requests for WebSockets and others differently."""

    async def run(request: web.Request) -> web.StreamResponse:
        return await (sockets if requests_socket(request) else otherwise)(request)

    return run


async def renew(client: Client, message: str | bytes) -> None:
    """Take a newer token that a client of a plain WebSocket sends, `{"op":"auth","token":".."}`.

    One that is not valid closes the connection; other messages are ignored.
    """
    if client.security is None:
        return
    try:
        content = json.loads(message)
    except (ValueError, RecursionError):
        return
    if isinstance(content, dict) and content.get("op") == "auth":
        try:
            await client.authenticate_now(str(content.get("token")))
        except (TokenError, LimitError) as error:
            client.close(CloseCode.UNAUTHORIZED, str(error))


class WebSocket:
    """An open WebSocket: an async iterator of its client's messages, text or binary.

    It ends when the client closes, is cut off, or sends what is not a WebSocket frame. Between two
    messages other tasks run, for many may have arrived.

    Attributes
    ----------
    client : Client
    response : web.WebSocketResponse
        What the handler of the request returns.
    outbox : Outbox
        Where updates and replies are written.
    """

    def __init__(
        self,
        client: Client,
        response: _Response,
        outbox: Outbox,
        transport: asyncio.Transport,
    ) -> None:
        self.client = client
        self.response = response
        self.outbox = outbox
        self._transport = transport
        self._closing: asyncio.Task[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        await asyncio.sleep(0)
        try:
            message = await self.response.receive()
        except ConnectionError:  # the answer to a ping cannot be written
            raise StopAsyncIteration from None
        if message.type not in _DATA:
            raise StopAsyncIteration
        data: str | bytes = message.data
        if self.client.is_metered:
            await self._pay(len(data))
        return data

    async def _pay(self, received: int) -> None:
        """Count what the client has sent, and wait as long as its quota says, within bounds."""
        wait_s = self.client.spend_bytes(received)
        if wait_s > LONGEST_WAIT_S:
            self.close(CloseCode.BEHIND, f"quota of bytes used up for {math.ceil(wait_s)} s")
            raise StopAsyncIteration
        await asyncio.sleep(wait_s)

    def on_too_large(self, call: Callable[[str], None]) -> None:
        """Have `call` send the reason why the connection is closed for a message's size."""
        self.response.tell_too_large = call

    def close(self, code: int, reason: str) -> None:
        """Write everything and close; only the first close counts."""
        if self._closing is None:
            self.outbox.end(code, reason)
            self._closing = asyncio.create_task(self._close(code, reason))

    async def closed(self) -> None:
        """Wait until a close that has begun is finished."""
        if self._closing is not None:
            await self._closing

    async def _close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(2 * _CLOSE_S):
                await self.response.close(code=code, message=close_reason(reason))
        except TimeoutError:
            self._transport.abort()


@contextlib.asynccontextmanager
async def websocket(
    request: web.Request,
    listener: str,
    patience_s: float,
    max_message_bytes: int = _LISTENER_BYTES,
    subprotocols: Sequence[str] = (),
    last_message: Callable[[int, str], bytes] | None = None,
) -> AsyncIterator[WebSocket]:
    """Answer a request with a WebSocket that is open within the block.

    Parameters
    ----------
    request : web.Request
    listener : str
        What metrics call its connections.
    patience_s : float
        How long the client may read nothing while frames wait for it.
    max_message_bytes : int
        A client that sends a longer message is closed.
    subprotocols : sequence of str
        Those that are known; the client's favourite among them is chosen.
    last_message : callable, optional
        See Outbox.

    Raises
    ------
    UpgradeRequiredError
        When the request is not one for a WebSocket.
    LimitError, CapacityError
        When there are too many connections.
    """
    response = _Response(max_message_bytes, subprotocols)
    if not response.can_prepare(request):
        message = f"{request.path}: not a WebSocket request; connect with a WebSocket client"
        raise UpgradeRequiredError(message, {"Upgrade": "websocket"})
    client = client_of(request)
    socket: WebSocket | None = None

    def close(code: int, reason: str) -> None:
        if socket is not None:
            socket.close(code, reason)

    with client.connected(listener, close) as tally:
        await response.prepare(request)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client left")
        writing = Metered(transport, client) if client.is_metered else transport
        outbox = Outbox(writing, tally, patience_s, last_message)
        socket = WebSocket(client, response, outbox, transport)
        with contextlib.closing(outbox):
            try:
                yield socket
            except MdtoolError as error:  # an answer of HTTP would be no frame
                socket.close(CloseCode.POLICY, str(error))
        await socket.closed()


class _Response(web.WebSocketResponse):
    """A WebSocket that gives the reason where a message is too large, which aiohttp does not."""

    def __init__(self, max_message_bytes: int, subprotocols: Sequence[str]) -> None:
        super().__init__(
            timeout=_CLOSE_S,
            heartbeat=HEARTBEAT_S,
            compress=False,
            protocols=subprotocols,
            max_msg_size=max_message_bytes,
        )
        self.tell_too_large: Callable[[str], None] = lambda _: None
        self._too_large = f"a message takes more than {max_message_bytes:,} bytes"

    async def close(
        self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True
    ) -> bool:
        """Close the connection."""
        if code == WSCloseCode.MESSAGE_TOO_BIG and not self.closed:
            self.tell_too_large(self._too_large)
            message = self._too_large.encode()
        return await super().close(code=code, message=message, drain=drain)
