"""Quotes of symbols of which only trades are known: the last price, and neither bid nor ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mdtool.core.units import NS_PER_MS
from mdtool.services.gateway.quotes.board import QuoteBoard
from mdtool.services.gateway.state import MarketState
from mdtool.wire.quotes import Quote


class LastTrades:
    """Makes quotes of aggregates, where nobody stands for a better one.

    Parameters
    ----------
    state : MarketState
        Where the trades are.
    board : QuoteBoard
        Where better quotes are: of a book, from this gateway or another.
    publish : callable
        Takes the quotes.
    """

    def __init__(
        self, state: MarketState, board: QuoteBoard, publish: Callable[[Sequence[Quote]], None]
    ) -> None:
        self._state = state
        self._board = board
        self._publish = publish

    def tell(self, changed: NDArray[np.intp]) -> None:
        """Publish the quotes of symbols, indices into the state, that traded."""
        if not self._state.is_live:
            return
        quotes = []
        for index in changed.tolist():
            aggregate = self._state.aggregate(index)
            known = self._board.find(aggregate.symbol)
            has_better = known is not None and known.is_of_book and not known.is_stale
            if not (aggregate.is_stale or has_better):
                ts_ms = aggregate.timestamp // NS_PER_MS
                quotes.append(Quote(aggregate.symbol, None, None, aggregate.close, ts_ms))
        if quotes:
            self._publish(quotes)

    def repeat(self) -> None:
        """Publish all of them once more: they still stand, as long as the aggregator is there."""
        self.tell(np.arange(len(self._state.symbols)))
