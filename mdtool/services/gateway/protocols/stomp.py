"""STOMP: topics of every feed, and signals; raw over WebSocket at `/ws/websocket`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from aiohttp import web

from mdtool.adapters.identity.errors import TokenError, UnknownKeyError
from mdtool.core.errors import MdtoolError
from mdtool.services.client import Client
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.feeds import Feeds
from mdtool.services.gateway.feeds.feed import ALL, Key
from mdtool.services.gateway.fields import encode_missed, encoder
from mdtool.services.gateway.hub import Outlet, Subscription
from mdtool.services.gateway.parameters import ParameterError, parse_symbol
from mdtool.services.gateway.protocols import Paths
from mdtool.services.gateway.table import FeedRow
from mdtool.services.gateway.websockets import websocket
from mdtool.services.limits import LimitError
from mdtool.wire import sockjs
from mdtool.wire.stomp import MAX_FRAME_BYTES, StompError, Version, encode_headers
from mdtool.wire.stomp_session import StompSession, StompSubscription
from mdtool.wire.websocket import CloseCode

PATH: Final = "/ws/websocket"
_SUBPROTOCOLS: Final = ("v12.stomp", "v11.stomp", "v10.stomp")
_MAX_MESSAGE_BYTES: Final = 2 * MAX_FRAME_BYTES
"""Twice the longest frame: the client of a frame that is too long still gets an ERROR."""
SIGNALING: Final = "signaling"
"""The right to enter the rooms of signaling."""
"""The name by which roles have the rooms of WebRTC peers among their feeds."""
_AUTHORIZATION: Final = "Authorization"
_TOKENS: Final = "/app/auth"
"""Where a client sends a newer token, as the body."""
_TICKS_A_BEAT: Final = 8
_LONGEST_TICK_S: Final = 1.0
_REST: Final = b"message-id:%d\n%bcontent-type:application/json\ncontent-length:%d\n\n%b\0"
_NUMBERS: Final = itertools.count(1)


class Wrapping(Enum):
    """How STOMP travels: as it is over WebSocket, or in the messages of SockJS."""

    NONE = "none"
    SOCKJS = "sockjs"

    def whole(self, frame: bytes) -> bytes:
        """Return the text of a frame."""
        return frame if self is Wrapping.NONE else sockjs.message(frame)

    def start(self, head: bytes) -> bytes:
        """Return the text of a frame's beginning."""
        if self is Wrapping.NONE:
            return head
        return sockjs.MESSAGE_START + sockjs.escape(head)

    def end(self, rest: bytes) -> bytes:
        """Return the text of what follows that beginning."""
        if self is Wrapping.NONE:
            return rest
        return sockjs.escape(rest) + sockjs.MESSAGE_END


class Dialect(NamedTuple):
    """What MESSAGE frames have in common for all clients that are written to alike.

    Attributes
    ----------
    wrapping : Wrapping
    version : Version
        1.0 or 1.2: no destination has what 1.1 and 1.2 escape differently.
    """

    wrapping: Wrapping
    version: Version

    def message(self, destination: str, body: bytes, number: int) -> bytes:
        """Return what follows the head of a subscription, to the end of the frame.

        Parameters
        ----------
        destination : str
        body : bytes
            JSON.
        number : int
            The message's identity, which no other one of the process has.
        """
        of = encode_headers({"destination": destination}, self.version)
        rest = _REST % (number, of, len(body), body)
        return self.wrapping.end(rest)


@dataclass(frozen=True, slots=True)
class StompFormat:
    """MESSAGE frames of a feed. Those with the same destinations and dialect are equal.

    Attributes
    ----------
    dialect : Dialect
    destination : str
        See FeedRow.
    option : str
        What destinations end with, such as `/1m`.
    body : callable
        Returns the JSON of a row.
    """

    dialect: Dialect
    destination: str
    option: str
    body: Callable[[Any], bytes] = field(compare=False)

    def encode(self, row: Any, is_snapshot: bool = False) -> bytes:  # noqa: ARG002 - alike
        """Return the end of the frame of a row."""
        return self._message(row.symbol, self.body(row))

    def missed(self, symbol: str, count: int | None) -> bytes:
        """Return the end of the frame that events were dropped."""
        return self._message(symbol, encode_missed(symbol, count))

    def _message(self, symbol: str, body: bytes) -> bytes:
        destination = self.destination
        if destination.endswith("/"):
            destination = f"{destination}{symbol}{self.option}"
        return self.dialect.message(destination, body, next(_NUMBERS))


class Writer(Outlet, Protocol):
    """The writing side of a connection."""

    def post(self, text: bytes) -> None:
        """Write a message, or keep it, without waiting."""
        ...


class Carrier(Protocol):
    """What carries a client's frames: a WebSocket, or the requests of a SockJS session."""

    @property
    def client(self) -> Client:
        """The client that gets the frames."""
        ...

    @property
    def outbox(self) -> Writer:
        """The outbox of the frames."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Write everything and close."""
        ...


