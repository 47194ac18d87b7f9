"""The operations of REST version 1 and of monitoring, with the schemas of their bodies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from mdtool.core.units import NS_PER_MS
from mdtool.services.gateway import table
from mdtool.services.gateway.parameters import DEFAULT_ROWS, MAX_ROWS
from mdtool.services.gateway.protocols.book_services import ORDER_BOOK_PATH
from mdtool.services.gateway.protocols.operation import (
    CURSOR,
    RATE_HEADERS,
    SYMBOL,
    SYMBOLS,
    TIME,
    WARNING_HEADER,
    Content,
    Operation,
    Parameter,
    Schema,
    object_schema,
    reference,
)

_DIGITS: Final = {"type": "string", "pattern": "^[0-9]+$"}
_TIME: Final = {**_DIGITS, "description": "ms since the epoch", "examples": ["1735201234567"]}
_VOLUME: Final = {**_DIGITS, "examples": ["1000000"]}
_PRICE: Final = {"type": "number", "exclusiveMinimum": 0, "examples": [187.25]}
_KNOWN_PRICE: Final = {
    "type": ["number", "null"],
    "description": "null where it is unknown",
    "examples": [187.25],
}
_COUNT: Final = {"type": "integer", "minimum": 0}
_TEXT: Final = {"type": "string"}
_STALE: Final = {
    "const": True,
    "description": "Present where the aggregator is unavailable and this is the last known state.",
}


def _envelope(data: dict[str, Any]) -> Schema:
    """Return the schema of an answer whose data are an object."""
    return object_schema(
        {"data": object_schema(data), "error": {"type": "null"}, "message": {"type": "null"}}
    )


INTERVAL: Final = Parameter(table.INTERVAL.name, table.INTERVAL.about, table.INTERVAL.schema)
LIMIT: Final = Parameter(
    "limit",
    "How many at most.",
    {"type": "integer", "minimum": 1, "maximum": MAX_ROWS, "default": DEFAULT_ROWS},
)
BEFORE: Final = Parameter(
    "before",
    "The cursor of the page before: bars that began before it, in ms since the epoch.",
    {"type": "integer", "minimum": 1, "maximum": (2**63 - 1) // NS_PER_MS},
)
BEFORE_TRADE: Final = Parameter(
    "before",
    "The cursor of the page before, which is of this symbol; or a time in ms since the epoch: "
    "trades that took place before it.",
    {
        "oneOf": [
            {"type": "integer", "minimum": 1, "maximum": (2**63 - 1) // NS_PER_MS},
            CURSOR,
        ]
    },
)

_PEER: Final = object_schema(
    {
        "address": _TEXT,
        "connected": {"type": "boolean"},
        "message": {"type": ["string", "null"]},
    }
)
SCHEMAS: Final[dict[str, Schema]] = {
    "Aggregate": object_schema(
        {
            "symbol": _TEXT,
            **dict.fromkeys(("open", "high", "low", "close"), _PRICE),
            "volume": _VOLUME,
            "timestamp": _TIME,
            "stale": _STALE,
        },
        "stale",
    ),
    "Bar": object_schema(
        {
            "timestamp": _TIME,
            **dict.fromkeys(("open", "high", "low", "close"), _PRICE),
            "volume": _VOLUME,
            "count": _COUNT,
        }
    ),
    "Bars": object_schema(
        {
            "data": {"type": "array", "items": reference("Bar"), "maxItems": MAX_ROWS},
            "error": {"type": "null"},
            "message": {"type": "null"},
            "pagination": object_schema(
                {"next_cursor": {**_TIME, "type": ["string", "null"]}},
            ),
            "stale": _STALE,
        },
        "stale",
    ),
    "Trades": _envelope(
        {
            "data": {
                "type": "array",
                "items": reference("Trade"),
                "maxItems": MAX_ROWS,
            },
            "pagination": object_schema({"next_cursor": {**CURSOR, "type": ["string", "null"]}}),
        }
    ),
    "Trade": object_schema(
        {
            "timestamp": {**TIME, "description": "Exchange time."},
            "price": {
                "type": "string",
                "pattern": r"^[0-9]+(\.[0-9]{1,9})?$",
                "examples": ["187.25"],
            },
            "volume": _VOLUME,
        }
    ),
    "Symbols": _envelope({"available": {"type": "array", "items": reference("Available")}}),
    "Available": object_schema(
        {
            "symbol": _TEXT,
            "trade_count": {**_COUNT, "minimum": 1},
            "last_trade_at": {**TIME, "description": "The latest exchange time."},
        }
    ),
    "Quote": object_schema(
        {
            "symbol": _TEXT,
            **dict.fromkeys(("bid", "ask", "last"), _KNOWN_PRICE),
            "ts": {**_COUNT, "description": "ms since the epoch", "examples": [1735201234567]},
            "partial": {
                "const": True,
                "description": "Present where better prices may be missing from the book.",
            },
            "stale": {**_STALE, "description": "Present where it is stale."},
        },
        "partial",
        "stale",
    ),
    "Failure": object_schema(
        {
            "data": {"type": "null"},
            "error": {"type": "string", "examples": ["not_found"]},
            "message": _TEXT,
        }
    ),
    "Status": object_schema({"status": {"type": "string"}}),
    "Health": object_schema(
        {
            "status": {"enum": ["ok", "degraded", "blocked", "stale", "unavailable"]},
            "age_ms": {"type": ["number", "null"]},
            "workers": _COUNT,
            "aggregator": _PEER,
            "symbols": object_schema({"known": _COUNT, "stale": _COUNT}),
            "quotes": object_schema(
                {
                    "known": _COUNT,
                    "stale": _COUNT,
                    "hub": _PEER,
                    "source": {"oneOf": [_PEER, {"type": "null"}]},
                }
            ),
            "vwap": _PEER,
            "store": {"oneOf": [_PEER, {"type": "null"}]},
            "sender": _PEER,
            "receiver": _PEER,
            "ticks": {
                "oneOf": [_COUNT, {"type": "null"}],
                "description": "Ticks that the aggregator accepted; null before its first message.",
            },
            "sent": {**_COUNT, "description": "Messages written to WebSockets."},
            "sockets": _COUNT,
            "circuit": object_schema(
                {
                    "state": {"enum": ["closed", "open", "half_open"]},
                    "opened": _COUNT,
                    "answered": _COUNT,
                    "failed": _COUNT,
                    "repeated": _COUNT,
                    "refused": _COUNT,
                }
            ),
            "refused": object_schema(
                dict.fromkeys(("requests", "upstream", "sockets", "origins"), _COUNT)
            ),
            "waits": _COUNT,
        }
    ),
    "IceServers": object_schema(
        {
            "iceServers": {
                "type": "array",
                "items": object_schema(
                    {
                        "urls": {"type": "array", "items": _TEXT},
                        "username": {**_TEXT, "description": "When its credential expires, in s."},
                        "credential": _TEXT,
                    },
                    "username",
                    "credential",
                ),
            }
        }
    ),
}


_OBJECT: Final = {"type": "object"}
_HISTORY: Final = (
    Operation(
        method="GET",
        path="/api/v1/symbols",
        tag="market data",
        summary="The symbols of which trades are stored.",
        content=Content("In order of symbol.", reference("Symbols"), headers=RATE_HEADERS),
        fails=(502, 503, 504),
    ),
    Operation(
        method="GET",
        path="/api/v1/trades/{symbol}",
        tag="market data",
        summary="The trades of a symbol that are stored.",
        parameters=(SYMBOL, LIMIT, BEFORE_TRADE),
        content=Content(
            "Newest first. `pagination.next_cursor` is `before` of the next page, null where "
            "this is the last; pages have every trade once, whatever is traded meanwhile.",
            reference("Trades"),
            headers=RATE_HEADERS,
        ),
        fails=(400, 404, 502, 503, 504),
    ),
)
_BOOKS: Final = (
    Operation(
        method="POST",
        path="/api/start-streaming",
        tag="order books",
        summary="Start a replay and its order books.",
        parameters=(
            Parameter(
                "speed",
                "How many times faster than recorded; 0 is as fast as possible.",
                {"type": "number", "minimum": 0},
            ),
        ),
        content=Content("Both were started, or one of them was running.", _OBJECT),
        fails=(400, 409, 502, 503, 504),
    ),
    *(
        Operation(
            method="POST",
            path=f"/api/{name}-streaming",
            tag="order books",
            summary=f"{name.capitalize()} the replay.",
            content=Content("The state of the replay.", _OBJECT),
            fails=(409, 502, 503, 504),
        )
        for name in ("stop", "pause", "resume")
    ),
    Operation(
        method="POST",
        path="/api/set-speed",
        tag="order books",
        summary="Continue the replay at another speed.",
        parameters=(
            Parameter(
                "speed",
                "How many times faster than recorded; 0 is as fast as possible.",
                {"type": "number", "minimum": 0},
            ),
        ),
        content=Content("The state of the replay.", _OBJECT),
        fails=(400, 409, 502, 503, 504),
    ),
    Operation(
        method="GET",
        path=ORDER_BOOK_PATH,
        tag="order books",
        summary="The order books, a line a record, until the stream ends.",
        parameters=(
            Parameter(
                "last",
                "true for one line a book, its present state.",
                {"enum": ["true", "false", "1", "0"], "default": "false"},
            ),
            Parameter(
                "depth",
                "Levels of each side.",
                {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
            ),
            Parameter("symbols", "Names with commas; all by default.", {"type": "string"}),
        ),
        content=Content("Lines of JSON.", {"type": "string"}, media_type="application/x-ndjson"),
        fails=(400, 409, 502, 503, 504),
    ),
    Operation(
        method="GET",
        path="/api/microservices/status",
        tag="order books",
        summary="The status of the sender and the receiver of order books.",
        content=Content("Both are available.", _OBJECT),
        also={503: Content("One of them is unavailable.", _OBJECT)},
    ),
)
OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/api/v1/marketdata/{symbol}",
        tag="market data",
        summary="The session of a symbol so far.",
        parameters=(SYMBOL,),
        content=Content("Its aggregate.", reference("Aggregate"), headers=WARNING_HEADER),
        fails=(400, 404, 503),
    ),
    Operation(
        method="GET",
        path="/api/v1/marketdata",
        tag="market data",
        summary="The sessions of all symbols.",
        content=Content(
            "Their aggregates, in order of symbol.",
            {"type": "array", "items": reference("Aggregate")},
            headers=WARNING_HEADER,
        ),
        parameters=(SYMBOLS,),
        fails=(400, 503),
    ),
    Operation(
        method="GET",
        path="/api/v1/bars/{symbol}",
        tag="market data",
        summary="Bars of a symbol.",
        parameters=(SYMBOL, INTERVAL, LIMIT, BEFORE),
        content=Content(
            "Newest first. `pagination.next_cursor` is `before` of the next page.",
            reference("Bars"),
            headers={**WARNING_HEADER, **RATE_HEADERS},
        ),
        fails=(400, 404, 502, 503, 504),
    ),
    *_HISTORY,
    Operation(
        method="GET",
        path="/api/v1/ice-servers",
        tag="signaling",
        summary="The STUN and TURN servers for WebRTC peers.",
        content=Content(
            "The configuration of an RTCPeerConnection; its credentials expire.",
            reference("IceServers"),
        ),
    ),
    Operation(
        method="GET",
        path="/v1/quotes",
        tag="market data",
        summary="The best prices and the last trade, of a symbol or of all.",
        parameters=(replace(SYMBOLS, name="symbol"), SYMBOLS),
        content=Content(
            "The quote of `symbol`; otherwise an array, of `symbols` or of all, in order.",
            {
                "oneOf": [
                    reference("Quote"),
                    {"type": "array", "items": reference("Quote")},
                ]
            },
            headers=WARNING_HEADER,
        ),
        fails=(400, 404, 503),
    ),
    *_BOOKS,
    Operation(
        method="GET",
        path="/livez",
        tag="monitoring",
        summary="Whether the gateway answers.",
        content=Content("It does.", reference("Status")),
        is_monitoring=True,
    ),
    Operation(
        method="GET",
        path="/readyz",
        tag="monitoring",
        summary="Whether there are data to serve.",
        content=Content("There are.", reference("Status")),
        also={503: Content("There are none.", reference("Status"))},
        is_monitoring=True,
    ),
    Operation(
        method="GET",
        path="/health",
        tag="monitoring",
        summary="Whether there are data to serve, and how fresh they are.",
        content=Content("There are.", reference("Health")),
        also={503: Content("There are none.", reference("Health"))},
        is_monitoring=True,
    ),
    Operation(
        method="GET",
        path="/metrics",
        tag="monitoring",
        summary="Metrics for Prometheus, as OpenMetrics where `Accept` prefers that.",
        content=Content("Metrics as text.", {"type": "string"}, media_type="text/plain"),
        is_monitoring=True,
    ),
)
