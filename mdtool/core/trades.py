"""Columns of trades: the one form in which trades move between sources, wires, engines and stores.

`Trades` are columns alone. `NamedTrades` have the table beside them that their symbols point into.
`Frames` are what a stream brought: the trades that were accepted, and which frames were refused. A
`TradeRun` has their stream and their position in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mdtool.core.symbols import SymbolTable

Rows: TypeAlias = slice | NDArray[np.bool_] | NDArray[np.intp]
"""Which entries of columns: a slice, which makes views, or a mask or indices, which make copies."""


class Reason(IntEnum):
    """Why a frame was refused: the first that holds, malformed before symbol before the others.

    The numbers are those of `RefusalReason` in marketdata.proto.
    """

    SYMBOL = 1
    PRICE = 2
    VOLUME = 3
    TIMESTAMP = 4
    MALFORMED = 5

    @property
    def label(self) -> str:
        """The name under which such frames are counted."""
        return self.name.lower()


REASONS: Final = max(Reason) + 1
"""The length of counts by `Reason`; 0 is none."""
PROBE: Final = REASONS
"""What probes have in place of a `Reason`: they are no ticks, and are not counted as refused."""


def reasons_text(refused: NDArray[np.int64]) -> str:
    """Return counts by `Reason` in words, such as `1 price, 2 malformed`."""
    return ", ".join(f"{refused[reason]} {reason.label}" for reason in Reason if refused[reason])


@dataclass(frozen=True, slots=True)
class Trades:
    """Trades as columns, one entry each, in order of arrival.

    Attributes
    ----------
    symbol : uint32[n]
        Dense index into a table of symbols or of instruments.
    price : int64[n]
        In units of 1e-9.
    size : int64[n]
        Units traded.
    ts_event : int64[n]
        When the trade happened, nanoseconds since the epoch.
    ts_recv : int64[n]
        When it was received, by the ingest server or by who recorded it, nanoseconds since the
        epoch.
    """

    symbol: NDArray[np.uint32]
    price: NDArray[np.int64]
    size: NDArray[np.int64]
    ts_event: NDArray[np.int64]
    ts_recv: NDArray[np.int64]

    def __len__(self) -> int:
        """Return how many trades there are."""
        return len(self.price)

    def __getitem__(self, rows: Rows) -> Self:
        """Return some of the trades; those of a slice are views."""
        return type(self)(
            self.symbol[rows],
            self.price[rows],
            self.size[rows],
            self.ts_event[rows],
            self.ts_recv[rows],
        )

    @classmethod
    def empty(cls) -> Self:
        """Return no trades."""
        none = np.empty(0, np.int64)
        return cls(np.empty(0, np.uint32), none, none, none, none)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Return the trades of all `parts`, which share a table, in the order given."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.empty()
        names = [column.name for column in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def with_symbols(self, symbol: NDArray[np.uint32]) -> Self:
        """Return the same trades with indices into another table."""
        return type(self)(symbol, self.price, self.size, self.ts_event, self.ts_recv)


@dataclass(frozen=True, slots=True)
class NamedTrades:
    """Trades with their table.

    Attributes
    ----------
    symbols : SymbolTable
        What `trades.symbol` points into; it may grow.
    trades : Trades
    """

    symbols: SymbolTable
    trades: Trades

    def __len__(self) -> int:
        """Return how many trades there are."""
        return len(self.trades)

    def __getitem__(self, rows: Rows) -> Self:
        """Return some of the trades; those of a slice are views."""
        return replace(self, trades=self.trades[rows])


@dataclass(frozen=True, slots=True)
class Frames:
    """A run of consecutive frames of one stream: the trades accepted, and which were refused.

    Attributes
    ----------
    trades : Trades
        The n that were accepted; their prices are defined, and their sizes above 0.
    offset : uint32[n]
        The number of each one's frame among the `count`, rising.
    count : int
        How many sequences of the stream the run covers.
    refused_offset : uint32[m]
        The numbers of the frames that were refused, or are probes, rising.
    refused_reason : uint8[m]
        The `Reason` of each, or PROBE.
    """

    trades: Trades
    offset: NDArray[np.uint32]
    count: int
    refused_offset: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    refused_reason: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))

    @classmethod
    def of(cls, trades: Trades, count: int | None = None) -> Self:
        """Return one frame for each of the trades, at the beginning of `count`, none refused."""
        n = len(trades)
        return cls(trades, np.arange(n, dtype=np.uint32), n if count is None else count)

    @classmethod
    def empty(cls, count: int = 0) -> Self:
        """Return frames without trades."""
        return cls.of(Trades.empty(), count)

    @classmethod
    def concatenate(cls, runs: Sequence[Self]) -> Self:
        """Return the frames of all `runs` as one run, in the order given.

        The runs share a table. A single run is returned as it is, without a copy.
        """
        if len(runs) == 1:
            return runs[0]
        if not runs:
            return cls.empty()
        starts = np.cumsum([0] + [run.count for run in runs])
        before = starts[:-1].astype(np.uint32)
        offset = np.concatenate([run.offset for run in runs])
        offset += np.repeat(before, [len(run.offset) for run in runs])
        refused_offset = np.concatenate([run.refused_offset for run in runs])
        refused_offset += np.repeat(before, [len(run.refused_offset) for run in runs])
        return cls(
            trades=Trades.concatenate([run.trades for run in runs]),
            offset=offset,
            count=int(starts[-1]),
            refused_offset=refused_offset,
            refused_reason=np.concatenate([run.refused_reason for run in runs]),
        )

    def with_symbols(self, symbol: NDArray[np.uint32]) -> Self:
        """Return the same frames with indices into another table."""
        return type(self)(
            self.trades.with_symbols(symbol),
            self.offset,
            self.count,
            self.refused_offset,
            self.refused_reason,
        )

    def with_sizes(self, size: NDArray[np.int64]) -> Self:
        """Return the same frames with other sizes of the trades."""
        return replace(self, trades=replace(self.trades, size=size))

    def select(self, rows: Rows) -> Self:
        """Return the run with only these of its trades; those of a slice are views."""
        return replace(self, trades=self.trades[rows], offset=self.offset[rows])

    def refuse(self, rows: NDArray[np.bool_], reason: Reason) -> Self:
        """Return the run with the trades of a mask among the refused."""
        offsets = np.concatenate([self.refused_offset, self.offset[rows]])
        reasons = np.full(len(offsets), reason, np.uint8)
        reasons[: len(self.refused_reason)] = self.refused_reason
        order = np.argsort(offsets)
        return replace(
            self.select(~rows), refused_offset=offsets[order], refused_reason=reasons[order]
        )

    def refuse_probes(self, reason: Reason) -> Self:
        """Return the run with its probes among the refused."""
        probes = self.refused_reason == PROBE
        if not probes.any():
            return self
        return replace(self, refused_reason=np.where(probes, np.uint8(reason), self.refused_reason))

    def refusals(self) -> NDArray[np.int64]:
        """Return how many frames were refused, by `Reason`, int64[REASONS]."""
        return np.bincount(self.refused_reason, minlength=REASONS)[:REASONS]

    def after(self, count: int) -> Self:
        """Return the run without its first `count` frames, as views where that can be.

        Offsets count from the first frame that is left. Used where the beginning of a run was
        sent again and is known already.
        """
        if count <= 0:
            return self
        skipped = np.uint32(min(count, self.count))
        first = int(np.searchsorted(self.offset, skipped))
        first_refused = int(np.searchsorted(self.refused_offset, skipped))
        return type(self)(
            trades=self.trades[first:],
            offset=self.offset[first:] - skipped,
            count=self.count - int(skipped),
            refused_offset=self.refused_offset[first_refused:] - skipped,
            refused_reason=self.refused_reason[first_refused:],
        )

    def first(self, count: int) -> Self:
        """Return the run's first `count` frames, as views where that can be."""
        if count >= self.count:
            return self
        end = int(np.searchsorted(self.offset, count))
        end_refused = int(np.searchsorted(self.refused_offset, count))
        return type(self)(
            trades=self.trades[:end],
            offset=self.offset[:end],
            count=count,
            refused_offset=self.refused_offset[:end_refused],
            refused_reason=self.refused_reason[:end_refused],
        )


