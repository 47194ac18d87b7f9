"""`/graphql`: queries over HTTP.

References
----------
The GraphQL over HTTP specification: its media types, parameters and status codes.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from aiohttp import hdrs, web
from graphql import GraphQLError

from mdtool.services.client import Client, Turn
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.feeds import Feeds
from mdtool.services.gateway.http import STALE_HEADERS
from mdtool.services.gateway.protocols import Paths
from mdtool.services.gateway.protocols.graphql.documents import Limits
from mdtool.services.gateway.protocols.graphql.errors import (
    BAD_REQUEST,
    NOT_PERSISTED,
    DocumentError,
    encode_failure,
    request_error,
)
from mdtool.services.gateway.protocols.graphql.execution import Operations, Prepared
from mdtool.services.gateway.protocols.graphql.sockets import GraphQLSockets
from mdtool.services.gateway.websockets import upgrading
from mdtool.services.http.answers import client_of
from mdtool.services.http.bodies import BodyError, read_body
from mdtool.wire.graphql import (
    SUBPROTOCOL,
    PersistedQueryError,
    Request,
    RequestError,
    decode_json,
    decode_request,
)

PATH: Final = "/graphql"
_JSON: Final = "application/json"
"""What clients older than the specification accept; it has 200 for every response."""
_RESPONSE: Final = "application/graphql-response+json"
_WILDCARDS: Final = {"*/*", "application/*"}
_NO_SUBSCRIPTIONS: Final = f"subscriptions require a WebSocket with the subprotocol {SUBPROTOCOL}"
_NO_HEADERS: Final[Mapping[str, str]] = {}
_MAX_BATCH: Final = 10

Decode = Callable[[], Any]
"""Returns the object of a request, or a list of several, of what was read."""


class _Answered(NamedTuple):
    """The response to a request.

    Attributes
    ----------
    body : bytes
    status : int
        That of HTTP, where the media type is the specification's.
    is_stale : bool
    """

    body: bytes
    status: int
    is_stale: bool = False


class _HttpError(Exception):
    """A request that HTTP itself rejects, and with which status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class GraphQL:
    """GraphQL over HTTP and WebSockets.

    Parameters
    ----------
    config : GatewayConfig
    feeds : Feeds
    """

    def __init__(self, config: GatewayConfig, feeds: Feeds) -> None:
        limits = Limits(
            config.graphql_max_depth, config.graphql_max_aliases, config.graphql_max_complexity
        )
        self._operations = Operations(feeds, limits, may_introspect=config.graphql_introspection)
        self._max_body_bytes = config.graphql_max_body_bytes
        self._sockets = GraphQLSockets(
            self._operations, PATH, config.slow_client_s, config.graphql_max_body_bytes
        )

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {
            ("POST", PATH): self._post,
            ("GET", PATH): upgrading(self._sockets.serve, self._get),
        }

    async def _post(self, request: web.Request) -> web.Response:
        """`POST /graphql`: a request in JSON."""
        return await self._answer(request, self._read_body)

    async def _get(self, request: web.Request) -> web.Response:
        """`GET /graphql`: a request in the query of the URL."""
        return await self._answer(request, _read_url)

    async def _answer(
        self, request: web.Request, read: Callable[[web.Request], Awaitable[Decode]]
    ) -> web.Response:
        media_type = _negotiated(request.headers.get(hdrs.ACCEPT, "*/*"))
        if media_type is None:
            return _rejected(406, f"Accept: expects {_RESPONSE} or {_JSON}", _JSON)
        client = client_of(request)
        client.check_token()
        try:
            decode = await read(request)
            turn = await client.turn()
            with turn:
                value = decode()
        except (RequestError, BodyError) as error:
            return _rejected(400, str(error), media_type)
        except _HttpError as error:
            return _rejected(error.status, str(error), media_type)
        if isinstance(value, list):
            answered = await self._execute_batch(client, turn, value)
        else:
            answered = await self._execute(client, turn, value, media_type)
        headers = STALE_HEADERS if answered.is_stale else _NO_HEADERS
        return _response(answered.body, media_type, answered.status, headers)

    async def _execute_batch(self, client: Client, turn: Turn, values: Sequence[Any]) -> _Answered:
        """Execute several requests, whose responses come in one array."""
        if not 1 <= len(values) <= _MAX_BATCH:
            return _failed(f"batch: expects 1 to {_MAX_BATCH} requests")
        for _ in values[1:]:
            client.spend_request()
        batch = [await self._execute(client, turn, value, _JSON) for value in values]
        body = b"[%b]" % b",".join(each.body for each in batch)
        return _Answered(body, 200, any(each.is_stale for each in batch))

    async def _execute(self, client: Client, turn: Turn, value: Any, media_type: str) -> _Answered:
        """Execute a request, given its object."""
        try:
            with turn:
                prepared = self._prepare(decode_request(value), client)
            response = await self._operations.query(client, turn, prepared)
        except DocumentError as error:
            return _Answered(encode_failure(error.errors), 200 if media_type == _JSON else 400)
        except PersistedQueryError as error:
            return _Answered(encode_failure([request_error(str(error), NOT_PERSISTED)]), 200)
        except RequestError as error:
            return _failed(str(error))
        return _Answered(response.body, 200, response.is_stale)

    def _prepare(self, request: Request, client: Client) -> Prepared:
        prepared = self._operations.prepare(request, client)
        if prepared.operation.is_subscription:
            raise DocumentError([GraphQLError(_NO_SUBSCRIPTIONS)], BAD_REQUEST)
        return prepared

    async def _read_body(self, request: web.Request) -> Decode:
        charset = (request.charset or "utf-8").lower()
        if request.content_type != _JSON or charset not in {"utf-8", "utf8"}:
            raise _HttpError(415, f"Content-Type: expects {_JSON} in UTF-8")
        most = self._max_body_bytes
        body = None
        if (request.content_length or 0) <= most:
            body = await read_body(request, most)
        if body is None:
            raise _HttpError(413, f"body: expects at most {most:,} bytes")
        return functools.partial(decode_json, body)


async def _read_url(request: web.Request) -> Decode:
    return functools.partial(_decode_url, request.query)


def _decode_url(query: Mapping[str, str]) -> dict[str, object]:
    parameters: dict[str, object] = dict(query)
    if not parameters.keys() & {"query", "extensions"}:
        raise RequestError("query: missing; write one at /graphiql")
    for name in ("variables", "extensions"):
        if parameters.get(name):
            parameters[name] = decode_json(query[name])
    return parameters


@functools.lru_cache(maxsize=64)
def _negotiated(accept: str) -> str | None:
    """Return the media type that a client prefers, None where it accepts neither."""
    preferred, most = None, 0.0
    for entry in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in entry.split(";"))
        weight = _weight(parameters)
        if media_type in _WILDCARDS:
            media_type = _JSON
        if weight > most and media_type in {_JSON, _RESPONSE}:
            preferred, most = media_type, weight
    return preferred


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def _failed(message: str) -> _Answered:
    return _Answered(encode_failure([request_error(message, BAD_REQUEST)]), 400)


def _rejected(status: int, message: str, media_type: str) -> web.Response:
    return _response(_failed(message).body, media_type, status)


def _response(
    body: bytes, media_type: str, status: int, headers: Mapping[str, str] = _NO_HEADERS
) -> web.Response:
    headers = {**headers, "Content-Type": f"{media_type}; charset=utf-8"}
    return web.Response(body=body, status=status, headers=headers)
