"""JSON answers of HTTP services, and the answers of errors."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aiohttp import hdrs, web

from mdtool.core import tracing
from mdtool.core.errors import MdtoolError
from mdtool.core.permissions import Reader
from mdtool.core.tracing import TRACEPARENT, Kind
from mdtool.services.client import Client

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Statuses = Mapping[type[MdtoolError], tuple[int, str]]
"""The HTTP status and the code of each error; those of subclasses come first."""

Admit = Callable[[web.Request], Awaitable[None] | None]
"""Raises for a request that must not reach its handler, at once or when awaited."""

Fail = Callable[[int, str, str, Mapping[str, str] | None], web.Response]
"""Makes the answer of an error from its status, code, message and headers."""

UNBUFFERED: Final = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
"""Headers that have proxies pass on each piece of a response as it is written."""
_SHOWN_CHARS: Final = 100
_RETRY_HEADERS: Final = {"Retry-After": "1"}
_GONE: Final = 499
"""The status by which several HTTP servers count a request whose client left early."""


Identify = Callable[[web.Request], Client]

IDENTIFY: Final[web.AppKey[Identify]] = web.AppKey("identify", Callable)  # type: ignore[arg-type]
"""Of an application, what returns the client of a request."""
CLIENT: Final = web.RequestKey("client", Client)
ANYBODY: Final = web.AppKey("anybody", Client)
"""Of an application, one client for all requests that read memory without authentication."""


def client_of(request: web.Request) -> Client:
    """Return the client of a request, which is made when it is first asked for."""
    if CLIENT not in request:
        request[CLIENT] = request.app[IDENTIFY](request)
    return request[CLIENT]


def memory_client_of(request: web.Request) -> Client:
    """Return the client of a request that only reads memory.

    Where clients authenticate, it is that of `client_of`. Elsewhere all may read everything, and
    one stands for all: a client for each would take a third of such a request.
    """
    client = request.get(CLIENT)
    return request.app[ANYBODY] if client is None else client


def reader_of(request: web.Request, feed: str) -> Reader | None:
    """Return what the client of a request may read of a feed, None where that is everything."""
    client = request.get(CLIENT)  # without authentication, none is made for this
    return None if client is None else client.principal.access.reader(feed)


class HeadedError(MdtoolError):
    """An error whose answer has headers of its own."""

    def __init__(self, message: str, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.headers = headers


def encode_object(value: Mapping[str, Any]) -> bytes:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def answer(
    body: bytes, headers: Mapping[str, str] | None = None, status: int = 200
) -> web.Response:
    """Return a JSON answer."""
    return web.Response(status=status, body=body, headers=headers, content_type="application/json")


def failure(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return an error as every path answers it: an envelope without data."""
    envelope = {"data": None, "error": code, "message": message}
    return answer(encode_object(envelope), headers, status)


def answering(
    handler: Handler,
    statuses: Statuses,
    measure: Callable[[int, float], None] | None = None,
    admit: Admit | None = None,
    fail: Fail = failure,
) -> Handler:
    """Return a handler that answers the errors of another one, and measures its requests.

    It wraps single routes: of the requests a second that a bare handler answers it costs 5 %, an
    aiohttp middleware that does nothing 9 %.

    Parameters
    ----------
    handler : callable
    statuses : mapping
        Of the errors that are a client's or another service's fault.
    measure : callable, optional
        Called with the status and the seconds that each request took.
    admit : callable, optional
        Called with each request first.
    fail : callable
        Makes the answer of an error.
    """
    clock = time.perf_counter

    async def run(request: web.Request) -> web.StreamResponse:
        started = clock()
        try:
            if admit is not None and (entering := admit(request)) is not None:
                await entering
            response = await handler(request)
        except MdtoolError as error:
            response = _failure_of(error, statuses, fail)
        except ConnectionError:
            response = web.Response(status=_GONE)  # only counted: the client has disconnected
        except Exception:
            # Without its query, which may have a ticket.
            log.exception("%s %s: failed", request.method, request.path)
            response = fail(500, "internal", "the service failed; see its log", None)
        if measure is not None:
            measure(response.status, clock() - started)
        return response

    return run


def traced(handler: Handler, path: str) -> Handler:
    """Return a handler whose requests are spans, where anything is traced.

    Parameters
    ----------
    handler : callable
        Answers every error.
    path : str
        The route, which names the spans.
    """
    if not tracing.is_on():
        return handler

    async def run(request: web.Request) -> web.StreamResponse:
        if hdrs.UPGRADE in request.headers:  # its span would last as long as the connection
            return await handler(request)
        traceparent = request.headers.get(TRACEPARENT, "")
        span = tracing.begin(f"{request.method} {path}", traceparent, Kind.SERVER)
        with tracing.block(span):
            response = await handler(request)
            if span is not None:
                span.attributes |= {
                    "http.request.method": request.method,
                    "http.route": path,
                    "url.path": request.path,
                    "http.response.status_code": response.status,
                }
                span.error = f"status {response.status}" if response.status >= 500 else ""
        return response

    return run


async def no_route(request: web.Request, fail: Fail = failure) -> web.StreamResponse:
    """Answer a request without a route: OPTIONS, 405 where its path has other methods, else 404."""
    methods: set[str] = set()
    for resource in request.app.router.resources():
        if resource is not request.match_info.route.resource:
            methods |= (await resource.resolve(request))[1]
    if methods:
        allowed = ", ".join(sorted(methods | {"OPTIONS"}))
        if request.method == "OPTIONS":
            return web.Response(status=204, headers={"Allow": allowed})
        message = f"{request.path}: use {allowed}"
        return fail(405, "method_not_allowed", message, {"Allow": allowed})
    return fail(404, "not_found", f"{request.path[:_SHOWN_CHARS]}: not found", None)


def _failure_of(error: MdtoolError, statuses: Statuses, fail: Fail) -> web.Response:
    for kind, (status, code) in statuses.items():
        if isinstance(error, kind):
            own: Mapping[str, str] | None = getattr(error, "headers", None)
            headers = own or (_RETRY_HEADERS if status == 503 else None)
            return fail(status, code, str(error), headers)
    return fail(502, "bad_gateway", str(error), None)
