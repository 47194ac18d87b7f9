"""Arrays of several sorted streams merged into one, in order of a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from mdtool.core.records import Records

Keys: TypeAlias = npt.NDArray[np.int64]
KeyOf: TypeAlias = Callable[[Records], Keys]

_ALWAYS: Final = -(2**63)
_NEVER: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Stream:
    """One of the streams of a merge.

    Attributes
    ----------
    arrays : iterator
        Yields non-empty structured arrays, perhaps of several layouts.
    not_before : int
        A key that its first record does not come before. Until the others have come this far
        nothing is read of it.
    """

    arrays: Iterator[Records]
    not_before: int = _ALWAYS


class _Head:
    """What has been read of one stream and not yet merged."""

    def __init__(self, stream: Stream, key_of: KeyOf) -> None:
        self.not_before = stream.not_before
        self.is_begun = False
        self.records = np.empty(0, np.void)
        self.keys = np.empty(0, np.int64)
        self._arrays = stream.arrays
        self._key_of = key_of
        self._latest = _ALWAYS

    def fill(self) -> bool:
        """Read the next array where all was taken; tell whether the stream still has records.

        Keys never fall, so that the stream's own order is kept.
        """
        self.is_begun = True
        if len(self.records) == 0:
            records = next(self._arrays, None)
            if records is None:
                return False
            self.records = records
            self.keys = np.maximum(np.maximum.accumulate(self._key_of(records)), self._latest)
            self._latest = int(self.keys[-1])
        return True

    def take(self, n: int) -> tuple[Records, Keys]:
        taken = self.records[:n], self.keys[:n]
        self.records, self.keys = self.records[n:], self.keys[n:]
        return taken


def merge(streams: Sequence[Stream], key_of: KeyOf) -> Iterator[Records]:
    """Merge streams of record arrays in order of their keys.

    Parameters
    ----------
    streams : sequence of Stream
        One array of each that has begun is held at a time.
    key_of : callable
        Returns the int64 keys of an array. Where a stream's keys fall, its records keep their
        order and count as of the highest key before.

    Yields
    ------
    structured arrays
        As long runs of one rtype as the order allows. Records with equal keys come in the order
        of their streams.
    """
    heads = [_Head(stream, key_of) for stream in streams]
    while heads := [head for head in heads if not head.is_begun or head.fill()]:
        begun = [head for head in heads if head.is_begun]
        # The stream whose array ends first limits how far the order is known.
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
        yield from _interleave([records for records, _ in taken], [keys for _, keys in taken])


def _to_begin(heads: Sequence[_Head], horizon: int) -> _Head | None:
    """Return the first stream not begun, if it may have records up to the horizon."""
    waiting = [head for head in heads if not head.is_begun]
    first = min(waiting, key=lambda head: head.not_before, default=None)
    return first if first is not None and first.not_before <= horizon else None


def _interleave(parts: Sequence[Records], keys: Sequence[Keys]) -> Iterator[Records]:
    if len(parts) == 1:
        yield parts[0]
        return
    order = np.argsort(np.concatenate(keys), kind="stable")
    if all(part.dtype == parts[0].dtype for part in parts):
        together = np.concatenate(parts)[order]
        yield from _runs_of_one_rtype(together)
        return
    starts = np.cumsum([0, *(len(part) for part in parts)])
    part_of = np.searchsorted(starts, order, side="right") - 1
    edges = np.flatnonzero(np.diff(part_of)) + 1
    for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), len(order)], strict=True):
        which = int(part_of[begin])
        first = int(order[begin] - starts[which])
        yield parts[which][first : first + end - begin]


def _runs_of_one_rtype(records: Records) -> Iterator[Records]:
    edges = np.flatnonzero(np.diff(records["rtype"])) + 1
    yield from np.split(records, edges)
