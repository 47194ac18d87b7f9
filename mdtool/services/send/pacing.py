"""From ticks to frames that are due: paced and encoded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.core.trades import NamedTrades
from mdtool.core.units import NS_PER_S
from mdtool.engine.pacing import Pacer
from mdtool.wire.tick_encoder import EncodedFrames, encode_frames

_FEW_TICKS: Final = 256
"""Batches shorter than this are encoded with the symbols they have, not with all there are."""


async def paced(
    batches: AsyncIterator[NamedTrades], speed: float, rate: float = 0.0
) -> AsyncIterator[NamedTrades]:
    """Yield ticks when they are due: whatever is due together, together.

    Parameters
    ----------
    batches : asynchronous iterator of NamedTrades
    speed : float
        Multiple of the ticks' own pace, 0 for flat out.
    rate : float
        Where given, ticks a second at even distances, whatever their own times.
    """
    pacer = Pacer(1.0 if rate else speed)
    count = 0
    async for batch in batches:
        due_ns = _evenly(count, len(batch), rate) if rate else batch.trades.ts_recv
        count += len(batch)
        done = 0
        while done < len(batch):
            now_ns = time.monotonic_ns()
            n_due = pacer.due(due_ns[done:], now_ns)
            if n_due:
                yield batch[done : done + n_due]
                done += n_due
            else:
                await asyncio.sleep(pacer.wait_ns(int(due_ns[done]), now_ns) / NS_PER_S)


def encoded(batch: NamedTrades) -> EncodedFrames:
    """Return a batch as Tick frames."""
    symbols, trades = batch.symbols, batch.trades
    columns = (trades.price, trades.size, trades.ts_event)
    if len(trades) < _FEW_TICKS < len(symbols):
        used, symbol = np.unique(trades.symbol, return_inverse=True)
        return encode_frames([symbols[index] for index in used], symbol, *columns)
    return encode_frames(list(symbols), trades.symbol, *columns)


def _evenly(first: int, count: int, rate: float) -> NDArray[np.int64]:
    return (np.arange(first, first + count) * (NS_PER_S / rate)).astype(np.int64)
