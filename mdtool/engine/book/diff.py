"""The first difference between two streams of records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mdtool.core.records import Records


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first record that differs.

    Attributes
    ----------
    record : int
        Its number, counted from 0: so many before it are equal.
    ours, theirs : structured array of length 1, or of length 0
        The record in either stream; none where the stream has ended.
    fields : tuple of str
        Those that differ, in the records' order; none where a stream has ended.
    """

    record: int
    ours: Records
    theirs: Records
    fields: tuple[str, ...]


class Comparison:
    """Compares two streams of records of one layout.

    Parameters
    ----------
    dtype : numpy dtype
    ignored : sequence of str
        Fields that may differ.

    Attributes
    ----------
    equal : int
        How many records are equal so far.
    """

    def __init__(self, dtype: np.dtype[np.void], ignored: Sequence[str] = ()) -> None:
        self.equal = 0
        self._dtype = dtype
        self._compared = tuple(name for name in dtype.names or () if name not in ignored)
        self._compares_all = not ignored

    def run(self, ours: Iterable[Records], theirs: Iterable[Records]) -> Divergence | None:
        """Compare up to the first divergence, and return it, None for equal streams.

        Parameters
        ----------
        ours, theirs : iterables of structured arrays
            Of the layout, of any lengths.
        """
        left, right = _Stream(ours, self._dtype), _Stream(theirs, self._dtype)
        while True:
            # Both are read: records are left in one where the other one ends.
            n = min(left.fill(), right.fill())
            if n == 0:
                break
            first = self._first_difference(left.records[:n], right.records[:n])
            left.skip(first)
            right.skip(first)
            self.equal += first
            if first < n:
                break
        mine, other = left.records[:1], right.records[:1]
        if len(mine) + len(other) == 0:
            return None
        both = len(mine) == len(other)
        fields = (name for name in self._compared if both and mine[name] != other[name])
        return Divergence(self.equal, mine, other, tuple(fields))

    def _first_difference(self, ours: Records, theirs: Records) -> int:
        """Return the index of the first pair that differs, their number where none does."""
        if self._compares_all:
            # Much faster than field by field, and in these layouts no byte is without a field.
            n_words = self._dtype.itemsize // 8
            return _first(ours.view(np.int64) != theirs.view(np.int64)) // n_words
        return min(
            (_first(ours[name] != theirs[name]) for name in self._compared), default=len(ours)
        )


class _Stream:
    """What was read of a stream and not yet compared."""

    def __init__(self, arrays: Iterable[Records], dtype: np.dtype[np.void]) -> None:
        self.records: Records = np.empty(0, dtype)
        self._arrays: Iterator[Records] = iter(arrays)

    def fill(self) -> int:
        """Read the next array if all was compared; return how many records there are."""
        while len(self.records) == 0:
            records = next(self._arrays, None)
            if records is None:
                return 0
            self.records = np.ascontiguousarray(records)
        return len(self.records)

    def skip(self, n: int) -> None:
        """Leave out the first `n` records."""
        self.records = self.records[n:]


def _first(differs: npt.NDArray[np.bool_]) -> int:
    """Return the index of the first True, the length if there is none."""
    return int(differs.argmax()) if differs.any() else len(differs)
