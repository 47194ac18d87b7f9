"""SockJS: STOMP in messages that also travel over plain HTTP, where proxies block WebSockets.

Source: SockJS-protocol 0.3.3.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from aiohttp import web

from mdtool.services.client import Client
from mdtool.services.gateway.backlog import TOO_LARGE, TOO_MANY, Backlog, Event, Owner, Update
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.parameters import ParameterError
from mdtool.services.gateway.protocols import Paths
from mdtool.services.gateway.protocols.stomp import Connection, Stomp, Wrapping
from mdtool.services.gateway.websockets import WebSocket, websocket
from mdtool.services.http.answers import client_of, failure
from mdtool.services.http.bodies import read_body
from mdtool.wire import sockjs
from mdtool.wire.sockjs import SockJsError
from mdtool.wire.stomp import MAX_FRAME_BYTES
from mdtool.wire.websocket import CloseCode

PATH: Final = "/ws"
_SESSION: Final = f"{PATH}/{{server}}/{{session}}"
EVENTS_PATH: Final = f"{_SESSION}/eventsource"
SESSION_PATHS: Final = frozenset(
    {EVENTS_PATH, *(f"{_SESSION}/{name}" for name in ("xhr_streaming", "xhr", "xhr_send"))}
)
"""The paths of the transports whose sessions span requests."""
MAX_BODY_BYTES: Final = 6 * MAX_FRAME_BYTES
"""The largest body of a client's messages: JSON needs six bytes for some characters."""

_STREAM_BYTES: Final = 128 * 1024
"""The length of a response after which the client requests the next, as browsers store it."""
_MAX_ID_CHARS: Final = 64
_PRELUDE: Final = b"h" * 2_048 + b"\n"
"""Some browsers pass nothing of a streamed response to a page before so many bytes."""
_BEAT_S: Final = 25.0
_POLL_S: Final = 1.0
"""How often a waiting request is checked for a client that has left."""
_ABSENCE_S: Final = 5.0
"""How long a session outlives the last request of its client."""
_BUSY: Final = sockjs.close(2010, "Another connection still open")
"""The answer to a request while another one waits."""
_HEADERS: Final = {
    "Cache-Control": "no-store, no-cache, no-transform, must-revalidate, max-age=0",
    "X-Accel-Buffering": "no",
    # Without Access-Control-Allow-Origin this allows nothing.
    "Access-Control-Allow-Credentials": "true",
}
_COOKIE: Final = "JSESSIONID"
_SCRIPT: Final = "application/javascript; charset=UTF-8"


