"""SockJS over HTTP: what its clients fall back on behind proxies that know no WebSocket.

Source: SockJS-protocol 0.3.3.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from typing import Final, NamedTuple

from aiohttp import web

from mdtool.services.gateway.limits import SocketLimit
from mdtool.services.gateway.parameters import ParameterError
from mdtool.services.gateway.stomp.connections import Connections
from mdtool.services.gateway.stomp.mailbox import BUSY, Mailbox
from mdtool.services.gateway.stomp.messages import Wrapping
from mdtool.services.gateway.tallies import SocketTally
from mdtool.services.gateway.time_share import TimeShare
from mdtool.services.http.answers import failure
from mdtool.services.http.bodies import read_body
from mdtool.wire import sockjs
from mdtool.wire.sockjs import SockJsError
from mdtool.wire.stomp import MAX_FRAME_BYTES

MAX_BODY_BYTES: Final = 6 * MAX_FRAME_BYTES
"""Of what a client says at once: JSON makes six bytes of some."""
_STREAM_BYTES: Final = 128 * 1024
"""What one response streams before the client asks for the next, for browsers keep all of it."""
_MAX_ID_CHARS: Final = 64
_PRELUDE: Final = b"h" * 2_048 + b"\n"
"""Before so many bytes, some browsers show a page nothing of a response that goes on."""

_HEADERS: Final = {
    "Cache-Control": "no-store, no-cache, no-transform, must-revalidate, max-age=0",
    # To whom Access-Control-Allow-Origin allows nothing, this allows nothing either.
    "Access-Control-Allow-Credentials": "true",
}
_SCRIPT: Final = "application/javascript; charset=UTF-8"


class SockJsHttp:
    """The handlers of all transports but WebSocket.

    Parameters
    ----------
    connections : Connections
        Who is connected.
    patience_s : float
        How long a client may leave what it is told unread.
    limit : SocketLimit
        How many sessions there may be: each is as much as a WebSocket.
    time_share : TimeShare
        Each client's, for what it says.
    tally : SocketTally
        Where clients are counted.
    """

    def __init__(
        self,
        connections: Connections,
        patience_s: float,
        limit: SocketLimit,
        time_share: TimeShare,
        tally: SocketTally,
    ) -> None:
        self._connections = connections
        self._patience_s = patience_s
        self._limit = limit
        self._time_share = time_share
        self._tally = tally
        self._sessions: dict[str, _Session] = {}

    async def greeting(self, _request: web.Request) -> web.Response:
        """`GET /ws`."""
        return _text(b"Welcome to SockJS!\n")

    async def info(self, _request: web.Request) -> web.Response:
        """`GET /ws/info`: what the client chooses its transport by."""
        info = {
            "websocket": True,
            "cookie_needed": False,
            "origins": ["*:*"],
            "entropy": secrets.randbits(32),
        }
        return _text(json.dumps(info).encode(), "application/json; charset=UTF-8")

    async def send(self, request: web.Request) -> web.Response:
        """`POST /ws/{server}/{session}/xhr_send`: what the client says."""
        session = self._sessions.get(request.match_info["session"])
        if session is None:
            return failure(404, "not_found", "there is no such session")
        payload = await read_body(request, MAX_BODY_BYTES)
        if payload is None:
            return failure(413, "too_large", f"the body takes more than {MAX_BODY_BYTES:,} bytes")
        try:
            messages = sockjs.read_messages(payload)
        except SockJsError as error:
            raise ParameterError(str(error)) from error
        for message in messages:
            with await self._time_share.turn():
                session.mailbox.connection.receive(message, asyncio.get_running_loop().time())
        return web.Response(status=204, headers={**_HEADERS, "Content-Type": "text/plain"})

    async def poll(self, request: web.Request) -> web.StreamResponse:
        """`POST /ws/{server}/{session}/xhr`: what there is to tell, once there is something."""
        return await self._tell(request, _SCRIPT, most_bytes=1)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """`POST /ws/{server}/{session}/xhr_streaming`: whatever there is to tell."""
        return await self._tell(request, _SCRIPT, prelude=_PRELUDE)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """`GET /ws/{server}/{session}/eventsource`: the same as server-sent events."""
        kind = "text/event-stream; charset=UTF-8"
        return await self._tell(request, kind, b"\r\n", before=b"data: ", after=b"\r\n\r\n")

    def close(self) -> None:
        """Forget every session."""
        for name in list(self._sessions):
            self._drop(name)

    async def _tell(
        self,
        request: web.Request,
        content_type: str,
        prelude: bytes = b"",
        most_bytes: int = _STREAM_BYTES,
        before: bytes = b"",
        after: bytes = b"\n",
    ) -> web.StreamResponse:
        """Answer with frames, each between `before` and `after`, until there are `most_bytes`."""
        name = request.match_info["session"]
        if len(name) > _MAX_ID_CHARS:
            return failure(404, "not_found", "there is no such session")
        session = self._sessions.get(name)
        mailbox = self._open(name) if session is None else session.mailbox
        with mailbox.attended() as attended:
            response = web.StreamResponse(headers={**_HEADERS, "Content-Type": content_type})
            await response.prepare(request)
            await response.write(prelude)
            if attended is None:
                await response.write(before + BUSY + after)
                return response
            told_bytes, is_all = 0, False
            while told_bytes < most_bytes and not is_all:
                frames, is_all = await mailbox.frames(request)
                chunk = b"".join([before + frame + after for frame in frames])
                told_bytes += len(chunk)
                try:
                    async with asyncio.timeout(self._patience_s):
                        await response.write(chunk)
                except TimeoutError:
                    mailbox.give_up(f"nothing was read for {self._patience_s:g} s")
                    if request.transport is not None:
                        request.transport.abort()
                    break
        return response

    def _open(self, name: str) -> Mailbox:
        """Begin a session."""
        mailbox = Mailbox(self._tally, lambda: self._drop(name))
        ending = contextlib.ExitStack()
        ending.enter_context(self._limit.opened(self._tally))
        ending.callback(mailbox.close)
        mailbox.connection = ending.enter_context(
            self._connections.opened(mailbox, Wrapping.SOCKJS, mailbox.end)
        )
        self._sessions[name] = _Session(mailbox, ending)
        return mailbox

    def _drop(self, name: str) -> None:
        """End a session."""
        self._sessions.pop(name).ending.close()


class _Session(NamedTuple):
    mailbox: Mailbox
    ending: contextlib.ExitStack


def _text(body: bytes, content_type: str = "text/plain; charset=UTF-8") -> web.Response:
    return web.Response(body=body, headers={**_HEADERS, "Content-Type": content_type})
