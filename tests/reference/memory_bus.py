"""A bus that ends in a ledger of the same process."""

from __future__ import annotations

import asyncio
import contextlib

from mdtool.core.errors import PeerError
from mdtool.core.lifecycle import first_error


class MemoryBus:
    """Hands over one run at a time, and again when its acknowledgement was lost."""

    def __init__(self, ledger, symbols) -> None:
        self.is_there = asyncio.Event()
        self._ledger = ledger
        self._symbols = symbols
        self._listeners = []
        self._runs: asyncio.Queue = asyncio.Queue()
        self._resources = contextlib.AsyncExitStack()

    @property
    def peer(self) -> str:
        return "ledger"

    async def __aenter__(self):
        async with contextlib.AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            stack.callback(tasks.create_task(self._hand_over()).cancel)
            self._resources = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info):
        try:
            return await self._resources.__aexit__(*exc_info)
        except ExceptionGroup as group:
            raise first_error(group) from group

    def subscribe(self, listener) -> None:
        self._listeners.append(listener)

    async def position(self, stream_id):
        await self.is_there.wait()
        return self._ledger.position(stream_id) or 0

    def publish(self, stream_id, first_sequence, ticks) -> None:
        self._runs.put_nowait((stream_id, first_sequence, ticks))

    async def _hand_over(self) -> None:
        while True:
            run = await self._runs.get()
            next_sequence = await self._commit(*run)
            for listener in self._listeners:
                listener(run[0], next_sequence)

    async def _commit(self, stream_id, first_sequence, ticks):
        while True:
            await self.is_there.wait()
            if self._ledger.refusal is not None:
                raise PeerError("ledger refused")
            next_sequence = await self._ledger.commit(
                stream_id, first_sequence, ticks, self._symbols
            )
            if not self._ledger.loses_ack:
                return next_sequence
            self._ledger.loses_ack = False
