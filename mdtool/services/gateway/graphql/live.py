"""Where each field of `Subscription` gets its rows: one source a field, named as in the schema."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mdtool.core.errors import PeerError
from mdtool.services.gateway.bar_feed import BarFeed
from mdtool.services.gateway.encoding import Bar
from mdtool.services.gateway.graphql.audience import Audience, Operation
from mdtool.services.gateway.graphql.plan import RootField
from mdtool.services.gateway.hub import Hub
from mdtool.services.gateway.parameters import parse_interval, parse_symbol
from mdtool.services.gateway.state import MarketState


class Source(Protocol):
    """Rows of a field, for whoever follows them."""

    @contextlib.contextmanager
    def following(
        self, field: RootField, operation: Operation, arguments: Mapping[str, Any]
    ) -> Iterator[None]:
        """Have an operation told within the block.

        Raises
        ------
        ParameterError
            For an argument that makes no sense.
        """
        ...


class MarketDataSource:
    """The aggregates of symbols, at once and on each update."""

    def __init__(self, state: MarketState, hub: Hub) -> None:
        self._state = state
        self._hub = hub
        self._audiences: dict[str, Audience] = {}

    def publish(self, changed: NDArray[np.intp]) -> None:
        """Tell everybody who follows one of the symbols what it has become."""
        if not self._audiences:
            return
        state = self._state
        for index in changed.tolist():
            audience = self._audiences.get(state.symbols[index])
            if audience is not None:
                audience.tell(state.aggregate(index))

    @contextlib.contextmanager
    def following(
        self, field: RootField, operation: Operation, arguments: Mapping[str, Any]
    ) -> Iterator[None]:
        """Have an operation told of `symbol`."""
        symbol = parse_symbol(arguments["symbol"])
        index = self._state.symbols.find(symbol)
        row = None if index is None else self._state.aggregate(index)
        audience = self._audiences.setdefault(symbol, Audience(self._hub))
        audience.join(field, operation, row, None)
        try:
            yield
        finally:
            audience.leave(field, operation)
            if not audience:
                del self._audiences[symbol]


class BarsSource:
    """The bars of series, from the newest on."""

    def __init__(self, bars: BarFeed, hub: Hub) -> None:
        self._bars = bars
        self._hub = hub
        self._series: dict[tuple[str, str], _Series] = {}

    @contextlib.contextmanager
    def following(
        self, field: RootField, operation: Operation, arguments: Mapping[str, Any]
    ) -> Iterator[None]:
        """Have an operation told of the bars of `symbol` and `interval`."""
        key = (parse_symbol(arguments["symbol"]), parse_interval(arguments["interval"]))
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series(self._hub)
            series.feed.enter_context(self._bars.following(*key, series))
        newest = self._bars.newest(*key)
        series.audience.join(field, operation, newest, newest and newest.start)
        try:
            yield
        finally:
            series.audience.leave(field, operation)
            if not series.audience and self._series.get(key) is series:
                del self._series[key]
                series.feed.close()


class _Series:
    """Those who follow the bars of a symbol and interval."""

    def __init__(self, hub: Hub) -> None:
        self.audience = Audience(hub)
        self.feed = contextlib.ExitStack()

    def take(self, bars: list[Bar]) -> None:
        for bar in bars:
            # A client that is behind is told the last of each bar, not only of the newest.
            self.audience.tell(bar, bar.start)

    def refuse(self, error: PeerError) -> None:
        self.audience.fail(error)
