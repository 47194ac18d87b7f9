"""Kernels that follow a stream of MBO records: which events have ended, and sequence numbers."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.core.jit import kernel

Words = npt.NDArray[np.int64]
Indices = npt.NDArray[np.uint32]
Marks = npt.NDArray[np.bool_]

F_LAST: Final = 128
(
    Q_SEEN,  # 1 once a record was
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
def mark_open(
    words: Words, instrument: Indices, ended_in: Words, number: int, latest: Words, marks: Marks
) -> int:
    """Mark the records of events that do not end in `words` or after it; return how many.

    Parameters
    ----------
    words : int64[n, 7]
        MBO records, as `engine.book.kernel` lays them out.
    instrument : uint32[n]
        The index of each record's instrument.
    ended_in : int64[m]
        Of each instrument the number of the round in which an event of it ended last; changed.
    number : int
        Of this round: what ended in it before ended after `words`.
    latest : int64[1]
        The latest ts_recv, which is brought up to these records.
    marks : bool[n]
        Written.
    """
    latest_ns = latest[0]
    n_open = 0
    for i in range(words.shape[0] - 1, -1, -1):
        of = instrument[i]
        if (words[i, 4] >> 32) & F_LAST != 0:
            ended_in[of] = number
        is_open = ended_in[of] != number
        marks[i] = is_open
        n_open += is_open
        latest_ns = max(latest_ns, words[i, 5])
    latest[0] = latest_ns
    return n_open


@kernel
def follow(words: Words, row: Indices, number: int, table: Words) -> None:
    """Follow the sequence numbers of MBO records.

    Parameters
    ----------
    words : int64[n, 7]
        MBO records, as `engine.book.kernel` lays them out.
    row : uint32[n]
        The row of each record's channel or instrument.
    number : int
        Which record of the stream `words[0]` is.
    table : int64[m, Q_WIDTH]
        Changed in place.
    """
    for i in range(words.shape[0]):
        what = words[i, 4]
        if (what >> 32) & F_SNAPSHOT:
            # Its orders have the numbers with which they were entered.
            continue
        sequence = (words[i, 6] >> 32) & U32
        day = words[i, 5] // NS_PER_DAY
        at = row[i]
        if table[at, Q_SEEN] == 0:
            table[at, Q_SEEN] = 1
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
