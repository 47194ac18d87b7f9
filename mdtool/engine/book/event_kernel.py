"""The kernel that tells records of whole events from those of events that have not ended."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.core.jit import inlined, kernel

Words = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]

F_LAST: Final = 128
MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
SHIFT: Final = np.uint64(32)


@inlined
def _slot(ended: Words, key: int) -> int:
    """Return where the book of `key` stands in the table, or the gap where it would go."""
    mask: int = ended.shape[0] - 1
    at = int((np.uint64(key) * MULTIPLIER) >> SHIFT) & mask
    while ended[at] != 0 and ended[at] != key + 1:
        at = (at + 1) & mask
    return at


@kernel
def mark_open(words: Words, ended: Words, marks: Marks) -> int:
    """Mark the records of events that do not end in `words` or after it; return how many.

    Parameters
    ----------
    words : int64[n, 7]
        MBO records, as `engine.book.kernel` lays them out.
    ended : int64[m]
        Open-addressed table of the books (key + 1) of which an event ends after `words`; those
        of which one ends in it are added. It has room for n more.
    marks : bool[n]
        Written.
    """
    n_open = 0
    last_key = -1
    is_whole = False
    for i in range(words.shape[0] - 1, -1, -1):
        key = (words[i, 0] >> 16) & 0xFFFFFFFFFFFF
        is_last = (words[i, 4] >> 32) & F_LAST != 0
        if key != last_key or (is_last and not is_whole):
            last_key = key
            at = _slot(ended, key)
            if is_last:
                ended[at] = key + 1
            is_whole = ended[at] != 0
        marks[i] = not is_whole
        n_open += not is_whole
    return n_open
