"""How the rows behind the schema's object types become JSON, field by field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final

from mdtool.core.units import NS_PER_MS, format_price, format_time

Read = Callable[[Any], Any]
"""Reads a field off a row: its JSON where the field is a leaf, else the row or rows of its type."""


def _symbol(row: Any) -> str:
    return json.dumps(row.symbol)


def _price(name: str) -> Read:
    value = attrgetter(name)
    # Written out, for json.dumps takes prices only as doubles, which round off long decimals.
    return lambda row: format_price(value(row))


def _known_price(name: str) -> Read:
    value = attrgetter(name)
    return lambda row: "null" if value(row) is None else format_price(value(row))


def _whole(name: str) -> Read:
    value = attrgetter(name)
    return lambda row: f'"{value(row)}"'


def _milliseconds(name: str) -> Read:
    value = attrgetter(name)
    return lambda row: f'"{value(row) // NS_PER_MS}"'


_OHLCV: Final[Mapping[str, Read]] = {
    **{name: _price(name) for name in ("open", "high", "low", "close")},
    "volume": _whole("volume"),
}

READS: Final[Mapping[str, Mapping[str, Read]]] = {
    "Aggregate": {
        "symbol": _symbol,
        **_OHLCV,
        "timestamp": _milliseconds("timestamp"),
        "stale": lambda row: "true" if row.is_stale else "false",
    },
    "Bar": {
        "symbol": _symbol,
        "timestamp": _milliseconds("start"),
        **_OHLCV,
        "count": _whole("trades"),
    },
    "Book": {
        "symbol": _symbol,
        "timestamp": _milliseconds("timestamp"),
        "bids": attrgetter("bids"),
        "asks": attrgetter("asks"),
        "bidLevels": lambda row: str(row.bid_levels),
        "askLevels": lambda row: str(row.ask_levels),
        "orders": lambda row: str(row.orders),
        "partial": lambda row: "true" if row.is_partial else "false",
    },
    "Level": {
        "price": _price("price"),
        "size": _whole("size"),
        "orders": lambda row: str(row.orders),
    },
    "Symbol": {
        "symbol": _symbol,
        "tradeCount": _whole("trade_count"),
        "lastTradeAt": lambda row: f'"{format_time(row.last_trade_at_ns)}"',
    },
    "Trade": {
        "timestamp": lambda row: f'"{row.timestamp}"',
        "price": lambda row: f'"{format_price(row.price)}"',
        "volume": _whole("volume"),
    },
    "TradesPage": {
        "trades": attrgetter("trades"),
        "nextCursor": lambda row: json.dumps(row.next_cursor),
    },
    "Quote": {
        "symbol": _symbol,
        **{name: _known_price(name) for name in ("bid", "ask", "last")},
        "timestamp": _whole("ts_ms"),
        "stale": lambda row: "true" if row.is_stale else "false",
    },
}
"""By object type and field; the rows are what the rest of the gateway has of that kind."""
