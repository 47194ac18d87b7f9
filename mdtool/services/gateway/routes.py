"""Which path is answered by what."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from mdtool.services.gateway.answers import STATUSES
from mdtool.services.gateway.books import BookProxy
from mdtool.services.gateway.health import Health
from mdtool.services.gateway.page import Page
from mdtool.services.gateway.rest import Rest
from mdtool.services.gateway.sockets import MarketDataSockets
from mdtool.services.gateway.tallies import Tallies
from mdtool.services.http.answers import answering, no_route

MARKET_DATA_SOCKETS: Final = "/ws/marketdata"


def application(
    rest: Rest,
    sockets: MarketDataSockets,
    health: Health,
    books: BookProxy,
    metrics: CollectorRegistry,
    tallies: Tallies,
) -> web.Application:
    """Return the application of all routes."""

    async def scrape(_request: web.Request) -> web.Response:
        exposition = generate_latest(metrics)
        return web.Response(body=exposition, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    for path, handler in {
        "/api/v1/marketdata/{symbol}": rest.aggregate,  # tried before the shorter path
        "/api/v1/marketdata": rest.aggregates,
        "/api/v1/bars/{symbol}": rest.bars,
        "/health": health.report,
        "/metrics": scrape,
    }.items():
        app.router.add_get(path, answering(handler, STATUSES, tallies.route(path).add))
    for (method, path), handle in books.routes.items():
        app.router.add_route(method, path, answering(handle, STATUSES, tallies.route(path).add))
    page = Page()
    app.router.add_get("/", page.index)
    app.router.add_get("/static/{name}", page.file)
    app.router.add_get(MARKET_DATA_SOCKETS, answering(sockets.follow, STATUSES))
    app.router.add_route("*", "/{path:.*}", no_route)
    app.on_shutdown.append(sockets.close)
    app.on_shutdown.append(books.close)
    return app
