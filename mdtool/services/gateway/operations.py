"""The gateway's HTTP operations: handlers and descriptions, from which come routes and OpenAPI."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from mdtool.services.gateway.books import ORDER_BOOK_PATH, BookProxy
from mdtool.services.gateway.closing import about_closing
from mdtool.services.gateway.health import Health
from mdtool.services.gateway.history.rest import HistoryRest
from mdtool.services.gateway.openapi import Content, Operation, Parameter, document
from mdtool.services.gateway.quotes.face import Quotes
from mdtool.services.gateway.rest import Rest
from mdtool.services.gateway.schemas import (
    BEFORE,
    BEFORE_TRADE,
    INTERVAL,
    LIMIT,
    SCHEMAS,
    SYMBOL,
    reference,
)
from mdtool.services.gateway.signaling.ice import IceServers
from mdtool.services.http.answers import Handler

ABOUT: Final = f"""\
Market data as it is now. Prices are never invented: while the aggregator is away, what was known
last is answered with the header `Warning: 110` and `"stale": true`, and 503 where nothing is known.

WebSockets: `/ws/marketdata?symbol=AAPL` tells the aggregate of a symbol at once and on each update,
`/ws` quotes as they change, of every symbol or of `?symbols=AAPL,MSFT`.

STOMP 1.0 to 1.2 at `/ws/websocket`, and within SockJS at `/ws`: subscribe to
`/topic/market-data/SYMBOL`, `/topic/bars/SYMBOL/INTERVAL` or `/topic/quotes/SYMBOL`, where `*` is
every symbol. WebRTC peers send their signals to `/app/signal/ROOM` and hear those of others at
`/topic/signaling/ROOM`. Both can be tried: [STOMP](/demo/stomp), [a call](/demo/call).