class Relay(Protocol):
    """A topic on which clients receive what other clients send.

    Attributes
    ----------
    topic, destination : str
        What clients subscribe and send to; a name may follow, after a slash.
    """

    topic: str
    destination: str

    def follow(self, name: str, member: Member) -> Callable[[], None]:
        """Relay what is sent to a name to a subscription; return what ends that."""
        ...

    def send(self, name: str, connection: Connection, body: bytes) -> None:
        """Relay what a client sends; raise a MdtoolError to reject it."""
        ...

    def forget(self, connection: Connection) -> None:
        """Drop a client that is disconnected; its subscriptions have ended."""
        ...


class Connection:
    """A STOMP client, whatever carries its frames: its session and its subscriptions.

    Parameters
    ----------
    stomp : Stomp
    carrier : Carrier
    wrapping : Wrapping

    Attributes
    ----------
    name : str
        Random, so that it cannot be guessed.
    """

    __slots__ = (
        *("_authenticating", "_ends", "_has_ended", "_session", "_stomp"),
        *("carrier", "name", "wrapping"),
    )

    def __init__(self, stomp: Stomp, carrier: Carrier, wrapping: Wrapping) -> None:
        self._stomp = stomp
        self.carrier = carrier
        self.wrapping = wrapping
        self.name = secrets.token_hex(8)
        self._ends: dict[str, Callable[[], None]] = {}
        self._has_ended = False
        self._authenticating: set[asyncio.Task[None]] = set()
        self._session = StompSession(
            self, self._write, self.name, asyncio.get_running_loop().time(), stomp.heart_beat_s
        )

    def receive(self, data: str | bytes) -> None:
        """Handle what came from the client, in pieces of any size."""
        data = data.encode() if isinstance(data, str) else data
        self._session.receive(data, asyncio.get_running_loop().time())
        self._close_if_over()

    def tick(self, now_s: float) -> None:
        """Send a heart-beat if it is due, and end the session of a silent client."""
        self._session.tick(now_s)
        self._close_if_over()

    def fail(self, message: str) -> None:
        """End the session with an ERROR."""
        self._session.fail(message)
        self._close_if_over()

    def close(self) -> None:
        """End all subscriptions: the client is disconnected."""
        self._has_ended = True
        for task in self._authenticating:
            task.cancel()
        self._session.close()
        self._stomp.relay.forget(self)

    def connect(self, headers: Mapping[str, str]) -> None:
        """Admit the client by its token; the session calls this, and the three below."""
        client = self.carrier.client
        if client.security is None:
            return
        text = headers.get(_AUTHORIZATION) or headers.get(_AUTHORIZATION.lower())
        if text:
            self.authenticate(client.bearer([text]))
        else:
            client.check_token()

    def authenticate(self, token: str) -> None:
        """Take a token; the client's next frames wait where the issuer's keys are read for it."""
        try:
            self.carrier.client.authenticate(token)
        except UnknownKeyError:
            self._session.hold()
            task = asyncio.get_running_loop().create_task(self._authenticate_later(token))
            self._authenticating.add(task)
            task.add_done_callback(self._authenticating.discard)

    async def _authenticate_later(self, token: str) -> None:
        why: MdtoolError | None = None
        try:
            await self.carrier.client.authenticate_now(token)
        except (TokenError, LimitError) as error:
            why = error
        self._session.resume(asyncio.get_running_loop().time(), why)
        self._close_if_over()

    async def authenticated(self) -> None:
        """Wait until what the client sent before is handled."""
        while self._authenticating:
            await asyncio.wait(self._authenticating)

    def subscribe(self, wanted: StompSubscription) -> None:
        """Begin a subscription."""
        self._ends[wanted.key] = self._stomp.follow(self, wanted)

    def unsubscribe(self, wanted: StompSubscription) -> None:
        """End a subscription."""
        self._ends.pop(wanted.key)()

    def send(self, destination: str, body: bytes) -> None:
        """Relay what the client sends."""
        self._stomp.send(self, destination, body)

    def _write(self, frame: bytes) -> None:
        self.carrier.outbox.post(self.wrapping.whole(frame))

    def _close_if_over(self) -> None:
        if self._session.is_over and not self._has_ended:
            self._has_ended = True
            error = self._session.error
            if error is None:
                self.carrier.close(CloseCode.NORMAL, "disconnected")
            else:
                is_token = isinstance(self._session.cause, TokenError)
                code = CloseCode.UNAUTHORIZED if is_token else CloseCode.PROTOCOL_ERROR
                self.carrier.close(code, error)


class Member:
    """A subscription to what other clients send."""

    __slots__ = ("_head", "connection", "dialect")

    def __init__(self, connection: Connection, wanted: StompSubscription) -> None:
        self.connection = connection
        self.dialect = _dialect(connection, wanted)
        self._head = connection.wrapping.start(wanted.head)

    def post(self, message: bytes) -> None:
        """Write a message of its dialect."""
        self.connection.carrier.outbox.post(self._head + message)


