"""The store of the market, in threads of its own: its writer, and the reader of older bars."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores import Store, open_history, open_store
from mdtool.adapters.stores.errors import StoreClaimedError, StoreError, StoreFormatError
from mdtool.adapters.stores.port import Step, TradeHistory
from mdtool.core.lifecycle import drain_s, stop_within_s
from mdtool.core.threads import WorkerThread
from mdtool.engine.bars import BAR, Bars
from mdtool.engine.market import Market
from mdtool.engine.saved_state import SavedState

if TYPE_CHECKING:
    from prometheus_client.core import Metric

log = logging.getLogger(__name__)

_CLAIM_SPARE_S: Final = 1.0
"""How much longer than a process that stops may take, the owner of the store is waited for."""
_CLAIM_AGAIN_S: Final = 0.1
_MEASURE_S: Final = 10.0


class StoreSize:
    """The size of a store, as it was a few seconds ago.

    Parameters
    ----------
    store : Store
        Entered in the thread that measures.

    Attributes
    ----------
    bytes : int or None
        None where it is not known.
    """

    def __init__(self, store: Store) -> None:
        self.bytes: int | None = None
        self._store = store
        self._next_s = 0.0

    def measure(self) -> None:
        """Measure the store where that was not done lately; what fails is left out."""
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _MEASURE_S
            with contextlib.suppress(StoreError):
                self.bytes = self._store.used_bytes()

    def measures(self) -> Iterator[Metric]:
        """Yield its metric."""
        from mdtool.services import families

        if self.bytes is not None:
            yield families.gauge("mdtool_store_bytes", self.bytes)


class StoreThread:
    """The calls of a store that a service makes, one after the other in one thread.

    Parameters
    ----------
    store : Store
        One that has been entered.
    thread : WorkerThread
        Where it was entered.
    """

    def __init__(self, store: Store, thread: WorkerThread) -> None:
        self._store = store
        self._thread = thread
        self.size = StoreSize(store)

    @property
    def address(self) -> str:
        """The name of the store in messages."""
        return self._store.address

    async def claim(self) -> None:
        """Claim the store's market; wait a little for another process that is about to stop.

        Raises
        ------
        StoreClaimedError
            When another process keeps its claim.
        """
        deadline_s = (
            asyncio.get_running_loop().time() + drain_s() + stop_within_s() + _CLAIM_SPARE_S
        )
        is_reported = False
        while True:
            try:
                await self._thread.run(self._store.claim)
            except StoreClaimedError:
                if asyncio.get_running_loop().time() > deadline_s:
                    raise
                if not is_reported:
                    is_reported = True
                    log.info("waiting for another process that has claimed %s", self.address)
                await asyncio.sleep(_CLAIM_AGAIN_S)
            else:
                return

    async def load(self, max_streams: int, lateness_ns: int) -> SavedState:
        """Return the state that a market restores; see `Store.load`."""
        return await self._thread.run(self._store.load, max_streams, lateness_ns)

    async def position(self, stream_id: str) -> int | None:
        """Return the next sequence of a stream; see `Store.position`."""
        return await self._thread.run(self._store.position, stream_id)

    async def own(self, stream_id: str, principal: str) -> str:
        """Make a stream a principal's; see `Store.own`."""
        return await self._thread.run(self._store.own, stream_id, principal)

    async def write(self, step: Step) -> None:
        """Write a step; see `Store.write`. One that is being written is, also when cancelled."""
        await self._thread.run(self._write, step)

    def _write(self, step: Step) -> None:
        self._store.write(step)
        self.size.measure()


@contextlib.asynccontextmanager
async def store_thread(url: str) -> AsyncIterator[StoreThread]:
    """Open the store that a URL names, and close it at the end.

    Raises
    ------
    ConfigError
        When there is no such kind of store.
    StoreError
        When it cannot be opened.
    """
    store = open_store(url)
    async with WorkerThread("store") as thread:
        await thread.run(store.__enter__)
        try:
            yield StoreThread(store, thread)
        finally:
            await thread.run(store.__exit__, None, None, None)


MAX_BARS: Final = 10_001
"""Bars read of the store at once, however few memory keeps: a page of the gateway and one more."""


class MarketBars:
    """The bars of the market, and older ones of its store.

    Parameters
    ----------
    market : Market
        Has the newest bars, and all that are not stored yet.
    history : TradeHistory, optional
        The store, where there is one.
    thread : WorkerThread, optional
        Where it is read.
    """

    def __init__(
        self,
        market: Market,
        history: TradeHistory | None = None,
        thread: WorkerThread | None = None,
    ) -> None:
        self._market = market
        self._history = history
        self._thread = thread
        self._reading = asyncio.Lock()

    async def history(self, symbol: int, interval_ns: int, limit: int, before_ns: int = 0) -> Bars:
        """Return bars of a symbol, newest first; parameters as those of `LiveBars.history`.

        Raises
        ------
        UsageError
            When there are no bars of that interval.
        StoreError, StoreFormatError
            When some of them are in the store, which cannot be read.
        """
        bars = self._market.bars.history(symbol, interval_ns, limit, before_ns)
        missing = min(limit, max(self._market.bars.keep + 1, MAX_BARS)) - len(bars)
        if self._history is None or missing <= 0:
            return bars
        before_ns = int(bars["start_ns"][-1]) if len(bars) else before_ns
        read = self._history.bars
        older = await self._read(read, symbol, interval_ns, missing, before_ns)
        return np.concatenate([bars, older])

    async def since(self, symbol: int, interval_ns: int, limit: int, since_ns: int) -> Bars:
        """Return bars of a symbol that start at a time or later, oldest first.

        Errors are those of `history`.
        """
        newest = self._market.bars.history(symbol, interval_ns, self._market.bars.keep + 1)[::-1]
        limit = min(limit, max(self._market.bars.keep + 1, MAX_BARS))
        bars = newest[newest["start_ns"] >= since_ns]
        is_in_memory = len(newest) > len(bars)
        if self._history is None or is_in_memory:
            return bars[:limit]
        read = self._history.bars_from
        older = await self._read(read, symbol, interval_ns, limit, since_ns)
        if len(newest):
            older = older[older["start_ns"] < newest["start_ns"][0]]
        return np.concatenate([older, bars])[:limit]

    async def _read(
        self,
        read: Callable[[str, int, int, int], NDArray[np.void]],
        symbol: int,
        interval_ns: int,
        limit: int,
        place_ns: int,
    ) -> Bars:
        assert self._history is not None
        assert self._thread is not None
        name = self._market.symbols[symbol]
        async with self._reading:
            try:
                saved = await self._thread.run(read, name, interval_ns, limit, place_ns)
            except asyncio.CancelledError:
                self._history.interrupt()
                raise
        return _as_bars(symbol, saved)


@contextlib.asynccontextmanager
async def market_bars(market: Market, url: str) -> AsyncIterator[MarketBars]:
    """Open the store that a URL names for reading, where it is not empty; close it at the end."""
    if not url:
        yield MarketBars(market)
        return
    history = open_history(url)
    async with WorkerThread("bars") as thread:
        with contextlib.suppress(StoreError, StoreFormatError):  # it is opened again when read
            await thread.run(history.__enter__)
        try:
            yield MarketBars(market, history, thread)
        finally:
            history.interrupt()
            await thread.run(history.__exit__, None, None, None)


def _as_bars(symbol: int, saved: NDArray[np.void]) -> Bars:
    bars = np.empty(len(saved), BAR)
    bars["instrument"] = symbol
    for name in BAR.names[1:] if BAR.names else ():
        bars[name] = saved[name]
    return bars