{about_closing()}"""

_WARNING: Final = {"Warning": "110 where the answer is stale."}
_LIMITED: Final = {
    "RateLimit-Policy": "How many questions like this a client may ask.",
    "RateLimit": "How many are left.",
}
_OBJECT: Final = {"type": "object"}


def operations(
    rest: Rest,
    history: HistoryRest,
    quotes: Quotes,
    health: Health,
    books: BookProxy,
    ice_servers: IceServers,
    metrics: CollectorRegistry,
) -> tuple[Operation, ...]:
    """Return every operation; of paths that overlap the longer one first."""
    return (
        Operation(
            method="GET",
            path="/api/v1/marketdata/{symbol}",
            tag="market data",
            handler=rest.aggregate,
            summary="The session of a symbol so far.",
            parameters=(SYMBOL,),
            content=Content("Its aggregate.", reference("Aggregate"), headers=_WARNING),
            fails=(400, 404, 503),
        ),
        Operation(
            method="GET",
            path="/api/v1/marketdata",
            tag="market data",
            handler=rest.aggregates,
            summary="The sessions of all symbols.",
            content=Content(
                "Their aggregates, in order of symbol.",
                {"type": "array", "items": reference("Aggregate")},
                headers=_WARNING,
            ),
            fails=(503,),
        ),
        Operation(
            method="GET",
            path="/api/v1/bars/{symbol}",
            tag="market data",
            handler=rest.bars,
            summary="Bars of a symbol.",
            parameters=(SYMBOL, INTERVAL, LIMIT, BEFORE),
            content=Content(
                "Newest first. `pagination.next_cursor` is `before` of the next page.",
                reference("Bars"),
                headers={**_WARNING, **_LIMITED},
            ),
            fails=(400, 404, 502, 503, 504),
        ),
        *_history_operations(history),
        Operation(
            method="GET",
            path="/api/v1/ice-servers",
            tag="signaling",
            handler=ice_servers.answer,
            summary="What helps WebRTC peers to reach each other.",
            content=Content(
                "The configuration of an RTCPeerConnection; credentials in it end.",
                reference("IceServers"),
            ),
        ),
        Operation(
            method="GET",
            path="/v1/quotes",
            tag="market data",
            handler=quotes.answer,
            summary="The best prices and the last trade, of a symbol or of all.",
            parameters=(SYMBOL,),
            content=Content(
                "The symbol's quote; without a symbol an array of all, in order of symbol.",
                {
                    "oneOf": [
                        reference("Quote"),
                        {"type": "array", "items": reference("Quote")},
                    ]
                },
                headers=_WARNING,
            ),
            fails=(400, 404, 503),
        ),
        *_book_operations(books),
        Operation(
            method="GET",
            path="/health",
            tag="watching the gateway",
            handler=health.report,
            summary="Whether there is something to serve, and how fresh it is.",
            content=Content("There is.", reference("Health")),
            also={503: Content("There is nothing.", reference("Health"))},
            is_watching=True,
        ),
        Operation(
            method="GET",
            path="/metrics",
            tag="watching the gateway",
            handler=_scraping(metrics),
            summary="What the gateway counts, for Prometheus.",
            content=Content("Metrics as text.", {"type": "string"}, media_type="text/plain"),
            is_watching=True,
        ),
    )


def document_of(operations: tuple[Operation, ...]) -> dict[str, Any]:
    """Return the OpenAPI document of the gateway."""
    return document(operations, SCHEMAS, reference("Failure"), ABOUT)


def _history_operations(history: HistoryRest) -> tuple[Operation, ...]:
    return (
        Operation(
            method="GET",
            path="/api/v1/symbols",
            tag="market data",
            handler=history.symbols,
            summary="The symbols of which trades are stored.",
            content=Content("In order of symbol.", reference("Symbols"), headers=_LIMITED),
            fails=(502, 503, 504),
        ),
        Operation(
            method="GET",
            path="/api/v1/trades/{symbol}",
            tag="market data",
            handler=history.trades,
            summary="The trades of a symbol that are stored.",
            parameters=(SYMBOL, LIMIT, BEFORE_TRADE),
            content=Content(
                "Newest first. `pagination.next_cursor` is `before` of the next page, null where "
                "this is the last; pages have every trade once, whatever is traded meanwhile.",
                reference("Trades"),
                headers=_LIMITED,
            ),
            fails=(400, 404, 502, 503, 504),
        ),
    )


def _book_operations(books: BookProxy) -> tuple[Operation, ...]:
    routes = books.routes
    return (
        Operation(
            method="POST",
            path="/api/start-streaming",
            tag="order books",
            handler=routes["POST", "/api/start-streaming"],
            summary="Start a replay and the order books of it.",
            parameters=(
                Parameter(
                    "speed",
                    "How many times faster than it was recorded; 0 is as fast as it goes.",
                    {"type": "number", "minimum": 0},
                ),
            ),
            content=Content("Both were started, or one of them was at work.", _OBJECT),
            fails=(400, 409, 502, 503, 504),
        ),
        Operation(
            method="GET",
            path=ORDER_BOOK_PATH,
            tag="order books",
            handler=routes["GET", ORDER_BOOK_PATH],
            summary="The order books, a line a record, until the stream has ended.",
            parameters=(
                Parameter(
                    "last",
                    "true for one line a book, as it is now.",
                    {"enum": ["true", "false", "1", "0"], "default": "false"},
                ),
                Parameter(
                    "depth",
                    "Levels of each side.",
                    {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
                ),
                Parameter("symbols", "Names with commas; all without.", {"type": "string"}),
            ),
            content=Content(
                "Lines of JSON.", {"type": "string"}, media_type="application/x-ndjson"
            ),
            fails=(400, 409, 502, 503, 504),
        ),
        Operation(
            method="GET",
            path="/api/microservices/status",
            tag="order books",
            handler=routes["GET", "/api/microservices/status"],
            summary="What the sender and the receiver of order books are doing.",
            content=Content("Both are there.", _OBJECT),
            also={503: Content("One of them is away.", _OBJECT)},
        ),
    )


def _scraping(metrics: CollectorRegistry) -> Handler:
    async def scrape(_request: web.Request) -> web.Response:
        exposition = generate_latest(metrics)
        return web.Response(body=exposition, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return scrape
