"""What a market should hold, the plain way: every frame remembered, every tick folded by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdtool.core.trades import Frames, Trades


@dataclass(frozen=True)
class Tick:
    """An accepted frame."""

    symbol: int
    price: int
    volume: int
    exchange_timestamp: int
    ingest_timestamp: int


Frame = Tick | int
"""A tick, or the number of the reason why the frame was refused."""


class PlainMarket:
    """Takes frames one by one, and those that it has seen not again."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()
        self.ticks: list[Tick] = []
        self.refused = [0] * 6
        self.duplicates = 0

    def take(self, stream_id: str, sequence: int, frame: Frame) -> None:
        if (stream_id, sequence) in self.seen:
            self.duplicates += isinstance(frame, Tick)
            return
        self.seen.add((stream_id, sequence))
        if isinstance(frame, Tick):
            self.ticks.append(frame)
        else:
            self.refused[frame] += 1

    def session(self, symbol: int) -> tuple[int, ...] | None:
        """Return open, high, low, close, volume, count and the two times of the latest trade."""
        ticks = [tick for tick in self.ticks if tick.symbol == symbol]
        if not ticks:
            return None
        prices = [tick.price for tick in ticks]
        return (
            prices[0],
            max(prices),
            min(prices),
            prices[-1],
            min(sum(tick.volume for tick in ticks), 2**63 - 1),
            len(ticks),
            ticks[-1].exchange_timestamp,
            ticks[-1].ingest_timestamp,
        )


def batch(frames: Sequence[Frame]) -> Frames:
    """Return frames as the columns in which they travel."""
    ticks = [(number, frame) for number, frame in enumerate(frames) if isinstance(frame, Tick)]
    refused = [(number, frame) for number, frame in enumerate(frames) if isinstance(frame, int)]
    return Frames(
        Trades(
            symbol=np.array([tick.symbol for _, tick in ticks], np.uint32),
            price=np.array([tick.price for _, tick in ticks], np.int64),
            size=np.array([tick.volume for _, tick in ticks], np.int64),
            ts_event=np.array([tick.exchange_timestamp for _, tick in ticks], np.int64),
            ts_recv=np.array([tick.ingest_timestamp for _, tick in ticks], np.int64),
        ),
        offset=np.array([number for number, _ in ticks], np.uint32),
        count=len(frames),
        refused_offset=np.array([number for number, _ in refused], np.uint32),
        refused_reason=np.array([reason for _, reason in refused], np.uint8),
    )
