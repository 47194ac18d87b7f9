"""GraphQL requests, and the messages of the graphql-transport-ws protocol.

References
----------
GraphQL over HTTP, its section on requests; `PROTOCOL.md` of the graphql-ws library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Literal

from mdtool.core.errors import PeerError

SUBPROTOCOL: Final = "graphql-transport-ws"
CONNECTION_ACK: Final = b'{"type":"connection_ack"}'
PONG: Final = b'{"type":"pong"}'
NEXT_TAIL: Final = b"}"
"""Follows the response."""
MAX_ID_CHARS: Final = 128
_REASON_BYTES: Final = 123
"""The room in a WebSocket's close frame."""


class RequestError(PeerError):
    """A client sent what is not a GraphQL request."""


class PersistedQueryError(RequestError):
    """A client sent the digest of a query that it expects the server to know."""


class CloseCode(IntEnum):
    """Why a server closes a WebSocket of the protocol."""

    BAD_MESSAGE = 4400
    UNAUTHORIZED = 4401
    BAD_SUBPROTOCOL = 4406
    NOT_INITIALISED = 4408
    ID_IN_USE = 4409
    TOO_MANY_INITIALISATIONS = 4429


class MessageError(PeerError):
    """A client sent what is not a message of the protocol, or not allowed at this time.

    Attributes
    ----------
    code : CloseCode
        With which its WebSocket is closed; the text of the error is the reason.
    """

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason.encode(errors="replace")[:_REASON_BYTES].decode(errors="ignore"))
        self.code = code


@dataclass(frozen=True, slots=True)
class Request:
    """A client's request.

    Attributes
    ----------
    query : str
        The document.
    operation_name : str or None
        Which of its operations.
    variables : dict
        By name, as the client sent them.
    """

    query: str
    operation_name: str | None = None
    variables: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Signal:
    """A message without an operation: the initialisation, a ping or a pong."""

    kind: Literal["connection_init", "ping", "pong"]
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Begins an operation of any kind, under the client's id."""

    id: str
    request: Request


@dataclass(frozen=True, slots=True)
class Complete:
    """Ends an operation."""

    id: str


ClientMessage = Signal | Subscribe | Complete


def decode_json(data: str | bytes | bytearray) -> Any:
    """Return the value of a JSON text.

    Raises
    ------
    RequestError
        When it is not valid.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"request: not valid JSON: {error}") from error


def decode_request(value: Any) -> Request:
    """Return the request in an object such as HTTP bodies and `subscribe` messages hold.

    Optional parameters may be absent, null or empty.

    Raises
    ------
    PersistedQueryError
        When it has the digest of a query only. Clients then send the query itself.
    RequestError
        When a parameter is missing or of the wrong type.
    """
    if not isinstance(value, dict):
        raise RequestError("request: expects an object with a query")
    query, extensions = value.get("query"), value.get("extensions")
    if query is None and isinstance(extensions, dict) and "persistedQuery" in extensions:
        raise PersistedQueryError("PersistedQueryNotSupported")
    if not isinstance(query, str):
        raise RequestError("query: missing" if query is None else "query: expects a string")
    name = value.get("operationName")
    if not (name is None or isinstance(name, str)):
        raise RequestError("operationName: expects a string")
    _object("extensions", extensions)
    return Request(query, name, _object("variables", value.get("variables")))


def _object(name: str, value: Any) -> dict[str, Any]:
    """Return the value of an optional object, {} where it is absent, null or empty."""
    if value is None or value == "":
        return {}
    if not isinstance(value, dict):
        raise RequestError(f"{name}: expects an object")
    return value


def decode_message(data: object) -> ClientMessage:
    """Return a client's message, given the data of a WebSocket message.

    Raises
    ------
    MessageError
        When it is not valid.
    """
    try:
        return _message_of(decode_json(data) if isinstance(data, str) else data)
    except RequestError as error:
        raise MessageError(CloseCode.BAD_MESSAGE, f"Invalid message: {error}") from error


def next_head(id_: str) -> bytes:
    """Return what precedes a response of an operation in its message."""
    return b'{"id":%b,"type":"next","payload":' % json.dumps(id_).encode()


def error_message(id_: str, errors: bytes) -> bytes:
    """Return the message that ends an operation that failed, given its errors as JSON."""
    return b'{"id":%b,"type":"error","payload":%b}' % (json.dumps(id_).encode(), errors)


def complete_message(id_: str) -> bytes:
    """Return the message that ends an operation."""
    return b'{"id":%b,"type":"complete"}' % json.dumps(id_).encode()


def _message_of(value: Any) -> ClientMessage:
    if not isinstance(value, dict):
        raise RequestError("expects an object with a type")
    kind = value.get("type")
    if kind in ("connection_init", "ping", "pong"):
        return Signal(kind, _object("payload", value.get("payload")))
    if kind not in ("subscribe", "complete"):
        raise RequestError("type: expects one that clients send")
    id_ = value.get("id")
    if not (isinstance(id_, str) and 1 <= len(id_) <= MAX_ID_CHARS):
        raise RequestError(f"id: expects a string of 1 to {MAX_ID_CHARS} characters")
    if kind == "complete":
        return Complete(id_)
    return Subscribe(id_, decode_request(value.get("payload")))
