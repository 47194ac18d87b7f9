"""A store in a thread of its own, called from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from mdtool.adapters.stores import Store, open_store
from mdtool.adapters.stores.errors import StoreClaimedError
from mdtool.adapters.stores.port import SavedState, Step
from mdtool.core.lifecycle import stop_within_s

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_CLAIM_SPARE_S: Final = 1.0
"""How much longer whoever holds the store is waited for than one that is stopping may take."""
_CLAIM_AGAIN_S: Final = 0.1


class StoreThread:
    """The calls of a store that a service makes, one after the other in one thread.

    Parameters
    ----------
    store : Store
        One that has been entered.
    thread : ThreadPoolExecutor
        Of one thread, in which it was entered.
    """

    def __init__(self, store: Store, thread: ThreadPoolExecutor) -> None:
        self._store = store
        self._thread = thread

    @property
    def address(self) -> str:
        """What the store is, for people."""
        return self._store.address

    async def claim(self) -> None:
        """Hold the store's market; wait a little for a process that is about to leave it.

        Raises
        ------
        StoreClaimedError
            When another process goes on to hold it.
        """
        deadline_s = asyncio.get_running_loop().time() + stop_within_s() + _CLAIM_SPARE_S
        is_told = False
        while True:
            try:
                await self._call(self._store.claim)
            except StoreClaimedError:
                if asyncio.get_running_loop().time() > deadline_s:
                    raise
                if not is_told:
                    is_told = True
                    log.info("waiting for another process that holds %s", self.address)
                await asyncio.sleep(_CLAIM_AGAIN_S)
            else:
                return

    async def load(self, max_streams: int, lateness_ns: int) -> SavedState:
        """Return what a market takes up again; see `Store.load`."""
        return await self._call(lambda: self._store.load(max_streams, lateness_ns))

    async def position(self, stream_id: str) -> int | None:
        """Return the next sequence of a stream; see `Store.position`."""
        return await self._call(lambda: self._store.position(stream_id))

    async def write(self, step: Step) -> None:
        """Write a step; see `Store.write`. One that is being written is, also when cancelled."""
        await self._call(lambda: self._store.write(step))

    async def _call(self, call: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


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
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, "store") as thread:
        await loop.run_in_executor(thread, store.__enter__)
        try:
            yield StoreThread(store, thread)
        finally:
            await loop.run_in_executor(thread, store.__exit__, None, None, None)
