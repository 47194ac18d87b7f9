"""How the bodies of the gateway's answers look, and what its parameters may be, as JSON Schema."""

from __future__ import annotations

from typing import Any, Final

from mdtool.core.symbols import MAX_SYMBOL_CHARS
from mdtool.core.units import NS_PER_MS
from mdtool.services.aggregator.config import INTERVALS
from mdtool.services.gateway.openapi import Parameter, Schema
from mdtool.services.gateway.parameters import DEFAULT_ROWS, MAX_ROWS
from mdtool.wire.cursors import MAX_CURSOR_CHARS, MIN_CURSOR_CHARS

_DIGITS: Final = {"type": "string", "pattern": "^[0-9]+$"}
_TIME: Final = {**_DIGITS, "description": "ms since the epoch", "examples": ["1735201234567"]}
_VOLUME: Final = {**_DIGITS, "examples": ["1000000"]}
_PRICE: Final = {"type": "number", "exclusiveMinimum": 0, "examples": [187.25]}
_KNOWN_PRICE: Final = {
    "type": ["number", "null"],
    "description": "null where it is not known",
    "examples": [187.25],
}
_COUNT: Final = {"type": "integer", "minimum": 0}
_TEXT: Final = {"type": "string"}
_STALE: Final = {
    "const": True,
    "description": "There where the aggregator is away and this is what was known last.",
}


_ISO_TIME: Final = {
    "type": "string",
    "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z$",
    "examples": ["2024-12-26T08:20:34.567123456Z"],
}
_CURSOR: Final = {
    "type": "string",
    "pattern": f"^[A-Za-z][A-Za-z0-9_-]{{{MIN_CURSOR_CHARS - 1},{MAX_CURSOR_CHARS - 1}}}$",
}


def _object(properties: dict[str, Any], *optional: str) -> Schema:
    """Return the schema of an object that has these properties and no others."""
    required = [name for name in properties if name not in optional]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _envelope(data: dict[str, Any]) -> Schema:
    """Return the schema of an answer whose data are an object."""
    return _object({"data": _object(data), "error": {"type": "null"}, "message": {"type": "null"}})


def reference(name: str) -> Schema:
    """Return a reference to one of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


SYMBOL: Final = Parameter(
    "symbol",
    "Printable ASCII; its case does not matter.",
    {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_SYMBOL_CHARS,
        "pattern": "^[!-~]([ -~]*[!-~])?$",
    },
    example="AAPL",
)
INTERVAL: Final = Parameter(
    "interval", "How long each bar is.", {"type": "string", "enum": [*INTERVALS], "default": "1m"}
)
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
            _CURSOR,
        ]
    },
)

_PEER: Final = _object(
    {
        "address": _TEXT,
        "connected": {"type": "boolean"},
        "message": {"type": ["string", "null"]},
    }
)
SCHEMAS: Final[dict[str, Schema]] = {
    "Aggregate": _object(
        {
            "symbol": _TEXT,
            **dict.fromkeys(("open", "high", "low", "close"), _PRICE),
            "volume": _VOLUME,
            "timestamp": _TIME,
            "stale": _STALE,
        },
        "stale",
    ),
    "Bar": _object(
        {
            "timestamp": _TIME,
            **dict.fromkeys(("open", "high", "low", "close"), _PRICE),
            "volume": _VOLUME,
            "count": _COUNT,
        }
    ),
    "Bars": _object(
        {
            "data": {"type": "array", "items": reference("Bar"), "maxItems": MAX_ROWS},
            "error": {"type": "null"},
            "message": {"type": "null"},
            "pagination": _object(
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
            "pagination": _object({"next_cursor": {**_CURSOR, "type": ["string", "null"]}}),
        }
    ),
    "Trade": _object(
        {
            "timestamp": {**_ISO_TIME, "description": "Exchange time."},
            "price": {
                "type": "string",
                "pattern": r"^[0-9]+(\.[0-9]{1,9})?$",
                "examples": ["187.25"],
            },
            "volume": _VOLUME,
        }
    ),
    "Symbols": _envelope({"available": {"type": "array", "items": reference("Available")}}),
    "Available": _object(
        {
            "symbol": _TEXT,
            "trade_count": {**_COUNT, "minimum": 1},
            "last_trade_at": {**_ISO_TIME, "description": "The latest exchange time."},
        }
    ),
    "Quote": _object(
        {
            "symbol": _TEXT,
            **dict.fromkeys(("bid", "ask", "last"), _KNOWN_PRICE),
            "ts": {**_COUNT, "description": "ms since the epoch", "examples": [1735201234567]},
            "stale": {**_STALE, "description": "There where nobody has stood for it lately."},
        },
        "stale",
    ),
    "Failure": _object(
        {
            "data": {"type": "null"},
            "error": {"type": "string", "examples": ["not_found"]},
            "message": _TEXT,
        }
    ),
    "Health": _object(
        {
            "status": {"enum": ["ok", "blocked", "stale", "unavailable"]},
            "aggregator": _PEER,
            "symbols": _object({"known": _COUNT, "stale": _COUNT}),
            "quotes": _object(
                {
                    "known": _COUNT,
                    "stale": _COUNT,
                    "hub": _PEER,
                    "source": {"oneOf": [_PEER, {"type": "null"}]},
                }
            ),
            "store": {"oneOf": [_PEER, {"type": "null"}]},
            "sockets": _COUNT,
            "circuit": _object(
                {
                    "state": {"enum": ["closed", "open", "half_open"]},
                    "opened": _COUNT,
                    "answered": _COUNT,
                    "failed": _COUNT,
                    "repeated": _COUNT,
                    "refused": _COUNT,
                }
            ),
            "refused": _object(
                dict.fromkeys(("requests", "upstream", "sockets", "origins"), _COUNT)
            ),
            "waits": _COUNT,
        }
    ),
    "IceServers": _object(
        {
            "iceServers": {
                "type": "array",
                "items": _object(
                    {
                        "urls": {"type": "array", "items": _TEXT},
                        "username": {**_TEXT, "description": "When its credential ends, in s."},
                        "credential": _TEXT,
                    },
                    "username",
                    "credential",
                ),
            }
        }
    ),
}
