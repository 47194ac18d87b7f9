"""The kernel that tells records of whole events from those of events that have not ended."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.core.hash_kernel import home_of
from mdtool.core.jit import inlined, kernel

Words = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]

F_LAST: Final = 128
FULL: Final = -1
KEY_BITS: Final = 48
KEYS: Final = (1 << KEY_BITS) - 1
MAX_GENERATION: Final = (1 << 15) - 1


@inlined
def _slot(table: Words, key: int, generation: int) -> int:
    """Return where the book of `key` stands in the table, or the gap where it would go."""
    mask: int = table.shape[0] - 1
    at = home_of(key, table.shape[0])
    while table[at] >> KEY_BITS == generation and table[at] & KEYS != key:
        at = (at + 1) & mask
    return at


@kernel
def mark_open(
    words: Words, table: Words, generation: int, ended: Words, latest: Words, marks: Marks
) -> int:
    """Mark the records of events that do not end in `words` or after it; return how many.

    Parameters
    ----------
    words : int64[n, 7]
        MBO records, as `engine.book.kernel` lays them out.
    table : int64[m]
        Open-addressed, of the books of which an event ends after `words`; those of which one ends
        in it are added. What does not have this generation in its high bits is a gap.
    generation : int
        From 1 on.
    ended : int64[1]
        How many books the table has.
    latest : int64[1]
        The latest ts_recv, which is brought up to these records.
    marks : bool[n]
        Written.

    Returns
    -------
    int
        FULL when more than half of the table would be taken.
    """
    latest_ns = latest[0]
    n_open = 0
    last_key = -1
    is_whole = False
    for i in range(words.shape[0] - 1, -1, -1):
        key = (words[i, 0] >> 16) & KEYS
        is_last = (words[i, 4] >> 32) & F_LAST != 0
        if key != last_key or (is_last and not is_whole):
            last_key = key
            at = _slot(table, key, generation)
            is_whole = table[at] >> KEY_BITS == generation
            if is_last and not is_whole:
                if 2 * ended[0] >= table.shape[0]:
                    return FULL
                ended[0] += 1
                table[at] = (generation << KEY_BITS) | key
                is_whole = True
        marks[i] = not is_whole
        n_open += not is_whole
        latest_ns = max(latest_ns, words[i, 5])
    latest[0] = latest_ns
    return n_open
