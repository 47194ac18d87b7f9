"""From ticks to frames that are due: paced and encoded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.tick_source import TickRun
from mdtool.core.units import NS_PER_S
from mdtool.engine.pacing import Pacer
from mdtool.wire.tick_encoder import EncodedFrames, encode_frames

_FEW_TICKS: Final = 256
"""Runs shorter than this are encoded with the symbols they have, not with all there are."""


async def paced(
    runs: AsyncIterator[TickRun], speed: float, rate: float = 0.0
) -> AsyncIterator[TickRun]:
    """Yield ticks when they are due: whatever is due together, together.

    Parameters
    ----------
    runs : asynchronous iterator of TickRun
    speed : float
        Multiple of the ticks' own pace, 0 for flat out.
    rate : float
        Where given, ticks a second at even distances, whatever their own times.
    """
    pacer = Pacer(1.0 if rate else speed)
    count = 0
    async for run in runs:
        due_ns = _evenly(count, len(run), rate) if rate else run.due_ns
        count += len(run)
        done = 0
        while done < len(run):
            now_ns = time.monotonic_ns()
            n_due = pacer.due(due_ns[done:], now_ns)
            if n_due:
                yield run.part(done, done + n_due)
                done += n_due
            else:
                await asyncio.sleep(pacer.wait_ns(int(due_ns[done]), now_ns) / NS_PER_S)


def encoded(run: TickRun) -> EncodedFrames:
    """Return a run as Tick frames."""
    columns = (run.price, run.volume, run.exchange_timestamp)
    if len(run) < _FEW_TICKS < len(run.symbols):
        used, symbol = np.unique(run.symbol, return_inverse=True)
        return encode_frames([run.symbols[index] for index in used], symbol, *columns)
    return encode_frames(list(run.symbols), run.symbol, *columns)


def _evenly(first: int, count: int, rate: float) -> NDArray[np.int64]:
    return (np.arange(first, first + count) * (NS_PER_S / rate)).astype(np.int64)
