"""The bars of the market however far back: the newest from memory, the others from the store."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores import TradeHistory, open_history
from mdtool.engine.bars import BAR, Bars
from mdtool.engine.market import Market


class MarketBars:
    """The bars of the market, and those of its store where memory ends.

    Parameters
    ----------
    market : Market
        Holds the newest ones, and all that the store has not got yet.
    url : str
        The store's; empty where there is none.
    """

    def __init__(self, market: Market, url: str) -> None:
        self._market = market
        self._store = open_history(url) if url else None
        self._thread = ThreadPoolExecutor(1, "bars")
        self._reading = asyncio.Lock()

    def __enter__(self) -> Self:
        if self._store is not None:
            self._thread.submit(self._store.__enter__)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._store is not None:
            self._store.interrupt()
            self._thread.submit(self._store.__exit__, None, None, None)
        self._thread.shutdown()

    async def history(self, symbol: int, interval_ns: int, limit: int, before_ns: int = 0) -> Bars:
        """Return bars of a symbol, newest first; parameters as those of `LiveBars.history`.

        Raises
        ------
        UsageError
            When there are no bars of that interval.
        StoreError, StoreFormatError
            When it takes the store to answer, and that cannot be read.
        """
        bars = self._market.bars.history(symbol, interval_ns, limit, before_ns)
        wanted = min(limit, self._market.bars.keep + 1) - len(bars)
        if self._store is None or wanted <= 0:
            return bars
        before_ns = int(bars["start_ns"][-1]) if len(bars) else before_ns
        name = self._market.symbols[symbol]
        async with self._reading:
            older = await self._read(self._store, name, interval_ns, wanted, before_ns)
        return np.concatenate([bars, _as_bars(symbol, older)])

    async def _read(
        self, store: TradeHistory, symbol: str, interval_ns: int, limit: int, before_ns: int
    ) -> NDArray[np.void]:
        reading = asyncio.get_running_loop().run_in_executor(
            self._thread, store.bars, symbol, interval_ns, limit, before_ns
        )
        try:
            return await reading
        except asyncio.CancelledError:
            store.interrupt()
            raise


def _as_bars(symbol: int, saved: NDArray[np.void]) -> Bars:
    bars = np.empty(len(saved), BAR)
    bars["instrument"] = symbol
    for name in BAR.names[1:] if BAR.names else ():
        bars[name] = saved[name]
    return bars
