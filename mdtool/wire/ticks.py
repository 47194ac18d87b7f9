"""Ticks that were checked, as columns, and the reasons why others were refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray


class Reason(IntEnum):
    """Why a tick was refused: the first that holds, malformed before symbol before the others.

    The numbers are those of `RefusalReason` in marketdata.proto.
    """

    SYMBOL = 1
    PRICE = 2
    VOLUME = 3
    TIMESTAMP = 4
    MALFORMED = 5

    @property
    def label(self) -> str:
        """The name under which such ticks are counted."""
        return self.name.lower()


@dataclass(slots=True)
class Ticks:
    """A run of consecutive frames of one stream: the ticks accepted, and which were refused.

    Attributes
    ----------
    symbol : uint32[n]
        Index into the symbol table of whoever made them.
    price : int64[n]
        In units of 1e-9, above 0.
    volume : int64[n]
        Above 0.
    exchange_timestamp : int64[n]
        Nanoseconds since the epoch.
    ingest_timestamp : int64[n]
        Nanoseconds since the epoch, when the ingest server took the tick.
    offset : uint32[n]
        The number of the tick's frame among `frames`, rising.
    frames : int
        How many sequences of the stream the run covers, n accepted and m refused.
    refused_offset : uint32[m]
        The numbers of the frames that were refused, rising.
    refused_reason : uint8[m]
        The `Reason` of each.
    """

    symbol: NDArray[np.uint32]
    price: NDArray[np.int64]
    volume: NDArray[np.int64]
    exchange_timestamp: NDArray[np.int64]
    ingest_timestamp: NDArray[np.int64]
    offset: NDArray[np.uint32]
    frames: int
    refused_offset: NDArray[np.uint32]
    refused_reason: NDArray[np.uint8]

    def __len__(self) -> int:
        """Return how many ticks were accepted."""
        return len(self.price)

    @classmethod
    def empty(cls) -> Self:
        """Return a run of no frames."""
        none_i8, none_u4 = np.empty(0, np.int64), np.empty(0, np.uint32)
        return cls(
            symbol=none_u4,
            price=none_i8,
            volume=none_i8,
            exchange_timestamp=none_i8,
            ingest_timestamp=none_i8,
            offset=none_u4,
            frames=0,
            refused_offset=none_u4,
            refused_reason=np.empty(0, np.uint8),
        )

    @classmethod
    def concatenate(cls, runs: Sequence[Self]) -> Self:
        """Return the frames of all `runs` as one run, in the order given.

        The runs share a symbol table. A single run is returned as it is, without a copy.
        """
        if len(runs) == 1:
            return runs[0]
        if not runs:
            return cls.empty()
        columns = {
            column.name: np.concatenate([getattr(run, column.name) for run in runs])
            for column in fields(cls)
            if column.name != "frames"
        }
        starts = np.cumsum([0] + [run.frames for run in runs])
        before = starts[:-1].astype(np.uint32)
        columns["offset"] += np.repeat(before, [len(run) for run in runs])
        columns["refused_offset"] += np.repeat(before, [len(run.refused_offset) for run in runs])
        return cls(frames=int(starts[-1]), **columns)

    def chosen(self, rows: slice | NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        """Return the run with only these of its accepted ticks; a slice of them are views."""
        return replace(
            self,
            symbol=self.symbol[rows],
            price=self.price[rows],
            volume=self.volume[rows],
            exchange_timestamp=self.exchange_timestamp[rows],
            ingest_timestamp=self.ingest_timestamp[rows],
            offset=self.offset[rows],
        )

    def from_frame(self, number: int) -> Self:
        """Return the run without its first `number` frames, as views where that can be.

        Offsets count from the first frame that is left. Used where the beginning of a run was
        resent and is known already.
        """
        if number <= 0:
            return self
        before = np.uint32(min(number, self.frames))
        first = int(np.searchsorted(self.offset, before))
        first_refused = int(np.searchsorted(self.refused_offset, before))
        return replace(
            self.chosen(slice(first, None)),
            offset=self.offset[first:] - before,
            frames=self.frames - int(before),
            refused_offset=self.refused_offset[first_refused:] - before,
            refused_reason=self.refused_reason[first_refused:],
        )

    def to_frame(self, number: int) -> Self:
        """Return the run's first `number` frames, as views where that can be."""
        if number >= self.frames:
            return self
        end_refused = int(np.searchsorted(self.refused_offset, number))
        return replace(
            self.chosen(slice(int(np.searchsorted(self.offset, number)))),
            frames=number,
            refused_offset=self.refused_offset[:end_refused],
            refused_reason=self.refused_reason[:end_refused],
        )


@dataclass(slots=True)
class Decoded:
    """What a chunk of bytes brought.

    Attributes
    ----------
    ticks : Ticks
        The frames that the chunk completed.
    hello : str or None
        The stream id, where the connection's opening Hello was among them.
    details : list of str
        For the log, what was wrong with the first few of the refused frames.
    """

    ticks: Ticks
    hello: str | None = None
    details: list[str] = field(default_factory=list)
