"""The bars of the market however far back: the newest from memory, the others from the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores import open_history
from mdtool.engine.bars import BAR, Bars
from mdtool.engine.market import Market

MAX_BARS: Final = 10_001
"""Bars read of the store at once, however few memory keeps: a page of the gateway and one more."""


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
        wanted = min(limit, max(self._market.bars.keep + 1, MAX_BARS)) - len(bars)
        if self._store is None or wanted <= 0:
            return bars
        before_ns = int(bars["start_ns"][-1]) if len(bars) else before_ns
        name = self._market.symbols[symbol]
        async with self._reading:
            read = self._store.bars
            older = await self._read(read, name, interval_ns, wanted, before_ns)
        return np.concatenate([bars, _as_bars(symbol, older)])

    async def since(self, symbol: int, interval_ns: int, limit: int, since_ns: int) -> Bars:
        """Return bars of a symbol that start at a time or later, oldest first.

        Errors are those of `history`.
        """
        newest = self._market.bars.history(symbol, interval_ns, self._market.bars.keep + 1)[::-1]
        limit = min(limit, max(self._market.bars.keep + 1, MAX_BARS))
        bars = newest[newest["start_ns"] >= since_ns]
        is_in_memory = len(newest) > len(bars)
        if self._store is None or is_in_memory:
            return bars[:limit]
        name = self._market.symbols[symbol]
        async with self._reading:
            read = self._store.bars_from
            older = await self._read(read, name, interval_ns, limit, since_ns)
        if len(newest):
            older = older[older["start_ns"] < newest["start_ns"][0]]
        return np.concatenate([_as_bars(symbol, older), bars])[:limit]

    async def _read(
        self,
        read: Callable[[str, int, int, int], NDArray[np.void]],
        symbol: str,
        interval_ns: int,
        limit: int,
        place_ns: int,
    ) -> NDArray[np.void]:
        reading = asyncio.get_running_loop().run_in_executor(
            self._thread, read, symbol, interval_ns, limit, place_ns
        )
        try:
            return await reading
        except asyncio.CancelledError:
            assert self._store is not None
            self._store.interrupt()
            raise


def _as_bars(symbol: int, saved: NDArray[np.void]) -> Bars:
    bars = np.empty(len(saved), BAR)
    bars["instrument"] = symbol
    for name in BAR.names[1:] if BAR.names else ():
        bars[name] = saved[name]
    return bars
