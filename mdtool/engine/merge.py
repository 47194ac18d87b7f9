"""Several streams of records merged into one, in order of the index timestamp."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mdtool.core.batch import Batch
from mdtool.core.interleaved import Interleaved

Keys: TypeAlias = npt.NDArray[np.int64]

_ALWAYS: Final = -(2**63)
_FAN_IN: Final = 16


@dataclass(frozen=True, slots=True)
class Stream:
    """One of the streams of a merge.

    Attributes
    ----------
    batches : iterator
        Yields batches that are not empty, perhaps of several layouts.
    not_before : int
        A timestamp that its first record does not come before. Until the others have come this
        far nothing is read of it.
    """

    batches: Iterator[Batch]
    not_before: int = _ALWAYS


class _Head:
    """What has been read of one stream and not yet merged."""

    def __init__(self, stream: Stream) -> None:
        self.keys = np.empty(0, np.int64)
        self._batch: Batch
        self._batches = stream.batches
        self._latest = _ALWAYS

    def fill(self) -> bool:
        """Read the next batch, after all was taken; return whether there is one.

        Keys never fall, which preserves the stream's own order.
        """
        batch = next(self._batches, None)
        if batch is None:
            return False
        self._batch = batch
        keys = np.maximum.accumulate(batch.index_timestamps)
        self.keys = np.maximum(keys, self._latest)
        self._latest = int(self.keys[-1])
        return True

    def take_up_to(self, horizon: int, side: Literal["left", "right"]) -> tuple[Batch, Keys]:
        """Take the records up to a time, which is included if `side` is right."""
        n = int(np.searchsorted(self.keys, horizon, side=side))
        taken = self._batch[:n], self.keys[:n]
        self._batch, self.keys = self._batch[n:], self.keys[n:]
        return taken


def merge(streams: Sequence[Stream]) -> Iterator[Batch | Interleaved]:
    """Merge streams of records in order of their index timestamps.

    Parameters
    ----------
    streams : sequence of Stream
        One batch of each that has begun is held at a time. Their instruments are of one table.
        Where a stream's timestamps fall, its records keep their order and count as of the highest
        timestamp before.

    Yields
    ------
    Batch or Interleaved
        A batch where all records are of one rtype. Records with equal timestamps come in the order
        of their streams.
    """
    streams = _grouped(streams)
    heads = {at: _Head(stream) for at, stream in enumerate(streams)}
    # By index where times are equal, as the records are.
    waiting = [(stream.not_before, at) for at, stream in enumerate(streams)]
    by_first: list[tuple[int, int]] = []
    by_last: list[tuple[int, int]] = []
    for entries in (waiting, by_first, by_last):
        heapq.heapify(entries)
    while waiting or by_last:
        if waiting and (not by_last or waiting[0][0] <= by_last[0][0]):
            at = heapq.heappop(waiting)[1]
        else:
            # The stream whose batch ends first limits how far the order is known. It may have more
            # records at that time, which come before those of the streams after it.
            limit = heapq.heappop(by_last)
            horizon, at = limit
            taken = []
            while by_first and by_first[0] <= limit:
                taken.append(heapq.heappop(by_first)[1])
            parts = [
                heads[i].take_up_to(horizon, "right" if i <= at else "left") for i in sorted(taken)
            ]
            for i in taken:
                if i != at:
                    heapq.heappush(by_first, (int(heads[i].keys[0]), i))
            yield _interleaved([batch for batch, _ in parts], [keys for _, keys in parts])
        if heads[at].fill():
            heapq.heappush(by_first, (int(heads[at].keys[0]), at))
            heapq.heappush(by_last, (int(heads[at].keys[-1]), at))
        else:
            del heads[at]


def _grouped(streams: Sequence[Stream]) -> Sequence[Stream]:
    """Return at most `_FAN_IN` streams, which are merged of more.

    Each batch that ends cuts those of all others: of thousands of streams, into single records.
    """
    while len(streams) > _FAN_IN:
        groups = [streams[at : at + _FAN_IN] for at in range(0, len(streams), _FAN_IN)]
        streams = [
            Stream(
                chain.from_iterable(merged.runs() for merged in merge(group)),
                min(stream.not_before for stream in group),
            )
            for group in groups
        ]
    return streams


def _interleaved(parts: Sequence[Batch], keys: Sequence[Keys]) -> Batch | Interleaved:
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate(keys), kind="stable")
    part_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[order]
    merged = Interleaved(parts, part_of)
    return merged.as_batch() if len(merged.rtypes) == 1 else merged
