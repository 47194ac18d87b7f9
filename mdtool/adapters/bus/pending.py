"""Runs on their way to a market: joined while they wait, and held until they are committed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Frames, TradeRun, take_run

MAX_BATCH_FRAMES: Final = 1 << 16
"""The most frames of a batch: some 2.4 MB."""
_SMALL_BATCH_FRAMES: Final = 256
_MAX_UNSENT_RUNS: Final = 64
"""How many runs of a stream may wait: a run of one tick takes thirty times its columns."""
_TIMER_S: Final = 0.001
"""A shorter sleep takes this long too, as epoll counts in milliseconds."""
_MAX_SENT_BATCHES: Final = 256
"""How many batches of a stream may be sent and not committed: beyond, what comes is joined here,
and does not wait batch by batch in the buffers of a peer that is slower."""


class PendingRuns:
    """The runs of all streams that are not committed: unsent ones, and those sent since `restart`.

    Parameters
    ----------
    symbols : SymbolTable
        What the symbol indices of frames mean; it may grow.
    """

    def __init__(self, symbols: SymbolTable) -> None:
        self._symbols = symbols
        self._unsent: dict[str, deque[TradeRun]] = {}
        self._uncommitted: dict[str, deque[TradeRun]] = {}
        self._may_send = asyncio.Event()

    def add(self, stream_id: str, first_sequence: int, frames: Frames) -> None:
        """Queue the next frames of a stream."""
        waiting = self._unsent.setdefault(stream_id, deque())
        waiting.append(TradeRun(self._symbols, stream_id, first_sequence, frames))
        if len(waiting) > _MAX_UNSENT_RUNS:
            self._unsent[stream_id] = _joined(waiting)
        self._may_send.set()

    def restart(self) -> None:
        """Queue what is sent and not committed again, before what was never sent."""
        for stream_id, sent in self._uncommitted.items():
            self._unsent[stream_id] = sent + self._unsent.get(stream_id, deque())
        self._uncommitted = {}

    async def batches(self, collect_s: float = 0.0) -> AsyncIterator[TradeRun]:
        """Yield batch after batch as they come: all that waits of a stream, as one run.

        A stream that is too far ahead of its commits waits for them.

        Parameters
        ----------
        collect_s : float
            How long after a small batch the next one is collected, at most. Each batch wakes all
            processes behind it; after a pause there is no wait.
        """
        now_s = asyncio.get_running_loop().time
        collected_s = 0.0
        while True:
            while not self._sendable():
                self._may_send.clear()
                await self._may_send.wait()
            if (left_s := collected_s - now_s()) > _TIMER_S / 2:
                await asyncio.sleep(left_s)
            n_frames = 0
            for stream_id in self._sendable():
                run = self._next(stream_id)
                n_frames += run.frames.count
                yield run
            collected_s = now_s() + collect_s if n_frames <= _SMALL_BATCH_FRAMES else 0.0

    def commit(self, stream_id: str, next_sequence: int) -> None:
        """Drop what was sent of a stream before a sequence."""
        sent = self._uncommitted.get(stream_id, deque())
        while sent and sent[0].next_sequence <= next_sequence:
            sent.popleft()
        if not sent:
            self._uncommitted.pop(stream_id, None)
        if stream_id in self._unsent:
            self._may_send.set()

    def _sendable(self) -> list[str]:
        """Return the streams of which something waits and may be sent."""
        sent = self._uncommitted
        return [each for each in self._unsent if len(sent.get(each, ())) < _MAX_SENT_BATCHES]

    def _next(self, stream_id: str) -> TradeRun:
        waiting = self._unsent.pop(stream_id)
        run = take_run(waiting, MAX_BATCH_FRAMES)
        if waiting:
            self._unsent[stream_id] = waiting
        self._uncommitted.setdefault(stream_id, deque()).append(run)
        return run


def _joined(runs: deque[TradeRun]) -> deque[TradeRun]:
    """Return the same frames in as few runs as batches take."""
    joined: deque[TradeRun] = deque()
    while runs:
        joined.append(take_run(runs, MAX_BATCH_FRAMES))
    return joined
