"""How the rows behind the schema's object types become JSON, field by field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final

from mdtool.core.units import NS_PER_MS, format_price

Read = Callable[[Any], Any]
"""Reads a field off a row: its JSON where the field is a leaf, else the row or rows of its type."""


def _symbol(row: Any) -> str:
    return json.dumps(row.symbol)


def _price(name: str) -> Read:
    value = attrgetter(name)
    # Written out, for json.dumps takes prices only as doubles, which round off long decimals.
    return lambda row: format_price(value(row))


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
}
"""By object type and field; the rows are the gateway's own `Aggregate` and `Bar`."""
