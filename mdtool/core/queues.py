"""Bounded hand-overs between tasks: what is full blocks its source or keeps only the latest."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Conflated(Generic[K, V]):
    """The latest value of each key that a reader has not taken yet: bounded by the keys there are.

    A slow reader skips states, never the last one.
    """

    __slots__ = ("_changed", "_pending", "conflated")

    def __init__(self) -> None:
        self._pending: dict[K, V] = {}
        self._changed = asyncio.Event()
        self.conflated = 0
        """How many values were overwritten before they were taken."""

    def __len__(self) -> int:
        return len(self._pending)

    def put(self, key: K, value: V) -> None:
        """Keep `value`, in place of what `key` had."""
        if key in self._pending:
            self.conflated += 1
        self._pending[key] = value
        self._changed.set()

    async def take(self) -> dict[K, V]:
        """Wait until there is something, and return all of it, oldest key first."""
        await self._changed.wait()
        taken, self._pending = self._pending, {}
        self._changed.clear()
        return taken
