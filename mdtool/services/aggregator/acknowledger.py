"""What one call's peer is told of its streams: how far they are committed, as it goes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from mdtool.engine.market import Change
from mdtool.services.aggregator.committer import Committer
from mdtool.wire._pb import marketdata_pb2

_MAX_PENDING: Final = 65_536
"""How many batches of a call may await their acknowledgement before no more are read."""


class Acknowledger:
    """Writes an acknowledgement once what it is for is committed.

    Of what is committed together, each stream has one.

    Parameters
    ----------
    committer : Committer
        Knows what is committed.
    write : callable
        Sends a message, and waits while the peer is too slow for it.
    """

    def __init__(
        self, committer: Committer, write: Callable[[marketdata_pb2.BatchAck], Awaitable[None]]
    ) -> None:
        self._committer = committer
        self._write = write
        self._pending: deque[tuple[int, str, int]] = deque()
        self._has_news = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_complete = False

    def add(self, commit: int, stream_id: str, next_sequence: int) -> None:
        """Acknowledge the stream up to there, once that step of the market is committed."""
        self._pending.append((commit, stream_id, next_sequence))
        self._has_news.set()
        if len(self._pending) >= _MAX_PENDING:
            self._has_room.clear()

    async def room(self) -> None:
        """Wait until more may be added."""
        await self._has_room.wait()

    def complete(self) -> None:
        """Let `run` end once all is acknowledged."""
        self._is_complete = True
        self._has_news.set()

    def forgo(self) -> None:
        """Let `run` end soon: acknowledge what is committed, and nothing more."""
        while self._pending and self._pending[-1][0] > self._committer.committed:
            self._pending.pop()
        self.complete()

    async def run(self) -> None:
        """Acknowledge what was added until it is complete."""
        while self._pending or not self._is_complete:
            await self._has_news.wait()
            self._has_news.clear()
            await self._acknowledge()

    def committed(self, _changes: Sequence[Change]) -> None:
        """Look what can be acknowledged: something has been committed."""
        self._has_news.set()

    async def _acknowledge(self) -> None:
        positions: dict[str, int] = {}
        while self._pending and self._pending[0][0] <= self._committer.committed:
            _, stream_id, next_sequence = self._pending.popleft()
            positions[stream_id] = next_sequence
        self._has_room.set()
        for stream_id, next_sequence in positions.items():
            ack = marketdata_pb2.BatchAck(stream_id=stream_id, next_sequence=next_sequence)
            await self._write(ack)


@contextlib.asynccontextmanager
async def acknowledging(
    committer: Committer, write: Callable[[marketdata_pb2.BatchAck], Awaitable[None]]
) -> AsyncIterator[Acknowledger]:
    """Acknowledge what is added in the block; when it ends in order, all of it is by then."""
    acknowledger = Acknowledger(committer, write)
    running = asyncio.create_task(acknowledger.run())
    committer.listen(acknowledger.committed)
    try:
        yield acknowledger
        acknowledger.complete()
        await running
    except Exception:
        # To cancel a write would leave the call unable to end with a status.
        acknowledger.forgo()
        await running
        raise
    finally:
        committer.unlisten(acknowledger.committed)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
