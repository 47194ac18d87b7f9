"""What clients may ask of the market, whichever protocol they speak."""

from __future__ import annotations

from itertools import repeat

from mdtool.adapters.aggregator import AggregatorClient, UnavailableError, UnknownSymbolError
from mdtool.services.gateway.encoding import Bar, bar_rows
from mdtool.services.gateway.parameters import parse_symbol
from mdtool.services.gateway.state import MarketState


class MarketView:
    """Answers out of memory where it can, else from the aggregator.

    Parameters
    ----------
    state : MarketState
        What is in memory.
    aggregator : AggregatorClient
        Who has the rest.
    timeout_s : float
        How long it may take.
    """

    def __init__(self, state: MarketState, aggregator: AggregatorClient, timeout_s: float) -> None:
        self.state = state
        self._aggregator = aggregator
        self._timeout_s = timeout_s

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

    async def bars(self, symbol: str, interval: str, limit: int, before_ns: int) -> list[Bar]:
        """Return bars of a symbol, newest first, as `AggregatorClient.bars` does."""
        bars = await self._aggregator.bars(symbol, interval, limit, before_ns, self._timeout_s)
        return bar_rows(repeat(symbol, len(bars)), bars)
