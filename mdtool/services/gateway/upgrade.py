"""Requests that become WebSockets, and the messages of their clients until they are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Self

from aiohttp import WSCloseCode, WSMsgType, web

from mdtool.services.http.answers import HeadedError

HEARTBEAT_S: Final = 20.0
"""How often clients are pinged; who leaves one unanswered for half of that is cut off."""
CLOSE_S: Final = 1.0
"""How long a client may take to answer a close."""
_DATA: Final = frozenset({WSMsgType.TEXT, WSMsgType.BINARY})


class UpgradeRequiredError(HeadedError):
    """A request is no proper one for a WebSocket, which is all that there is at its path."""


class Socket(web.WebSocketResponse):
    """A WebSocket that says what is wrong where a message is too large, which aiohttp does not.

    Parameters
    ----------
    max_message_bytes : int
    protocols : sequence of str

    Attributes
    ----------
    tell_too_large : callable
        Given a reason before the connection is closed for that; to be set by whose protocol has a
        way to tell of it.
    """

    def __init__(self, max_message_bytes: int, protocols: Sequence[str]) -> None:
        super().__init__(
            timeout=CLOSE_S,
            heartbeat=HEARTBEAT_S,
            compress=False,
            protocols=protocols,
            max_msg_size=max_message_bytes,
        )
        self.tell_too_large: Callable[[str], None] = _tell_nobody
        self._too_large = f"a message takes more than {max_message_bytes:,} bytes"

    async def close(
        self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True
    ) -> bool:
        """Close the connection."""
        if code == WSCloseCode.MESSAGE_TOO_BIG and not self.closed:
            self.tell_too_large(self._too_large)
            message = self._too_large.encode()
        return await super().close(code=code, message=message, drain=drain)


def websocket(
    request: web.Request, max_message_bytes: int, protocols: Sequence[str] = ()
) -> Socket:
    """Return what a request is answered with that asks for a WebSocket, yet to be prepared.

    Parameters
    ----------
    request : web.Request
    max_message_bytes : int
        Who says more at once is closed.
    protocols : sequence of str
        The subprotocols that there are; the client's favourite among them is chosen.

    Raises
    ------
    UpgradeRequiredError
        When it does not ask for one.
    """
    socket = Socket(max_message_bytes, protocols)
    if not socket.can_prepare(request):
        message = f"{request.path} speaks WebSocket only"
        raise UpgradeRequiredError(message, {"Upgrade": "websocket"})
    return socket


class ClientMessages:
    """An async iterator of a client's messages, text or binary, until it closes or is gone.

    Others have their turn between one message and the next, for much may come at once. Who leaves
    pings unanswered, or sends what is no WebSocket frame, is gone too.
    """

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        await asyncio.sleep(0)
        try:
            message = await self._socket.receive()
        except ConnectionError:  # the answer to a ping cannot be written
            raise StopAsyncIteration from None
        if message.type not in _DATA:
            raise StopAsyncIteration
        data: str | bytes = message.data
        return data


def _tell_nobody(_reason: str) -> None:
    pass