@dataclass(frozen=True, slots=True)
class Probe:
    """A frame of a stream that brought no tick, and shows that those before it have arrived."""

    stream_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class TradeRun:
    """Frames with their place in a stream, and their table.

    Attributes
    ----------
    symbols : SymbolTable
        What `frames.trades.symbol` points into; it may grow.
    stream_id : str
        The stream.
    first_sequence : int
        The sequence of the first frame.
    frames : Frames
    """

    symbols: SymbolTable
    stream_id: str
    first_sequence: int
    frames: Frames

    @property
    def trades(self) -> Trades:
        """The trades of the frames."""
        return self.frames.trades

    @property
    def next_sequence(self) -> int:
        """The position of the stream after the run."""
        return self.first_sequence + self.frames.count

    @property
    def probe(self) -> Probe | None:
        """The last of the frames that is a probe."""
        if not len(self.frames.refused_reason):
            return None
        offsets = self.frames.refused_offset[self.frames.refused_reason == PROBE].tolist()
        return Probe(self.stream_id, self.first_sequence + offsets[-1]) if offsets else None

    def is_continued_by(self, other: TradeRun) -> bool:
        """Return whether another run of the stream begins where this one ends."""
        return (
            self.stream_id == other.stream_id
            and self.symbols is other.symbols
            and self.next_sequence == other.first_sequence
        )

    def since(self, sequence: int) -> Self:
        """Return the run without the frames before a sequence."""
        known = sequence - self.first_sequence
        if known <= 0:
            return self
        return replace(self, first_sequence=sequence, frames=self.frames.after(known))


def take_run(runs: deque[TradeRun], max_frames: int) -> TradeRun:
    """Take up to so many frames from the front of a stream's runs, as one run.

    Parameters
    ----------
    runs : deque of TradeRun
        Runs that follow each other, one at least; those taken are removed.
    max_frames : int
        A longer run is cut.
    """
    first = runs.popleft()
    count = first.frames.count
    if count > max_frames:
        runs.appendleft(first.since(first.first_sequence + max_frames))
        return replace(first, frames=first.frames.first(max_frames))
    parts = [first.frames]
    while runs and count + runs[0].frames.count <= max_frames:
        parts.append(runs.popleft().frames)
        count += parts[-1].count
    return first if len(parts) == 1 else replace(first, frames=Frames.concatenate(parts))
