"""Where each field of `Query` gets its rows: one function a field, named as in the schema."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mdtool.adapters.aggregator import UnknownSymbolError
from mdtool.services.gateway.encoding import Aggregate, Bar
from mdtool.services.gateway.parameters import (
    check_limit,
    parse_before,
    parse_interval,
    parse_symbol,
)
from mdtool.services.gateway.view import MarketView

Resolver = Callable[..., Awaitable[Any]]
"""Takes the field's arguments by name; returns a row, rows, or None for null."""


def resolvers(view: MarketView) -> Mapping[str, Resolver]:
    """Return the resolver of each field, which asks the view."""

    async def market_data(symbol: str) -> Aggregate | None:
        try:
            return view.state.aggregate(view.find(symbol))
        except UnknownSymbolError:
            return None

    async def symbols() -> list[str]:
        if not len(view.state.symbols):
            view.check_known()
        return sorted(view.state.symbols)

    async def bars(
        symbol: str, interval: str, limit: int, before: str | None = None
    ) -> list[Bar] | None:
        try:
            return await view.bars(
                parse_symbol(symbol),
                parse_interval(interval),
                check_limit(limit),
                parse_before(before),
            )
        except UnknownSymbolError:
            return None

    return {"marketData": market_data, "symbols": symbols, "bars": bars}
