"""A SQLite store that waits where a test says so, and fails with what a test gives it."""

from __future__ import annotations

import asyncio
import threading

from mdtool.adapters.stores.port import Step
from mdtool.adapters.stores.sqlite import Store
from tests.support.waiting import WITHIN_S


class WatchedStore(Store):
    """Tells when a write begins, and lets it go on while `may_write` is set."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.may_write = threading.Event()
        self.may_write.set()
        self.errors: list[Exception] = []
        self.written: list[Step] = []
        self._begun = threading.Semaphore(0)

    def write(self, step: Step) -> None:
        self._begun.release()
        assert self.may_write.wait(WITHIN_S)
        if self.errors:
            raise self.errors.pop(0)
        super().write(step)
        self.written.append(step)

    def own(self, stream_id: str, principal: str) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return super().own(stream_id, principal)

    async def begun(self) -> None:
        """Wait for the next write that begins."""
        assert await asyncio.to_thread(self._begun.acquire, timeout=WITHIN_S)
