"""The kernel that counts each trade once where several views of a stream show it."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.core.jit import inlined, kernel

Words = npt.NDArray[np.int64]
Indices = npt.NDArray[np.uint32]
Marks = npt.NDArray[np.bool_]

NS_PER_DAY: Final = 86_400_000_000_000
(
    V_RANK,  # of the view that counts: higher is preferred; 0 before the first of a date
    V_BEFORE,  # of the view that counted last on the date before
    V_DAY,  # the UTC date of the latest record
    V_FIRST,  # the first time that was counted
    V_FIRST_OF_DAY,  # since the date began
    V_LATEST,  # the last one
    V_AT,  # how many were counted at the last one
    V_FROM,  # what others had counted when the present view appeared
    V_TO,
    V_LEFT,  # how many at V_TO are still to be skipped
    V_FROM_2,  # the same of dates before
    V_TO_2,
    V_LEFT_2,
    V_KEPT_FROM,  # of the view of the date before, while another one counts
    V_KEPT_TO,
    V_KEPT_LEFT,
    V_LATEST_BEFORE,  # of V_LATEST and V_AT, before the date began
    V_AT_BEFORE,
    V_AFTER,  # how many of less preferred views came after the last that was counted
    V_LOST,  # how many so in all on earlier dates
    V_WIDTH,
) = range(21)


@inlined
def _is_covered(state: Words, of: int, ts: int, at: int) -> bool:
    """Return whether the range at a column has a time; count off what it has at its end."""
    if state[of, at] > 0 and state[of, at] <= ts < state[of, at + 1]:
        return True
    if ts == state[of, at + 1] and state[of, at + 2] > 0:
        state[of, at + 2] -= 1
        return True
    return False


@kernel
def count_once(
    row: Indices, ts_ns: Words, until_ns: Words, rank: int, state: Words, counted: Marks
) -> int:
    """Mark which records of one view count; return how many.

    Parameters
    ----------
    row : uint32[n]
        The row in `state` of each record's instrument.
    ts_ns, until_ns : int64[n]
        The time of each, and the end of the interval that it covers: the same for a trade.
    rank : int
        Of the view, from 1.
    state : int64[m, V_WIDTH]
        Changed in place; rows of zeros are new.
    counted : bool[n]
        Written.
    """
    total = 0
    for i in range(row.shape[0]):
        of = row[i]
        ts = ts_ns[i]
        day = ts // NS_PER_DAY
        if day > state[of, V_DAY]:
            state[of, V_DAY] = day
            state[of, V_BEFORE] = state[of, V_RANK]
            state[of, V_FIRST_OF_DAY] = 0
            state[of, V_LATEST_BEFORE] = state[of, V_LATEST]
            state[of, V_AT_BEFORE] = state[of, V_AT]
            state[of, V_LOST] += state[of, V_AFTER]
            state[of, V_AFTER] = 0
            if rank != state[of, V_RANK]:
                state[of, V_RANK] = 0
                state[of, V_KEPT_FROM] = state[of, V_FROM]
                state[of, V_KEPT_TO] = state[of, V_TO]
                state[of, V_KEPT_LEFT] = state[of, V_LEFT]
        counted[i] = False
        if rank < state[of, V_RANK]:
            if ts > state[of, V_LATEST]:
                state[of, V_AFTER] += 1
            continue
        if rank > state[of, V_RANK]:
            # The view of the date before may still have trades of it, which nobody counted.
            is_known = rank == state[of, V_BEFORE]
            state[of, V_FROM_2] = state[of, V_KEPT_FROM if is_known else V_FIRST]
            state[of, V_TO_2] = state[of, V_KEPT_TO if is_known else V_LATEST_BEFORE]
            state[of, V_LEFT_2] = state[of, V_KEPT_LEFT if is_known else V_AT_BEFORE]
            state[of, V_FROM] = state[of, V_FIRST_OF_DAY]
            state[of, V_TO] = state[of, V_LATEST]
            state[of, V_LEFT] = state[of, V_AT]
            state[of, V_RANK] = rank
        if _is_covered(state, of, ts, V_FROM) or _is_covered(state, of, ts, V_FROM_2):
            continue
        counted[i] = True
        total += 1
        if state[of, V_FIRST] == 0 or ts < state[of, V_FIRST]:
            state[of, V_FIRST] = ts
        first_of_day = state[of, V_FIRST_OF_DAY]
        if first_of_day == 0 or (ts < first_of_day and day == state[of, V_DAY]):
            state[of, V_FIRST_OF_DAY] = ts
        if until_ns[i] > state[of, V_LATEST]:
            state[of, V_LATEST] = until_ns[i]
            state[of, V_AT] = 0
            state[of, V_AFTER] = 0
        if ts == state[of, V_LATEST]:
            state[of, V_AT] += 1
    return total
