"""Which path is answered by what."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from mdtool.services.gateway.answers import STATUSES
from mdtool.services.gateway.books import ORDER_BOOK_PATH, BookProxy
from mdtool.services.gateway.graphql.face import GraphQL
from mdtool.services.gateway.openapi import Operation
from mdtool.services.gateway.operations import document_of
from mdtool.services.gateway.page import Page
from mdtool.services.gateway.pages.assets import PATH as ASSETS_PATH
from mdtool.services.gateway.pages.assets import Assets
from mdtool.services.gateway.pages.docs import Docs
from mdtool.services.gateway.pages.graphiql import GraphiQL
from mdtool.services.gateway.protection import Protection
from mdtool.services.gateway.quotes.face import Quotes
from mdtool.services.gateway.sockets import MarketDataSockets
from mdtool.services.gateway.stomp.face import EVENTS_PATH, SOCKJS_PATH, Stomp
from mdtool.services.gateway.tallies import Tallies
from mdtool.services.http.answers import Handler, answering, no_route

MARKET_DATA_SOCKETS: Final = "/ws/marketdata"
_STREAMED: Final = {EVENTS_PATH, ORDER_BOOK_PATH}
"""What is written as it comes, which aiohttp would do for HEAD too."""


def application(
    operations: tuple[Operation, ...],
    sockets: MarketDataSockets,
    graphql: GraphQL,
    stomp: Stomp,
    quotes: Quotes,
    books: BookProxy,
    protection: Protection,
    tallies: Tallies,
    assets: Assets,
) -> web.Application:
    """Return the application of all routes, each behind the guard."""
    guard = protection.guard
    app = web.Application()

    def add(method: str, path: str, handler: Handler, *, is_watching: bool = False) -> None:
        admit = guard.admit_watcher if is_watching else guard.admit
        measure = tallies.route(path).add
        app.router.add_route(method, path, answering(handler, STATUSES, measure, admit))
        if method == "GET" and path not in _STREAMED:
            app.router.add_route("HEAD", path, answering(handler, STATUSES, measure, admit))

    for operation in operations:
        add(
            operation.method,
            operation.path,
            operation.handler,
            is_watching=operation.is_watching,
        )
    routes = {**graphql.routes, **stomp.routes}
    # A plain WebSocket at the path that SockJS is below.
    shared = ("GET", SOCKJS_PATH)
    routes[shared] = _upgrading(quotes.follow, routes[shared])
    for (method, path), handler in routes.items():
        add(method, path, handler)
    page, docs = Page(), Docs(document_of(operations), assets)
    for path, handler in {
        "/": page.index,
        "/demo/{name}": page.demo,
        "/static/{name}": page.file,
        "/openapi.json": docs.document,
        "/docs": docs.page,
        "/graphiql": GraphiQL(assets).page,
        ASSETS_PATH: assets.file,
        MARKET_DATA_SOCKETS: sockets.follow,
    }.items():
        add("GET", path, handler)
    otherwise = protection.origins.preflight(no_route)
    everything = answering(otherwise, STATUSES, admit=guard.admit)
    app.router.add_route("*", "/{path:.*}", everything)
    protection.origins.mount(app)
    app.on_shutdown.append(sockets.close)
    app.on_shutdown.append(graphql.close)
    app.on_shutdown.append(stomp.close)
    app.on_shutdown.append(quotes.close)
    app.on_shutdown.append(books.close)
    return app


def _upgrading(sockets: Handler, otherwise: Handler) -> Handler:
    """Return a handler that has requests for a WebSocket handled by one, and others by another."""

    async def run(request: web.Request) -> web.StreamResponse:
        handler = sockets if "Upgrade" in request.headers else otherwise
        return await handler(request)

    return run
