"""Several streams of records merged into one, in order of the index timestamp."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from mdtool.core.batch import Batch
from mdtool.core.interleaved import Interleaved

Keys: TypeAlias = npt.NDArray[np.int64]

_ALWAYS: Final = -(2**63)
_NEVER: Final = 2**63 - 1


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
        self.not_before = stream.not_before
        self.is_begun = False
        self.keys = np.empty(0, np.int64)
        self._batch: Batch
        self._batches = stream.batches
        self._latest = _ALWAYS

    def fill(self) -> bool:
        """Read the next batch if all was taken; return whether the stream still has records.

        Keys never fall, which preserves the stream's own order.
        """
        self.is_begun = True
        if len(self.keys) == 0:
            batch = next(self._batches, None)
            if batch is None:
                return False
            self._batch = batch
            keys = np.maximum.accumulate(batch.index_timestamps)
            self.keys = np.maximum(keys, self._latest)
            self._latest = int(self.keys[-1])
        return True

    def take(self, n: int) -> tuple[Batch, Keys]:
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
    heads = [_Head(stream) for stream in streams]
    while heads := [head for head in heads if not head.is_begun or head.fill()]:
        begun = [head for head in heads if head.is_begun]
        # The stream whose batch ends first limits how far the order is known.
        horizon = min((int(head.keys[-1]) for head in begun), default=_NEVER)
        if (late := _to_begin(heads, horizon)) is not None:
            if not late.fill():
                heads.remove(late)
            continue
        limit = next(i for i, head in enumerate(begun) if head.keys[-1] == horizon)
        # It may have more records at the horizon, which come before those of the streams after it.
        counts = [
            int(np.searchsorted(head.keys, horizon, side="right" if i <= limit else "left"))
            for i, head in enumerate(begun)
        ]
        taken = [head.take(n) for head, n in zip(begun, counts, strict=True) if n > 0]
        yield _interleaved([batch for batch, _ in taken], [keys for _, keys in taken])


def _to_begin(heads: Sequence[_Head], horizon: int) -> _Head | None:
    """Return the first stream not begun, if it may have records up to the horizon."""
    waiting = [head for head in heads if not head.is_begun]
    first = min(waiting, key=lambda head: head.not_before, default=None)
    return first if first is not None and first.not_before <= horizon else None


def _interleaved(parts: Sequence[Batch], keys: Sequence[Keys]) -> Batch | Interleaved:
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(np.concatenate(keys), kind="stable")
    part_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])[order]
    merged = Interleaved(parts, part_of)
    return merged.as_batch() if len(merged.rtypes) == 1 else merged
