"""`POST` and `GET /graphql`: requests over HTTP.

References
----------
The GraphQL over HTTP specification: its media types, parameters and status codes.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import hdrs, web
from graphql import GraphQLError

from mdtool.services.gateway.answers import STALE_HEADERS
from mdtool.services.gateway.graphql.errors import (
    BAD_REQUEST,
    DocumentError,
    encode_response,
    request_error,
)
from mdtool.services.gateway.graphql.execution import Executor, Prepared
from mdtool.services.gateway.graphql.sockets import GraphQLSockets
from mdtool.services.gateway.time_share import TimeShare
from mdtool.services.http.bodies import BodyError, read_body
from mdtool.wire.graphql import (
    SUBPROTOCOL,
    Request,
    RequestError,
    decode_json,
    decode_request,
)

_JSON: Final = "application/json"
"""What clients of before the specification take; in it, 200 says that this is a response at all."""
_RESPONSE: Final = "application/graphql-response+json"
_WILDCARDS: Final = {"*/*", "application/*"}
_NO_SUBSCRIPTIONS: Final = f"subscriptions come over a WebSocket, which speaks {SUBPROTOCOL}"
_NO_HEADERS: Final[Mapping[str, str]] = {}

Decode = Callable[[], Request]
"""Returns the request of what was read."""


class _HttpError(Exception):
    """A request that is not as HTTP should have it, and the status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class GraphQLHttp:
    """The handlers of `/graphql`.

    Parameters
    ----------
    executor : Executor
        Runs queries.
    sockets : GraphQLSockets
        Serves those who ask for a WebSocket.
    max_body_bytes : int
        How long a request's body may be.
    time_share : TimeShare
        Each client's, for what it asks.
    """

    def __init__(
        self,
        executor: Executor,
        sockets: GraphQLSockets,
        max_body_bytes: int,
        time_share: TimeShare,
    ) -> None:
        self._executor = executor
        self._sockets = sockets
        self._max_body_bytes = max_body_bytes
        self._time_share = time_share

    async def post(self, request: web.Request) -> web.Response:
        """`POST /graphql`: a request in JSON."""
        return await self._answer(request, self._posted)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """`GET /graphql`: a request in the query, or a WebSocket."""
        if hdrs.UPGRADE in request.headers:
            return await self._sockets.serve(request)
        return await self._answer(request, _gotten)

    async def _answer(
        self, request: web.Request, read: Callable[[web.Request], Awaitable[Decode]]
    ) -> web.Response:
        media_type = _negotiated(request.headers.get(hdrs.ACCEPT, "*/*"))
        if media_type is None:
            return _refused(406, f"Accept: wants {_RESPONSE} or {_JSON}", _JSON)
        try:
            decode = await read(request)
            with await self._time_share.turn():
                prepared = self._prepared(decode())
            response = await self._executor.query(prepared)
        except DocumentError as error:
            status = 200 if media_type == _JSON else 400
            return _response(encode_response(error.errors), media_type, status)
        except (RequestError, BodyError) as error:
            return _refused(400, str(error), media_type)
        except _HttpError as error:
            return _refused(error.status, str(error), media_type)
        headers = STALE_HEADERS if response.is_stale else _NO_HEADERS
        return _response(response.body, media_type, 200, headers)

    def _prepared(self, request: Request) -> Prepared:
        prepared = self._executor.prepare(request)
        if prepared.operation.is_subscription:
            raise DocumentError([GraphQLError(_NO_SUBSCRIPTIONS)], BAD_REQUEST)
        return prepared

    async def _posted(self, request: web.Request) -> Decode:
        if request.content_type != _JSON or (request.charset or "utf-8").lower() != "utf-8":
            raise _HttpError(415, f"Content-Type: wants {_JSON}, in UTF-8")
        body = await self._body(request)
        return lambda: decode_request(decode_json(body))

    async def _body(self, request: web.Request) -> bytes:
        most = self._max_body_bytes
        if (request.content_length or 0) <= most:
            body = await read_body(request, most)
            if body is not None:
                return body
        raise _HttpError(413, f"a request is of {most:,} bytes at most")


async def _gotten(request: web.Request) -> Decode:
    return lambda: _request_of(request.query)


def _request_of(query: Mapping[str, str]) -> Request:
    parameters: dict[str, object] = dict(query)
    if "query" not in parameters:
        raise RequestError("query: missing; /graphiql is a page on which to write one")
    for name in ("variables", "extensions"):
        if name in parameters:
            parameters[name] = decode_json(query[name])
    return decode_request(parameters)


@functools.lru_cache(maxsize=64)
def _negotiated(accept: str) -> str | None:
    """Return the media type that a client likes best, None where it takes none of ours."""
    liked, most = None, 0.0
    for entry in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in entry.split(";"))
        weight = _weight(parameters)
        if media_type in _WILDCARDS:
            media_type = _JSON
        if weight > most and media_type in {_JSON, _RESPONSE}:
            liked, most = media_type, weight
    return liked


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def _refused(status: int, message: str, media_type: str) -> web.Response:
    return _response(encode_response([request_error(message, BAD_REQUEST)]), media_type, status)


def _response(
    body: bytes, media_type: str, status: int, headers: Mapping[str, str] = _NO_HEADERS
) -> web.Response:
    headers = {**headers, "Content-Type": f"{media_type}; charset=utf-8"}
    return web.Response(body=body, status=status, headers=headers)
