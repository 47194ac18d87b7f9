"""What the HTTP of replay-dbn and book has in common: routes, a health path, answers in JSON."""

from __future__ import annotations

import functools
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

from aiohttp import hdrs, web
from yarl import URL

from mdtool.core.addresses import is_ip_address, is_loopback
from mdtool.core.descriptors import shortage
from mdtool.core.permissions import ForbiddenError
from mdtool.services.client import Admission, Client
from mdtool.services.client_address import client_address
from mdtool.services.http.answers import (
    IDENTIFY,
    Handler,
    Statuses,
    answer,
    answering,
    encode_object,
    no_route,
)
from mdtool.services.http.entry import ENTRY_STATUSES, OPEN, Policy, enter, metered
from mdtool.services.http.origins import is_own

_SAFE: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
_LOCALHOST: Final = "localhost"
_SHOWN_CHARS: Final = 80
STOP_GRACE_S = 0.2
"""How long requests may continue once the service stops: readers learn why their lines end."""


def control_application(
    routes: Mapping[tuple[str, str], tuple[Handler, Policy]],
    report: Callable[[], Mapping[str, Any]],
    statuses: Statuses,
    admission: Admission,
    streamed: Collection[str] = (),
) -> web.Application:
    """Return an application of some routes and `GET /health`, `/livez` and `/readyz`.

    Parameters
    ----------
    routes : mapping
        Handlers by method and path, each with who may request it.
    report : callable
        Returns what health shows: what the service is doing, in a word, and more.
    statuses : mapping
        The HTTP status of each error.
    admission : Admission
        Of the service, which admits the client of each request.
    streamed : collection of str
        Paths that answer piece by piece, which have no HEAD.
    """

    async def health(_request: web.Request) -> web.Response:
        status = {"status": "ok", **report(), "accept_pauses": shortage.pauses}
        return answer(encode_object(status))

    def identify(request: web.Request) -> Client:
        return admission.client(client_address(request.remote or ""))

    async def alive(_request: web.Request) -> web.Response:
        return answer(encode_object({"status": "ok"}))

    def admit(policy: Policy, request: web.Request) -> Awaitable[None] | None:
        if admission.security is None:  # a token would be no page's
            _check_host(request.headers.get(hdrs.HOST), request.get_extra_info("sockname"))
            _check_origin(request)
        return enter(request, identify(request), policy)

    statuses = {**statuses, **ENTRY_STATUSES}
    app = web.Application()
    app[IDENTIFY] = identify
    probe = health if admission.security is None else alive
    probes: Mapping[tuple[str, str], tuple[Handler, Policy]] = {
        ("GET", "/health"): (health, Policy(right="metrics")),
        ("GET", "/livez"): (probe, OPEN),
        ("GET", "/readyz"): (probe, OPEN),
    }
    for (method, path), (handler, policy) in {**routes, **probes}.items():
        counted = metered(handler) if admission.is_metered else handler
        answered = answering(counted, statuses, admit=functools.partial(admit, policy))
        if method == "GET":
            app.router.add_get(path, answered, allow_head=path not in streamed)
        else:
            app.router.add_route(method, path, answered)
    app.router.add_route("*", "/{path:(?s:.*)}", no_route)
    return app


def _check_host(said: str | None, sockname: Sequence[object] | None) -> None:
    """Check that what comes over loopback asks for this machine, not for a name of a web page's.

    A page of another site may have its own name resolve to a loopback address, and is no page of
    another origin then. An address is no such name.

    Raises
    ------
    ForbiddenError
    """
    if said is None or not sockname or not is_loopback(str(sockname[0])):
        return  # every browser sends the header
    try:
        name = (URL(f"http://{said}").host or "").rstrip(".")
    except ValueError:
        name = ""
    is_local = name in {_LOCALHOST, socket.gethostname().lower()}
    if not is_local and not name.endswith(f".{_LOCALHOST}") and not is_ip_address(name):
        shown = said[:_SHOWN_CHARS]
        raise ForbiddenError(
            f"Host {shown!a}: is not a name of this machine; request {_LOCALHOST} or its address"
        )


def _check_origin(request: web.Request) -> None:
    """Check that no web page of another site commands what its reader's machine can reach.

    Raises
    ------
    ForbiddenError
    """
    origin = request.headers.get(hdrs.ORIGIN)
    is_foreign = origin is not None and not is_own(origin, request.host)
    if is_foreign and request.method not in _SAFE:
        raise ForbiddenError(f"web pages of {origin} may not control this service")
