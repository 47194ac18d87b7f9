"""Subscribers that wait for symbols. Nothing is queued: one that wakes reads the present state."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mdtool.core.symbols import SymbolTable


class Wakeups:
    """An asynchronous iterator that advances at once, then after each change, until it is closed.

    Changes between two steps are one: a slow reader skips states, never the last one.
    """

    __slots__ = ("_event", "_is_closed")

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._event.set()
        self._is_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> None:
        await self._event.wait()
        self._event.clear()
        if self._is_closed:
            raise StopAsyncIteration

    def wake(self) -> None:
        """Let the reader advance."""
        self._event.set()

    def close(self) -> None:
        """End the iteration."""
        self._is_closed = True
        self._event.set()


class Subscribers:
    """The readers of the state, by the symbol that they read."""

    def __init__(self) -> None:
        self._of_all: set[Wakeups] = set()
        self._of_symbol: dict[str, set[Wakeups]] = {}
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._of_all) + sum(map(len, self._of_symbol.values()))

    @contextlib.contextmanager
    def join(self, symbol: str = "") -> Iterator[Wakeups]:
        """Register a reader of `symbol`, or of all where it is empty, for as long as it reads."""
        wakeups = Wakeups()
        if self._is_closed:
            wakeups.close()
        readers = self._of_symbol.setdefault(symbol, set()) if symbol else self._of_all
        readers.add(wakeups)
        try:
            yield wakeups
        finally:
            readers.discard(wakeups)
            if symbol and not readers:
                self._of_symbol.pop(symbol, None)

    def wake(self, table: SymbolTable, symbols: NDArray[np.uint32]) -> None:
        """Wake the readers of those symbols of the table, and the readers of all."""
        for wakeups in self._of_all:
            wakeups.wake()
        if not self._of_symbol:
            return
        for index in symbols.tolist():
            for wakeups in self._of_symbol.get(table[index], ()):
                wakeups.wake()

    def close(self) -> None:
        """End every reader, and each later one at once."""
        self._is_closed = True
        for readers in (self._of_all, *self._of_symbol.values()):
            for wakeups in readers:
                wakeups.close()
