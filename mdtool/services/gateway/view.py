"""What clients may ask of the market, whichever protocol they speak."""

from __future__ import annotations

from itertools import repeat
from typing import Final, NamedTuple

from mdtool.adapters.aggregator import (
    UnansweredError,
    UnavailableError,
    UnknownSymbolError,
)
from mdtool.adapters.market import MarketReader
from mdtool.services.gateway.encoding import Bar, bar_rows
from mdtool.services.gateway.limits import UpstreamLimit
from mdtool.services.gateway.parameters import parse_symbol
from mdtool.services.gateway.resilience import Resilience
from mdtool.services.gateway.state import MarketState
from mdtool.wire.batches import BarColumns

_PAGES_KEPT: Final = 256
"""Answers about bars that are there should the aggregator go away; one is 56 KB at most."""


class BarPage(NamedTuple):
    """Bars of a symbol, newest first."""

    bars: list[Bar]
    is_stale: bool


class MarketView:
    """Answers out of memory where it can, else from the aggregator.

    Parameters
    ----------
    state : MarketState
        What is in memory.
    aggregator : MarketReader
        Who has the rest.
    resilience : Resilience
        How it is asked.
    limit : UpstreamLimit
        How often each client may have it asked.
    """

    def __init__(
        self,
        state: MarketState,
        aggregator: MarketReader,
        resilience: Resilience,
        limit: UpstreamLimit,
    ) -> None:
        self.state = state
        self.limit = limit
        self._aggregator = aggregator
        self._resilience = resilience
        self._pages: dict[tuple[str, str, int, int], BarColumns] = {}

    def find(self, text: str) -> int:
        """Return the index into the state of a symbol, as a client wrote it.

        Raises
        ------
        ParameterError
            When it can be no symbol.
        UnknownSymbolError
            When it has not traded.
        UnavailableError
            When that cannot be known.
        """
        symbols = self.state.symbols
        index = symbols.find(text)
        if index is None:
            symbol = parse_symbol(text)
            index = symbols.find(symbol)
            if index is None:
                self.check_known()
                raise UnknownSymbolError(f"no trade of {symbol} yet")
        return index

    def check_known(self) -> None:
        """Raise UnavailableError where the aggregator is away: what is not known may yet be."""
        if not self.state.is_live:
            raise UnavailableError(
                f"aggregator {self._aggregator.address} is away, and nothing is known from before"
            )

    async def bar_page(self, symbol: str, interval: str, limit: int, before_ns: int) -> BarPage:
        """Return bars of a symbol, the last known ones while the aggregator is away.

        Raises
        ------
        LimitError
            When the client asked too often.
        PeerError
            As `MarketReader.bars` does, where the same was not asked before.
        """
        try:
            bars = await self._ask_bars(symbol, interval, limit, before_ns)
        except (UnavailableError, UnansweredError):
            known = self._pages.get((symbol, interval, limit, before_ns))
            if known is None:
                raise
            return BarPage(_rows(symbol, known), is_stale=True)
        return BarPage(_rows(symbol, bars), is_stale=False)

    async def _ask_bars(self, symbol: str, interval: str, limit: int, before_ns: int) -> BarColumns:
        self.limit.spend()
        bars = await self._resilience.ask(
            lambda timeout_s: self._aggregator.bars(symbol, interval, limit, before_ns, timeout_s)
        )
        page = (symbol, interval, limit, before_ns)
        self._pages.pop(page, None)
        self._pages[page] = bars
        if len(self._pages) > _PAGES_KEPT:
            del self._pages[next(iter(self._pages))]
        return bars


def _rows(symbol: str, bars: BarColumns) -> list[Bar]:
    return bar_rows(repeat(symbol, len(bars)), bars)
