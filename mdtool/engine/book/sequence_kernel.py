"""The kernel that follows the sequence numbers of a stream, by channel or by instrument.

A hash table has a row for each channel or book.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.core.hash_kernel import find_row
from mdtool.core.jit import kernel

Words = npt.NDArray[np.int64]

(
    Q_KEY,  # and 1; 0 is a free row
    Q_LAST,  # the number of its last record
    Q_DAY,  # the UTC day on which that was received
    Q_STEPS,  # how often its numbers rose
    Q_JUMPS,  # how often by more than 1
    Q_MISSING,  # how many numbers that left out
    Q_FIRST_JUMP,  # the first record after a jump
    Q_FIRST_JUMP_TS,
    Q_FALLS,  # how often its numbers fell, other than for a new start
    Q_FIRST_FALL,
    Q_FIRST_FALL_TS,
    Q_WIDTH,
) = range(12)

F_SNAPSHOT: Final = 32
CLEAR: Final = 82
U32: Final = 0xFFFFFFFF
HALF_OF_U32: Final = 1 << 31
NS_PER_DAY: Final = 86_400_000_000_000


@kernel
def follow(
    words: Words, first: int, number: int, table: Words, used: Words, by_channel: bool
) -> int:
    """Follow MBO records from `first` on; return the first for which the table had no room.

    Parameters
    ----------
    words : int64[n, 7]
        MBO records, as `engine.book.kernel` lays them out.
    first : int
    number : int
        Which record of the stream `words[0]` is.
    table : int64[m, Q_WIDTH]
        Changed in place; half of it is kept free.
    used : int64[1]
        How many of its rows are taken; changed.
    by_channel : bool
        Whether a row is a channel of a publisher, else a book.
    """
    n_records: int = words.shape[0]
    for i in range(first, n_records):
        what = words[i, 4]
        if (what >> 32) & F_SNAPSHOT:
            # Its orders have the numbers with which they were entered.
            continue
        if by_channel:
            key = 1 + (((words[i, 0] >> 16) & 0xFFFF) << 8 | (what >> 40) & 0xFF)
        else:
            key = 1 + ((words[i, 0] >> 16) & 0xFFFFFFFFFFFF)
        sequence = (words[i, 6] >> 32) & U32
        day = words[i, 5] // NS_PER_DAY
        at = find_row(table, key)
        if table[at, Q_KEY] == 0:
            if 2 * used[0] >= table.shape[0]:
                return i
            used[0] += 1
            table[at, Q_KEY] = key
        else:
            step = (sequence - table[at, Q_LAST]) & U32
            if step >= HALF_OF_U32:
                is_new_start = day != table[at, Q_DAY] or (what >> 48) & 0xFF == CLEAR
                if not is_new_start:
                    if table[at, Q_FALLS] == 0:
                        table[at, Q_FIRST_FALL] = number + i
                        table[at, Q_FIRST_FALL_TS] = words[i, 5]
                    table[at, Q_FALLS] += 1
            elif step > 0:
                table[at, Q_STEPS] += 1
                if step > 1:
                    if table[at, Q_JUMPS] == 0:
                        table[at, Q_FIRST_JUMP] = number + i
                        table[at, Q_FIRST_JUMP_TS] = words[i, 5]
                    table[at, Q_JUMPS] += 1
                    table[at, Q_MISSING] += step - 1
        table[at, Q_LAST] = sequence
        table[at, Q_DAY] = day
    return n_records
