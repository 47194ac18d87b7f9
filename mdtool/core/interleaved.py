"""Records of several streams in one order, as merges make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mdtool.core.batch import Batch
from mdtool.core.instruments import Indices, Instruments
from mdtool.core.records import Times
from mdtool.core.units import UNDEF_TIMESTAMP

_FEW_PARTS: Final = 8
"""So many are found sooner one by one than by sorting."""


class Interleaved:
    """Records of several batches in one order, which keeps the order of each batch.

    It offers what a batch does, but for `records`: it may have several layouts.

    Parameters
    ----------
    parts : sequence of Batch
        At least one, of one table of instruments.
    part_of : integer array, shape (n,)
        The part from which each record comes.
    """

    def __init__(self, parts: Sequence[Batch], part_of: npt.NDArray[np.integer]) -> None:
        self.parts = parts
        self.part_of = part_of
        self._places = _places(part_of, len(parts))

    def __len__(self) -> int:
        return len(self.part_of)

    def __getitem__(self, chosen: slice | npt.NDArray[np.bool_]) -> Interleaved:
        """Return some of the records: of a slice, or of a mask."""
        mask = np.zeros(len(self), np.bool_)
        mask[chosen] = True
        parts = [part[mask[at]] for part, at in zip(self.parts, self._places, strict=True)]
        return Interleaved(parts, self.part_of[mask])

    @property
    def instruments(self) -> Instruments:
        """The table into which `instrument` points."""
        return self.parts[0].instruments

    @property
    def instrument(self) -> Indices:
        """The index of each record's instrument."""
        return self._gather(np.dtype(np.uint32), lambda part: part.instrument)

    @property
    def is_selected(self) -> npt.NDArray[np.bool_]:
        """Whether the selection includes each record's instrument, shape (n,)."""
        return self._gather(np.dtype(np.bool_), lambda part: part.is_selected)

    @property
    def index_timestamps(self) -> npt.NDArray[np.int64]:
        """The index timestamp of each record."""
        return self._gather(np.dtype(np.int64), lambda part: part.index_timestamps)

    @property
    def rtypes(self) -> frozenset[int]:
        """The record types that there are."""
        return frozenset(part.rtype for part in self.parts if len(part))

    @property
    def words(self) -> npt.NDArray[np.int64]:
        """The records as the 64-bit words of a DBN stream, read-only."""
        sizes = np.array([part.records.dtype.itemsize // 8 for part in self.parts])[self.part_of]
        begins = np.cumsum(sizes) - sizes
        words = np.empty(int(sizes.sum()), np.int64)
        for part, at in zip(self.parts, self._places, strict=True):
            if len(part):
                place = begins[at]
                for k, column in enumerate(part.words.reshape(len(part), -1).T):
                    words[place + k] = column
        words.flags.writeable = False
        return words

    @property
    def n_bytes(self) -> int:
        """How many bytes the records take."""
        return sum(part.n_bytes for part in self.parts)

    def runs(self) -> Iterator[Batch]:
        """Yield the records as batches of one rtype, as long as the order allows."""
        edges = np.flatnonzero(np.diff(self.part_of)) + 1
        taken = [0] * len(self.parts)
        begin = 0
        for end in [*edges.tolist(), len(self)]:
            which = int(self.part_of[begin])
            first = taken[which]
            taken[which] += end - begin
            yield self.parts[which][first : first + end - begin]
            begin = end

    def of_parts(self, is_wanted: Callable[[Batch], bool]) -> Interleaved | None:
        """Return the records of some of the parts, None where there are none."""
        # Looks at the first record's part first.
        by_first = sorted(range(len(self.parts)), key=lambda i: self._places[i][:1].tolist())
        wanted = [i for i in by_first if len(self.parts[i]) and is_wanted(self.parts[i])]
        if not wanted:
            return None
        number = np.full(len(self.parts), -1)
        number[wanted] = np.arange(len(wanted))
        part_of = number[self.part_of]
        return Interleaved([self.parts[i] for i in wanted], part_of[part_of >= 0])

    def as_batch(self) -> Batch:
        """Return the records, which are of one layout, as one batch, perhaps of several rtypes."""
        if len(self.parts) == 1:
            return self.parts[0]
        records = self.words.view(self.parts[0].records.dtype)
        return Batch(records, self.instruments, lambda: self.instrument, self._ts_out())

    def with_ts_out(self) -> Interleaved:
        """Return the records as a stream with `ts_out` has them: it is their last field."""
        return Interleaved([part.with_ts_out() for part in self.parts], self.part_of)

    def _ts_out(self) -> Times | None:
        """Return when each record was sent, None where no part knows."""
        if all(part.ts_out is None for part in self.parts):
            return None
        undefined = np.uint64(UNDEF_TIMESTAMP)
        return self._gather(
            np.dtype(np.uint64),
            lambda part: undefined if part.ts_out is None else part.ts_out,
        )

    def _gather(
        self, dtype: np.dtype[Any], values_of: Callable[[Batch], npt.NDArray[Any] | np.generic]
    ) -> npt.NDArray[Any]:
        gathered = np.empty(len(self), dtype)
        for part, at in zip(self.parts, self._places, strict=True):
            gathered[at] = values_of(part)
        return gathered


def _places(part_of: npt.NDArray[np.integer], n_parts: int) -> Sequence[npt.NDArray[np.int64]]:
    """Return the places of each part's records."""
    if n_parts <= _FEW_PARTS:
        return [np.flatnonzero(part_of == i) for i in range(n_parts)]
    by_part = np.argsort(part_of, kind="stable")
    return np.split(by_part, np.cumsum(np.bincount(part_of, minlength=n_parts))[:-1])
