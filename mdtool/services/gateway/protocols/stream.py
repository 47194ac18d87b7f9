"""`WS /stream`: every feed over one socket, in JSON text messages."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from mdtool.adapters.identity.errors import TokenError
from mdtool.core.errors import MdtoolError
from mdtool.core.permissions import ForbiddenError
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.feeds import Feeds
from mdtool.services.gateway.feeds.feed import ALL, Key
from mdtool.services.gateway.fields import encode_missed, encoder
from mdtool.services.gateway.hub import Subscription
from mdtool.services.gateway.parameters import ParameterError, parse_symbol
from mdtool.services.gateway.protocols import Paths
from mdtool.services.gateway.table import FeedRow
from mdtool.services.gateway.websockets import WebSocket, websocket
from mdtool.services.limits import CapacityError, LimitError

PATH: Final = "/stream"
MAX_SUBSCRIPTIONS: Final = 100
"""The most subscriptions of one connection."""
MAX_SYMBOLS: Final = 1_000
"""That the subscriptions of one connection may name; ["*"] counts as one."""
MAX_MESSAGE_BYTES: Final = 1 << 17
_MAX_ID_CHARS: Final = 64

_BAD_REQUEST: Final = "bad_request"
_UNKNOWN_CHANNEL: Final = "unknown_channel"
_UNAUTHORIZED: Final = "unauthorized"
_FORBIDDEN: Final = "forbidden"
_LIMIT: Final = "limit"

Id = str | int


class _RequestError(MdtoolError):
    """A request is rejected, with one of the protocol's codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class StreamFormat:
    """The rows of a channel, behind the id of a subscription.

    Parameters
    ----------
    row : FeedRow
    """

    def __init__(self, row: FeedRow) -> None:
        self._encode = encoder(row.fields)
        self._snapshot = '"snapshot":true,' if row.has_events else ""

    def encode(self, row: Any, is_snapshot: bool = False) -> bytes:
        """Return the message of a row behind its head."""
        mark = self._snapshot if is_snapshot else ""
        start = f'"symbol":{json.dumps(row.symbol)},{mark}"data":'
        return start.encode() + self._encode(row) + b"}"

    def missed(self, symbol: str, count: int | None) -> bytes:
        """Return the message that events of a symbol were dropped."""
        return encode_missed(symbol, count)[1:]


class Stream:
    """The sockets of `/stream`.

    Parameters
    ----------
    config : GatewayConfig
    feeds : Feeds

    Attributes
    ----------
    channels : dict of str to FeedRow
        The rows of the table by channel.
    formats : dict of str to StreamFormat
        By channel; every subscription to one shares it, so that a row is encoded once.
    """

    def __init__(self, config: GatewayConfig, feeds: Feeds) -> None:
        self._patience_s = config.slow_client_s
        self.feeds = feeds
        self.channels = {row.name: row for row in feeds.rows}
        self.formats = {row.name: StreamFormat(row) for row in feeds.rows}

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {("GET", PATH): self._serve}

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        async with websocket(request, PATH, self._patience_s, MAX_MESSAGE_BYTES) as socket:
            session = _Session(self, socket)
            socket.on_too_large(session.reject_too_large)
            try:
                async for message in socket:
                    with await socket.client.turn():
                        rest = session.receive(message)
                    if rest is not None:
                        await rest
            finally:
                session.close()
        return socket.response