class SockJs:
    """The transports of SockJS.

    Parameters
    ----------
    config : GatewayConfig
    stomp : Stomp
        The broker that the messages are for.
    """

    def __init__(self, config: GatewayConfig, stomp: Stomp) -> None:
        self._patience_s = config.slow_client_s
        self._has_cookie = config.sockjs_cookie
        self._stomp = stomp
        self._sessions: dict[str, _Session] = {}

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {
            ("GET", f"{_SESSION}/websocket"): self._websocket,
            ("GET", EVENTS_PATH): self._events,
            ("POST", f"{_SESSION}/xhr_streaming"): self._stream,
            ("POST", f"{_SESSION}/xhr"): self._poll,
            ("POST", f"{_SESSION}/xhr_send"): self._send,
            ("GET", f"{PATH}/info"): self._info,
            ("GET", PATH): self._greeting,
            ("GET", f"{PATH}/"): self._greeting,
        }

    async def close(self) -> None:
        """End every session that has no WebSocket."""
        for name in list(self._sessions):
            self._drop(name)

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        """Serve a client over WebSocket, which needs no session."""
        async with websocket(
            request, PATH, self._patience_s, MAX_BODY_BYTES, last_message=sockjs.close
        ) as socket:
            with self._stomp.connected(socket, Wrapping.SOCKJS) as connection:
                socket.on_too_large(connection.fail)
                socket.outbox.post(sockjs.OPEN)
                async for payload in socket:
                    await connection.authenticated()
                    with await socket.client.turn():
                        _receive(socket, connection, payload)
        return socket.response

    async def _greeting(self, _request: web.Request) -> web.Response:
        return _text(b"Welcome to SockJS!\n")

    async def _info(self, _request: web.Request) -> web.Response:
        """Answer with what the client chooses its transport by."""
        info = {
            "websocket": True,
            "cookie_needed": self._has_cookie,
            "origins": ["*:*"],
            "entropy": secrets.randbits(32),
        }
        return _text(json.dumps(info).encode(), "application/json; charset=UTF-8")

    async def _send(self, request: web.Request) -> web.Response:
        """Handle messages from the client."""
        session = self._sessions.get(request.match_info["session"])
        if session is None or not _may_use(session, request):
            return failure(404, "not_found", "no such session")
        payload = await read_body(request, MAX_BODY_BYTES)
        if payload is None:
            return failure(413, "too_large", f"the body takes more than {MAX_BODY_BYTES:,} bytes")
        try:
            messages = sockjs.read_messages(payload)
        except SockJsError as error:
            raise ParameterError(str(error)) from error
        for message in messages:
            await session.connection.authenticated()
            with await session.client.turn():
                if not session.is_over:  # as with its token
                    session.connection.receive(message)
        response = web.Response(status=204, headers={**_HEADERS, "Content-Type": "text/plain"})
        self._mark(request, response)
        return response

    async def _poll(self, request: web.Request) -> web.StreamResponse:
        """Answer with what waits for the client, once there is something."""
        return await self._respond(request, _SCRIPT, most_bytes=1)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Answer with everything for the client, as it comes."""
        return await self._respond(request, _SCRIPT, prelude=_PRELUDE)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Answer with the same as server-sent events."""
        kind = "text/event-stream; charset=UTF-8"
        return await self._respond(request, kind, b"\r\n", before=b"data: ", after=b"\r\n\r\n")

    async def _respond(
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
            return failure(404, "not_found", "no such session")
        session = self._sessions.get(name) or self._open(name, client_of(request))
        if not _may_use(session, request):
            return failure(404, "not_found", "no such session")
        with session.attended() as is_alone:
            response = web.StreamResponse(headers={**_HEADERS, "Content-Type": content_type})
            self._mark(request, response)
            await response.prepare(request)
            await response.write(prelude)
            if not is_alone:
                await response.write(before + _BUSY + after)
                return response
            sent_bytes, is_last = 0, False
            while sent_bytes < most_bytes and not is_last:
                frames, is_last = await session.frames(request)
                chunk = b"".join([before + frame + after for frame in frames])
                sent_bytes += len(chunk)
                try:
                    async with asyncio.timeout(self._patience_s):
                        await response.write(chunk)
                except TimeoutError:
                    session.give_up(f"nothing was read for {self._patience_s:g} s")
                    if request.transport is not None:
                        request.transport.abort()
                    break
                await session.client.pay(len(chunk))
        return response

    def _mark(self, request: web.Request, response: web.StreamResponse) -> None:
        """Set the cookie by which load balancers send a session's requests to one gateway."""
        if self._has_cookie:
            response.set_cookie(_COOKIE, request.cookies.get(_COOKIE, "dummy"), path="/")

    def _open(self, name: str, client: Client) -> _Session:
        """Begin a session."""
        session = _Session(client, self._stomp, lambda: self._drop(name))
        self._sessions[name] = session
        return session

    def _drop(self, name: str) -> None:
        """End a session."""
        session = self._sessions.pop(name, None)
        if session is not None:
            session.drop()


class _Session:
    """A session without WebSocket: its client fetches what waits, request by request.

    Parameters
    ----------
    client : Client
        It counts as connected while the session lasts.
    stomp : Stomp
    expire : callable
        Called once the client has made no request for too long.

    Attributes
    ----------
    connection : Connection
    """

    def __init__(self, client: Client, stomp: Stomp, expire: Callable[[], None]) -> None:
        self.client = client
        self._expire = expire
        self._backlog = Backlog()
        self._backlog.add(sockjs.OPEN)
        self._last_frame: bytes | None = None
        self._has_more = asyncio.Event()
        self._is_attended = False
        self._expiry: asyncio.TimerHandle | None = None
        self._ending = contextlib.ExitStack()
        self._tally = self._ending.enter_context(client.connected(PATH, self.close))
        self.connection = self._ending.enter_context(stomp.connected(self, Wrapping.SOCKJS))

    @property
    def is_over(self) -> bool:
        """Whether nothing follows but what waits for the client: what it sends is not handled."""
        return self._last_frame is not None

    @property
    def outbox(self) -> _Session:
        """The session itself, which stores its frames."""
        return self

    def header(self, _length: int) -> bytes:
        """Return what precedes a frame: nothing."""
        return b""

    def send(self, update: Update) -> None:
        """Keep the latest of a state, or an event."""
        if self._last_frame is None:
            replaced = self._backlog.keep(*update)
            if isinstance(update[1], Event):
                self._tally.dropped += replaced
            else:
                self._tally.conflated += replaced
            if self._backlog.is_too_large:
                self.give_up(TOO_LARGE)
            else:
                self._has_more.set()

    def send_all(self, updates: Sequence[Update]) -> None:
        """Store several updates."""
        for update in updates:
            self.send(update)

    def post(self, text: bytes) -> None:
        """Keep a message; the session of a client with too many of them ends."""
        if self._last_frame is None:
            if self._backlog.add(text):
                self._has_more.set()
            else:
                self.give_up(TOO_MANY)

    def forget(self, owner: Owner) -> None:
        """Drop the updates of an owner."""
        self._backlog.forget(owner)

    def close(self, code: int, reason: str) -> None:
        """Send what waits, and then that the session is over."""
        if self._last_frame is None:
            self._last_frame = sockjs.close(code, reason)
            self._has_more.set()
            self._schedule_expiry()

    def give_up(self, reason: str) -> None:
        """End the session of a client that does not read."""
        if self._last_frame is None:
            self._tally.behind += 1
            self._backlog.clear()
            self.close(CloseCode.BEHIND, reason)

    def drop(self) -> None:
        """End the session for good."""
        self.close(CloseCode.NORMAL, "")
        if self._expiry is not None:
            self._expiry.cancel()
        self._ending.close()

    @contextlib.contextmanager
    def attended(self) -> Iterator[bool]:
        """Have a request wait within the block; yield whether it is the only one."""
        if self._is_attended:
            yield False
            return
        self._is_attended = True
        if self._expiry is not None and not self.is_over:
            self._expiry.cancel()
        try:
            yield True
        finally:
            self._is_attended = False
            if not self.is_over:
                self._schedule_expiry()

    def _schedule_expiry(self) -> None:
        """Have the session dropped after a while; one that is over is not extended by requests."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = asyncio.get_running_loop().call_later(_ABSENCE_S, self._expire)

    async def frames(self, request: web.Request) -> tuple[Sequence[bytes], bool]:
        """Return what waits, as soon as there is something, and whether that is the last.

        There is nothing for a client that has left, and that is the last.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while loop.time() - began_s < _BEAT_S:
            self._has_more.clear()
            if frames := self._backlog.take():
                self._tally.sent += len(frames)
                return frames, False
            if self._last_frame is not None:
                return [self._last_frame], True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await self._has_more.wait()
            if request.transport is None or request.transport.is_closing():
                return [], True
        return [sockjs.BEAT], False


def _may_use(session: _Session, request: web.Request) -> bool:
    """Return whether a request names no other principal than its session has."""
    client, owner = client_of(request), session.client
    if not (client.is_authenticated and owner.is_authenticated):
        return True  # the session's name, which cannot be guessed, is what the client has
    return client.principal.name == owner.principal.name


def _receive(socket: WebSocket, connection: Connection, payload: str | bytes) -> None:
    try:
        for message in sockjs.read_messages(payload) if payload else ():
            connection.receive(message)
    except SockJsError as error:
        socket.close(CloseCode.POLICY, str(error))


def _text(body: bytes, content_type: str = "text/plain; charset=UTF-8") -> web.Response:
    return web.Response(body=body, headers={**_HEADERS, "Content-Type": content_type})
