"""What stands at the far end of a bus, in plain dicts: every frame of every stream, once.

It can be told to keep its commits back, to lose an acknowledgement, or to refuse what it is sent.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

import grpc


class Ledger:
    """Keeps the price of each frame by stream and sequence, None for those that were refused."""

    def __init__(self) -> None:
        self.frames: dict[str, dict[int, float | None]] = defaultdict(dict)
        self.symbols: dict[str, dict[int, str]] = defaultdict(dict)
        self.reasons: dict[str, dict[int, int]] = defaultdict(dict)
        self.owners: dict[str, str] = {}
        self.batches = 0
        self.duplicates = 0
        self.loses_ack = False
        self.refusal: grpc.StatusCode | None = None
        self.may_commit = asyncio.Event()
        self.may_commit.set()
        self._changed = asyncio.Condition()

    def hold(self) -> None:
        """Take batches, but commit none."""
        self.may_commit.clear()

    def release(self) -> None:
        """Commit what was held, and what comes."""
        self.may_commit.set()

    def prices(self, stream_id: str) -> list[float | None]:
        """The frames of a stream in order; none may be missing."""
        frames = self.frames[stream_id]
        assert sorted(frames) == list(range(len(frames)))
        return [frames[sequence] for sequence in range(len(frames))]

    def count(self) -> int:
        """How many frames there are in all."""
        return sum(map(len, self.frames.values()))

    def position(self, stream_id: str) -> int | None:
        frames = self.frames.get(stream_id)
        return max(frames) + 1 if frames else None

    def own(self, stream_id: str, principal: str) -> str:
        return self.owners.setdefault(stream_id, principal)

    async def when(self, condition) -> None:
        """Wait until `condition()` holds."""
        async with self._changed:
            await self._changed.wait_for(condition)

    async def commit(self, stream_id, first_sequence, frames, symbols) -> int:
        """Take a batch once it may, and return the stream's position behind it."""
        self.batches += 1
        await self.notify()
        await self.may_commit.wait()
        position = self.position(stream_id)
        assert position is None or first_sequence <= position, "a gap"
        for k, offset in enumerate(frames.offset.tolist()):
            self._enter(stream_id, first_sequence + offset, frames.trades.price[k] / 1e9)
            self.symbols[stream_id][first_sequence + offset] = symbols[frames.trades.symbol[k]]
        for k, offset in enumerate(frames.refused_offset.tolist()):
            self._enter(stream_id, first_sequence + offset, None)
            self.reasons[stream_id][first_sequence + offset] = int(frames.refused_reason[k])
        await self.notify()
        return first_sequence + frames.count

    def _enter(self, stream_id, sequence, price) -> None:
        frames = self.frames[stream_id]
        if sequence in frames:
            assert frames[sequence] == price, "a frame changed when it was sent again"
            self.duplicates += 1
        frames[sequence] = price

    async def notify(self) -> None:
        """Have conditions looked at again."""
        async with self._changed:
            self._changed.notify_all()
