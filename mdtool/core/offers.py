"""What one service of a process offers to the services beside it, while it does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Offer(Generic[T]):
    """A place at which something is offered for a while, and awaited by who needs it.

    Parameters
    ----------
    address : str
        Where the service that offers it listens for other processes.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._offered: asyncio.Future[T] | None = None
        self._ended = asyncio.Event()

    @contextlib.contextmanager
    def offering(self, thing: T) -> Iterator[None]:
        """Offer something within the block."""
        self._ended.clear()
        self._place().set_result(thing)
        try:
            yield
        finally:
            self._offered = None
            self._ended.set()

    async def taken(self) -> T:
        """Return what is offered, once it is."""
        return await asyncio.shield(self._place())

    async def ended(self) -> None:
        """Wait until what is offered now is offered no more."""
        await self._ended.wait()

    def _place(self) -> asyncio.Future[T]:
        if self._offered is None:
            self._offered = asyncio.get_running_loop().create_future()
        return self._offered
