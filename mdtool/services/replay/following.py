"""What a receiver that joined live has still to be sent."""

from __future__ import annotations

import asyncio
from collections import deque

from mdtool.core.records import Records


class LaggingError(Exception):
    """A receiver is so far behind that what it had still to be sent was dropped."""


class Following:
    """Records that have come and were not taken yet, up to a bound.

    Parameters
    ----------
    limit_bytes : int
        What is beyond it is dropped, together with all that was kept.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept: deque[Records] = deque()
        self._kept_bytes = 0
        self._is_lagging = False
        self._is_over = False
        self._news = asyncio.Event()

    def put(self, records: Records) -> None:
        """Keep records until they are taken."""
        if not self._is_lagging:
            self._kept.append(records)
            self._kept_bytes += records.nbytes
        if self._kept_bytes > self._limit_bytes:
            self._is_lagging = True
            self._forget()
        self._news.set()

    def close(self) -> None:
        """Let `take` end behind what is kept: no more will come."""
        self._is_over = True
        self._news.set()

    def catch_up(self) -> None:
        """Begin anew behind everything that has come by now."""
        self._is_lagging = False
        self._forget()

    async def take(self) -> Records | None:
        """Wait for records and return the next; None when all have been taken and no more come.

        Raises
        ------
        LaggingError
            When records were dropped; so it goes on until `catch_up`.
        """
        while not (self._kept or self._is_over or self._is_lagging):
            self._news.clear()
            await self._news.wait()
        if self._is_lagging:
            raise LaggingError
        if not self._kept:
            return None
        records = self._kept.popleft()
        self._kept_bytes -= records.nbytes
        return records

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0