class Stomp:
    """The broker, and its raw WebSockets.

    Parameters
    ----------
    config : GatewayConfig
    feeds : Feeds
    relay : Relay

    Attributes
    ----------
    heart_beat_s : float
        How often clients and the gateway beat, 0 is never.
    """

    def __init__(self, config: GatewayConfig, feeds: Feeds, relay: Relay) -> None:
        self.heart_beat_s = config.stomp_heart_beat_ms / 1_000
        self.relay = relay
        self._patience_s = config.slow_client_s
        self._feeds = feeds
        self._bodies = {row.name: row.stomp_encode or encoder(row.fields) for row in feeds.rows}
        self._open: set[Connection] = set()

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {("GET", PATH): self._serve}

    async def run(self) -> None:
        """Keep connections alive until cancelled."""
        tick_s = min(_LONGEST_TICK_S, self.heart_beat_s / _TICKS_A_BEAT or _LONGEST_TICK_S)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(tick_s)
            for connection in list(self._open):
                connection.tick(loop.time())

    @contextlib.contextmanager
    def connected(self, carrier: Carrier, wrapping: Wrapping) -> Iterator[Connection]:
        """Connect a client within the block."""
        connection = Connection(self, carrier, wrapping)
        self._open.add(connection)
        try:
            yield connection
        finally:
            self._open.discard(connection)
            connection.close()

    def follow(self, connection: Connection, wanted: StompSubscription) -> Callable[[], None]:
        """Begin a subscription; return what ends it.

        Raises
        ------
        MdtoolError
            When there is no such destination, or the client exceeds a limit.
        """
        destination = wanted.destination
        room = _name_below(self.relay.topic, destination)
        if room is not None:
            connection.carrier.client.check_right(SIGNALING, f"SUBSCRIBE {destination}")
            return self.relay.follow(room, Member(connection, wanted))
        row, key = self._parse(destination)
        option = f"/{key.option}" if row.has_option_in_destination else ""

        def fail(error: MdtoolError) -> None:
            connection.fail(f"SUBSCRIBE: {error}")

        subscription = Subscription(
            connection.carrier.client,
            connection.carrier.outbox,
            StompFormat(
                _dialect(connection, wanted), row.destination, option, self._bodies[row.name]
            ),
            connection.wrapping.start(wanted.head),
            fail,
        )
        return self._feeds[row.name].follow(key, subscription)

    def send(self, connection: Connection, destination: str, body: bytes) -> None:
        """Relay what a client sends.

        Raises
        ------
        MdtoolError
            When there is no such destination, or it does not accept this.
        """
        client = connection.carrier.client
        if destination == _TOKENS and client.security is not None:
            connection.authenticate(body.decode("ascii", "replace").strip())
            return
        room = _name_below(self.relay.destination, destination)
        if room is None:
            raise _unknown(destination, [self.relay.destination])
        client.check_right(SIGNALING, f"SEND {destination}")
        self.relay.send(room, connection, body)

    def _parse(self, destination: str) -> tuple[FeedRow, Key]:
        """Return the feed of a destination, and what is requested of it."""
        for row in self._feeds.rows:
            if row.is_whole:
                if destination == row.destination:
                    return row, Key(ALL, row.default)
            elif destination.startswith(row.destination):
                return row, _parse_key(row, destination.removeprefix(row.destination))
        raise _unknown(
            destination, [*(row.destination for row in self._feeds.rows), self.relay.topic]
        )

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one client of raw frames."""
        async with websocket(
            request, PATH, self._patience_s, _MAX_MESSAGE_BYTES, _SUBPROTOCOLS
        ) as socket:
            with self.connected(socket, Wrapping.NONE) as connection:
                socket.on_too_large(connection.fail)
                async for message in socket:
                    await connection.authenticated()
                    with await socket.client.turn():
                        connection.receive(message)
        return socket.response


def message_number() -> int:
    """Return the identity of a further message."""
    return next(_NUMBERS)


def _dialect(connection: Connection, wanted: StompSubscription) -> Dialect:
    is_old = wanted.version is Version.V1_0
    return Dialect(connection.wrapping, Version.V1_0 if is_old else Version.V1_2)


def _parse_key(row: FeedRow, name: str) -> Key:
    value = row.default
    if row.option is not None and row.has_option_in_destination:
        name, _, text = name.rpartition("/")
        if not name:
            form = f"{row.destination}SYMBOL/{row.option.name.upper()}"
            example = f"{row.destination}AAPL/{row.option.default}"
            raise ParameterError(f"{row.name}: expects {form}, such as {example}")
        value = row.option.parse(text)
    return Key(name if name == ALL else parse_symbol(name), value)


def _name_below(prefix: str, destination: str) -> str | None:
    """Return what follows a prefix and a slash, "" for the prefix alone, None for others."""
    if destination == prefix:
        return ""
    start = f"{prefix}/"
    return destination.removeprefix(start) if destination.startswith(start) else None


def _unknown(destination: str, known: list[str]) -> StompError:
    return StompError(
        f"{destination!r:.120}: unknown destination; destinations begin with {', '.join(known)}"
    )
