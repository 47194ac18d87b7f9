"""What clients may ask of the history, whichever protocol they speak."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mdtool.adapters.aggregator import UnavailableError, UnknownSymbolError
from mdtool.adapters.stores.port import SymbolTotals, TradeHistory, TradeKey, TradePage
from mdtool.services.gateway.history.encoding import TradesPage, trade_rows
from mdtool.services.gateway.history.paging import place_after
from mdtool.services.gateway.history.readers import Readers
from mdtool.services.gateway.limits import UpstreamLimit
from mdtool.services.gateway.resilience import Resilience

T = TypeVar("T")


class HistoryView:
    """Answers out of a store, which trades go on being written to.

    Parameters
    ----------
    readers : Readers or None
        Who reads the store, None where there is none.
    resilience : Resilience
        How they are asked.
    limit : UpstreamLimit
        How often each client may have them asked.
    """

    def __init__(
        self, readers: Readers | None, resilience: Resilience, limit: UpstreamLimit
    ) -> None:
        self.limit = limit
        self._readers = readers
        self._resilience = resilience

    async def symbols(self) -> list[SymbolTotals]:
        """Return the symbols that have trades, in order.

        Raises
        ------
        LimitError
            When the client asked too often.
        PeerError
            As `Readers.ask` does, and UnavailableError where there is no store.
        """
        return await self._ask(lambda history: history.symbols())

    async def page(self, symbol: str, limit: int, before: TradeKey | None) -> TradesPage:
        """Return at most `limit` trades of a symbol that are below a key, newest first.

        Pages that follow each other by their cursors have every trade once that was there when
        the first was asked for, whatever is written meanwhile.

        Raises
        ------
        UnknownSymbolError
            When it has no trades at all.
        LimitError, PeerError
            As `symbols` does.
        """

        def read(history: TradeHistory) -> TradePage | None:
            page = history.page(symbol, limit + 1, before)  # one more tells whether it is the last
            return page if len(page) or history.has(symbol) else None

        page = await self._ask(read)
        if page is None:
            raise UnknownSymbolError(f"no trade of {symbol} is stored")
        cursor = place_after(symbol, page, limit - 1) if len(page) > limit else None
        return TradesPage(trade_rows(page, limit), cursor)

    async def _ask(self, question: Callable[[TradeHistory], T]) -> T:
        readers = self._readers
        if readers is None:
            raise UnavailableError("there is no history of trades: the gateway was given no store")
        self.limit.spend()
        return await self._resilience.ask(lambda timeout_s: readers.ask(question, timeout_s))
