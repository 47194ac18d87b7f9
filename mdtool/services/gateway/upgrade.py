"""Requests that become WebSockets, and what their clients say until they are gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aiohttp import WSMsgType, web

from mdtool.services.http.answers import HeadedError

HEARTBEAT_S: Final = 20.0
"""How often clients are pinged; who leaves one unanswered for half of that is cut off."""
CLOSE_S: Final = 1.0
"""How long a client may take to answer a close."""
SAID: Final = frozenset({WSMsgType.TEXT, WSMsgType.BINARY})
"""The types of messages in which clients say something. One that is cut off is an ERROR."""


class UpgradeRequiredError(HeadedError):
    """A request is no proper one for a WebSocket, which is all that there is at its path."""


def websocket(
    request: web.Request, max_message_bytes: int, protocols: Sequence[str] = ()
) -> web.WebSocketResponse:
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
    socket = web.WebSocketResponse(
        timeout=CLOSE_S,
        heartbeat=HEARTBEAT_S,
        compress=False,
        protocols=protocols,
        max_msg_size=max_message_bytes,
    )
    if not socket.can_prepare(request):
        message = f"{request.path} speaks WebSocket only"
        raise UpgradeRequiredError(message, {"Upgrade": "websocket"})
    return socket