class _Session:
    """One client's requests and subscriptions.

    Parameters
    ----------
    stream : Stream
    socket : WebSocket
    """

    def __init__(self, stream: Stream, socket: WebSocket) -> None:
        self._stream = stream
        self._socket = socket
        self._subscriptions: dict[Id, _Subscribed] = {}
        self._symbols = 0

    def receive(self, message: str | bytes) -> Awaitable[None] | None:
        """Handle a request; return what is left of it to wait for, if anything is."""
        identity: Id | None = None
        try:
            request = _parse_object(message)
            identity = _parse_id(request.get("id"))
            match request.get("op"):
                case "subscribe":
                    self._subscribe(_required(identity), request)
                case "unsubscribe":
                    self._unsubscribe(_required(identity))
                case "ping":
                    self._send({"op": "pong"})
                case "auth":
                    return self._authenticate(identity, request.get("token"))
                case other:
                    expected = "subscribe, unsubscribe, auth or ping"
                    why = f"op: expects {expected}, not {_shown(other)}"
                    raise _RequestError(_BAD_REQUEST, why)
        except MdtoolError as error:
            self._reject(identity, error)
        return None

    async def _authenticate(self, identity: Id | None, token: object) -> None:
        """Take the client's token, the first one or a newer one."""
        client = self._socket.client
        try:
            if client.security is None:
                why = "auth: not configured; connect without a token"
                raise _RequestError(_UNAUTHORIZED, why)
            if not isinstance(token, str):
                raise _RequestError(_BAD_REQUEST, "token: expects a text")
            await client.authenticate_now(token)
        except MdtoolError as error:
            self._reject(identity, error)
        else:
            self._send({"op": "auth", "id": identity, "ok": True})

    def reject_too_large(self, reason: str) -> None:
        """Answer a message that is too large to be read."""
        self._reject(None, _RequestError(_BAD_REQUEST, reason))

    def close(self) -> None:
        """End every subscription."""
        for subscribed in self._subscriptions.values():
            subscribed.end()
        self._subscriptions.clear()

    def _subscribe(self, identity: Id, request: Mapping[str, Any]) -> None:
        row = self._channel(request.get("channel"))
        option = _parse_option(row, request)
        if row.has_past and request.get("session"):
            raise ParameterError(
                "session: the current one is followed; REST and GraphQL have others"
            )
        after = _parse_after(row, request.get("after"))
        symbols = _parse_symbols(row, request.get("symbols"))
        self._check_room(identity, len(symbols))
        feed = self._stream.feeds[row.name]
        keys = [Key(symbol, option) for symbol in symbols]
        head = f'{{"id":{json.dumps(identity)},"channel":{json.dumps(row.name)},'

        def fail(error: MdtoolError) -> None:
            self._drop(identity)
            self._reject(identity, error)

        subscription = Subscription(
            self._socket.client,
            self._socket.outbox,
            self._stream.formats[row.name],
            head.encode(),
            fail,
        )
        subscribed = self._subscriptions[identity] = _Subscribed(len(symbols))
        self._symbols += len(symbols)
        with self._socket.outbox.held():  # the reply precedes the first data
            try:
                client = self._socket.client
                named = [key for key in keys if key.symbol != ALL]
                unknown = [key.symbol for key in named if not feed.knows(client, key)]
                for key in keys:
                    subscribed.ends.append(feed.follow(key, subscription, after))
            except MdtoolError:
                self._drop(identity)
                raise
            reply: dict[str, Any] = {"id": identity, "ok": True}
            self._send(reply | ({"unknown": unknown} if unknown else {}))

    def _unsubscribe(self, identity: Id) -> None:
        if identity not in self._subscriptions:
            raise _RequestError(_BAD_REQUEST, f"id: no subscription {_shown(identity)}")
        self._drop(identity)
        self._send({"id": identity, "ok": True})

    def _drop(self, identity: Id) -> None:
        subscribed = self._subscriptions.pop(identity, None)
        if subscribed is not None:
            self._symbols -= subscribed.symbols
            subscribed.end()

    def _channel(self, name: object) -> FeedRow:
        channels = self._stream.channels
        if not name:
            raise _RequestError(
                _BAD_REQUEST, f"channel: missing; name one of {', '.join(channels)}"
            )
        row = channels.get(name) if isinstance(name, str) else None
        if row is None:
            why = f"channel: {_shown(name)} does not exist; name one of {', '.join(channels)}"
            raise _RequestError(_UNKNOWN_CHANNEL, why)
        return row

    def _check_room(self, identity: Id, symbols: int) -> None:
        if identity in self._subscriptions:
            why = f"id: subscription {_shown(identity)} already exists; choose another id"
            raise _RequestError(_BAD_REQUEST, why)
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            why = f"limit of {MAX_SUBSCRIPTIONS} subscriptions reached; unsubscribe from some"
            raise _RequestError(_LIMIT, why)
        if self._symbols + symbols > MAX_SYMBOLS:
            why = f'limit of {MAX_SYMBOLS:,} symbols exceeded; name fewer, or ["*"] for every'
            raise _RequestError(_LIMIT, why)

    def _reject(self, identity: Id | None, error: MdtoolError) -> None:
        if isinstance(error, _RequestError):
            code = error.code
        elif isinstance(error, TokenError):
            code = _UNAUTHORIZED
        elif isinstance(error, ForbiddenError):
            code = _FORBIDDEN
        elif isinstance(error, LimitError | CapacityError):
            code = _LIMIT
        else:
            code = _BAD_REQUEST
        self._send({"id": identity, "error": {"code": code, "message": str(error)}})

    def _send(self, message: Mapping[str, Any]) -> None:
        self._socket.outbox.post(json.dumps(message, separators=(",", ":")).encode())


class _Subscribed:
    """What a subscription counts for, and what ends it."""

    __slots__ = ("ends", "symbols")

    def __init__(self, symbols: int) -> None:
        self.symbols = symbols
        self.ends: list[Callable[[], None]] = []

    def end(self) -> None:
        for end in self.ends:
            end()
        self.ends.clear()


def _parse_object(message: str | bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(message)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise _RequestError(_BAD_REQUEST, "a message must be a JSON object")
    return content


def _parse_id(value: object) -> Id | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and len(value) <= _MAX_ID_CHARS:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return value
    why = f"id: expects a whole number or at most {_MAX_ID_CHARS} characters"
    raise _RequestError(_BAD_REQUEST, why)


def _required(identity: Id | None) -> Id:
    if identity is None:
        raise _RequestError(_BAD_REQUEST, "id: missing; choose one for the subscription")
    return identity


def _parse_option(row: FeedRow, request: Mapping[str, Any]) -> str | int | None:
    """Return the interval, depth or whatever the feed has; its default where it is not given."""
    if row.option is None:
        return None
    value = request.get(row.option.name)
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise ParameterError(f"{row.option.name}: {_shown(value)} is not valid")
    return row.option.value_of(value)


def _parse_after(row: FeedRow, value: object) -> str | None:
    if value is None or value == "":
        return None
    if not row.has_events:
        raise ParameterError(f"after: {row.name} cannot be resumed; leave it out")
    if not isinstance(value, str):
        raise ParameterError("after: expects the sequence of a row, which is text")
    return value


def _parse_symbols(row: FeedRow, value: object) -> Sequence[str]:
    """Return the symbols of a request, each once, or ALL alone."""
    if not value:
        if row.is_whole:
            return [ALL]
        raise ParameterError('symbols: missing; name some, or ["*"] for every symbol')
    if not (isinstance(value, list) and all(isinstance(text, str) for text in value)):
        raise ParameterError("symbols: expects a list of texts")
    if ALL in value:
        return [ALL]
    return list(dict.fromkeys(map(parse_symbol, value)))


def _shown(value: object) -> str:
    return f"{value!r:.80}"
