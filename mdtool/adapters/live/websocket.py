"""A source over a WebSocket: connected, kept alive, reconnected, and read as a DBN stream.

The connection has an event loop in a thread of its own. What has come is encoded when it is read,
so that under load more of it is encoded together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import aiohttp
from yarl import URL

from mdtool.adapters.live.connections import Connections
from mdtool.adapters.live.event_stream import EventStream
from mdtool.adapters.live.port import Request, Session
from mdtool.adapters.live.recording import Recorder
from mdtool.core.backoff import delays
from mdtool.core.errors import PeerError
from mdtool.wire.source_stream import (
    Event,
    Failed,
    Lost,
    Lot,
    Malformed,
    Note,
    Postponed,
    Rejected,
    Send,
    Subscribed,
)

log = logging.getLogger(__name__)

_CONNECT_S: Final = 10.0
_CLOSE_S: Final = 1.0
"""How long the server may take to answer that the connection is to be closed."""
_MAX_MESSAGE_BYTES: Final = 64 << 20
"""Exchanges describe all of their instruments in one message."""
_MAX_WAITING: Final = 100_000
"""Messages that wait for the reader, after which the connection is not read."""
_OF_THE_KEYS: Final = frozenset({401, 403})
_REJECTED: Final = _OF_THE_KEYS | {451}
"""Statuses that would come again; 451 is of a source that does not serve this country."""
_WITH_A_MESSAGE: Final = frozenset({200, 400})
"""Statuses of answers in which the source says what is wrong, or nothing is."""
_MAX_SHOWN_CHARS: Final = 200
_MAX_WARNED: Final = 1000
_TEXTS: Final = frozenset({aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY})


class WebSocketSource:
    """A source that speaks JSON over a WebSocket.

    Parameters
    ----------
    kind : type of Session
    request : Request

    Raises
    ------
    OutputError
        When the folder to record in cannot be written.
    """

    def __init__(self, kind: type[Session], request: Request) -> None:
        self.name = kind.name
        self._request = request
        config = request.config
        start_ns = time.time_ns()
        self._connections = Connections(kind, request)
        self._recorder = Recorder(config.record, kind.name, request.symbols, start_ns)
        self._stream = EventStream(kind, config, start_ns)
        self.counts: Counter[str] = self._stream.counts
        self._arrived: list[tuple[int, Sequence[Event]]] = []
        self._has_news = threading.Condition()
        self._is_over = False
        self._error: BaseException | None = None
        self._warned: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._has_room = asyncio.Event()
        self._postponed: set[asyncio.Task[None]] = set()
        self._postpone_waits = delays(cap_s=config.max_wait_s)
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._task = self._loop.create_task(self._follow())
        self._thread.start()

    def read(self, n_bytes: int) -> bytes:
        """As `LiveSource.read`."""
        return self._stream.read(n_bytes, self._take)

    def end(self) -> None:
        """As `LiveSource.end`."""
        self._call(self._task.cancel)

    def close(self) -> None:
        """As `LiveSource.close`."""
        self.end()
        self._thread.join()

    def _take(self) -> bool:
        """Wait for messages, and have them encoded; return False at the end."""
        with self._has_news:
            while not self._arrived and not self._is_over:
                self._has_news.wait()
            arrived, self._arrived = self._arrived, []
        if not arrived:
            if self._error is not None:
                raise self._error
            return False
        if len(arrived) >= _MAX_WAITING:
            self._call(self._has_room.set)
        for ts_ns, events in arrived:
            self._stream.add(events, ts_ns)
        return True

    def _call(self, function: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised by `read`
            self._error = error
        finally:
            self._recorder.close()
            self._loop.close()
            with self._has_news:
                self._is_over = True
                self._has_news.notify_all()

    async def _follow(self) -> None:
        """Connect, again and again."""
        max_wait_s = self._request.config.max_wait_s
        waits = delays(cap_s=max_wait_s)
        while True:
            begun_s, least_s = self._loop.time(), 0.0
            try:
                await self._hold_connection()
            except aiohttp.ClientResponseError as error:
                if error.status in _REJECTED:
                    is_for_keys = error.status in _OF_THE_KEYS
                    said = self._rejected(f"status {error.status}", is_for_keys=is_for_keys)
                    raise PeerError(said) from None
                reason = f"answered status {error.status}"
                least_s = min(_retry_after_s(error), max_wait_s)
            except TimeoutError:
                reason = "no answer"
            except (aiohttp.ClientError, OSError) as error:
                reason = self._hidden(str(error) or type(error).__name__)
            # One that is accepted and lost at once, again and again, is no success.
            if self._loop.time() - begun_s > max_wait_s:
                waits = delays(cap_s=max_wait_s)
            now_ns = time.time_ns()
            self._recorder.lost(now_ns, reason)
            await self._pass_on(now_ns, self._connections.lost(reason))
            log.warning("%s: %s; connecting again", self.name, reason)
            await asyncio.sleep(max(next(waits), least_s))

    async def _hold_connection(self) -> None:
        """Hold one connection until it is lost.

        Raises
        ------
        PeerError
            When the source does not serve this client.
        aiohttp.ClientError, OSError
            When there is no connection, or no longer.
        """
        to_send = await self._opened()
        session, max_wait_s = self._connections.session, self._request.config.max_wait_s
        timeout = aiohttp.ClientTimeout(total=None, connect=_CONNECT_S, sock_connect=_CONNECT_S)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as http:
            if session.lots_url is not None:
                to_send += await self._received_lots(http, self._at(session.lots_url))
            async with asyncio.timeout(_CONNECT_S):
                socket = await http.ws_connect(
                    self._at(session.url),
                    autoping=False,
                    max_msg_size=_MAX_MESSAGE_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),
                )
            self._socket, self._postpone_waits = socket, delays(cap_s=max_wait_s)
            try:
                async with socket:
                    while True:
                        for text in to_send:
                            await socket.send_str(text)
                        to_send = await self._received(await self._next_message(socket))
            finally:
                postponed = list(self._postponed)
                for task in postponed:
                    task.cancel()
                await asyncio.gather(*postponed, return_exceptions=True)

    async def _received_lots(self, http: aiohttp.ClientSession, url: URL) -> list[str]:
        """Request the lots; return what to send.

        Raises
        ------
        PeerError
            When the source rejects the symbols.
        aiohttp.ClientError
            When its answer has no lots: without these, no size could be understood.
        """
        async with asyncio.timeout(_CONNECT_S), http.get(url) as answer:
            if answer.status not in _WITH_A_MESSAGE:
                answer.raise_for_status()
            text = await answer.text()
        now_ns = time.time_ns()
        self._recorder.received(now_ns, text)
        events = self._connections.received(text)
        to_send = await self._pass_on(now_ns, events)
        if not any(isinstance(event, Lot) for event in events):
            raise aiohttp.ClientError("its answer about instruments is not as expected")
        return to_send

    async def _opened(self) -> list[str]:
        """Begin a session; return what to send."""
        now_ns = time.time_ns()
        self._recorder.opened(now_ns)
        return await self._pass_on(now_ns, self._connections.opened())

    async def _received(self, text: str) -> list[str]:
        """Take a message; return what to send in answer."""
        now_ns = time.time_ns()
        self._recorder.received(now_ns, text)
        return await self._pass_on(now_ns, self._connections.received(text))

    async def _pass_on(self, ts_ns: int, events: Sequence[Event]) -> list[str]:
        """Pass events on to the reader, and do what they ask for; return what they send.

        Raises
        ------
        PeerError
            When the source does not serve this client.
        aiohttp.ClientError
            When it asks to connect again.
        """
        if not events:
            return []
        with self._has_news:
            self._arrived.append((ts_ns, events))
            self._has_news.notify()
            is_full = len(self._arrived) >= _MAX_WAITING
        if is_full:
            self._has_room.clear()
            await self._has_room.wait()
        to_send = []
        for event in events:
            match event:
                case Send(text):
                    to_send.append(text)
                case Postponed(text, reason):
                    self._warn(f"a subscription is requested again later ({reason})")
                    task = self._loop.create_task(self._send_later(text))
                    self._postponed.add(task)
                    task.add_done_callback(self._postponed.discard)
                case Subscribed():
                    log.info("%s: subscribed", self.name)
                case Rejected(symbol, reason):
                    self._warn(f"{symbol or 'a subscription'} was rejected ({reason})")
                case Malformed(message):
                    self._warn(f"skipped a message that is not valid: {message!r}", "malformed")
                case Note(text):
                    log.info("%s: %s", self.name, self._hidden(text))
                case Lost(reason):
                    raise aiohttp.ClientError(reason)
                case Failed(reason, is_for_keys):
                    raise PeerError(self._rejected(reason, is_for_keys=is_for_keys))
        return to_send

    async def _send_later(self, text: str) -> None:
        """Send a message on this connection after a wait."""
        await asyncio.sleep(next(self._postpone_waits))
        if self._socket is not None:
            with contextlib.suppress(aiohttp.ClientError, OSError):  # which the reader is told too
                await self._socket.send_str(text)

    async def _next_message(self, socket: aiohttp.ClientWebSocketResponse) -> str:
        """Return the next text. A connection that does not answer a ping is lost."""
        silence_s = self._request.config.silence_s
        is_pinged = False
        while True:
            try:
                message = await socket.receive(silence_s / 2)
            except TimeoutError:
                if is_pinged:
                    raise aiohttp.ClientError(f"silent for {silence_s:g} s") from None
                await socket.ping()
                is_pinged = True
                continue
            is_pinged = False
            if message.type in _TEXTS:
                data = message.data
                return data if isinstance(data, str) else data.decode("utf-8", "replace")
            if message.type == aiohttp.WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type == aiohttp.WSMsgType.ERROR:
                raise aiohttp.ClientError(str(message.data))
            elif message.type != aiohttp.WSMsgType.PONG:
                said = f", {message.extra}" if message.extra else ""
                raise aiohttp.ClientError(f"closed by the server ({socket.close_code}{said})")

    def _at(self, url: str) -> URL:
        """Return a URL of the source, or the same at the server that the settings name."""
        there, here = URL(url), self._request.config.url
        if not here:
            return there
        server = URL(here)
        scheme = "http" if there.scheme.startswith("http") else "ws"
        is_secure = server.scheme in {"wss", "https"}
        moved = there.with_host(server.host or "").with_port(server.port)
        return moved.with_scheme(scheme + "s" * is_secure)

    def _rejected(self, reason: str, *, is_for_keys: bool) -> str:
        names = self._connections.session.keys
        hint = f"; check {' and '.join(names)}" if names and is_for_keys else ""
        return f"{self.name}: rejected ({self._hidden(reason)}){hint}"

    def _hidden(self, text: str) -> str:
        """Return a text of the source as a short line without the keys."""
        for key in self._request.keys.values():
            text = text.replace(key, "***")
        shown = text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}..."
        return "".join(char if char.isprintable() else " " for char in shown)

    def _warn(self, text: str, topic: str | None = None) -> None:
        """Log a warning, once for each topic."""
        if (topic or text) not in self._warned and len(self._warned) < _MAX_WARNED:
            self._warned.add(topic or text)
            log.warning("%s: %s", self.name, self._hidden(text))


def _retry_after_s(error: aiohttp.ClientResponseError) -> float:
    """Return how long a server asks to wait, 0 where it does not say."""
    said = error.headers.get("Retry-After", "") if error.headers else ""
    return float(said) if said.isascii() and said.isdigit() else 0.0
