"""What the HTTP of replay-dbn and book has in common: routes, a health path, answers in JSON."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from aiohttp import web

from mdtool.core.descriptors import shortage
from mdtool.services.client import Admission, Client, client_address
from mdtool.services.http.answers import (
    IDENTIFY,
    Handler,
    Statuses,
    answer,
    answering,
    client_of,
    encode_object,
    no_route,
)

STOP_GRACE_S = 0.2
"""How long requests may continue once the service stops: readers learn why their lines end."""


def control_application(
    routes: Mapping[tuple[str, str], Handler],
    report: Callable[[], Mapping[str, Any]],
    statuses: Statuses,
    admission: Admission,
    streamed: Collection[str] = (),
) -> web.Application:
    """Return an application of some routes and `GET /health`, `/livez` and `/readyz`.

    Parameters
    ----------
    routes : mapping
        Handlers by method and path.
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

    def admit(request: web.Request) -> None:
        client_of(request).spend_request()

    app = web.Application()
    app[IDENTIFY] = identify
    probes = {("GET", path): health for path in ("/health", "/livez", "/readyz")}
    for (method, path), handler in {**routes, **probes}.items():
        answered = answering(handler, statuses, admit=admit)
        if method == "GET":
            app.router.add_get(path, answered, allow_head=path not in streamed)
        else:
            app.router.add_route(method, path, answered)
    app.router.add_route("*", "/{path:(?s:.*)}", no_route)
    return app
