"""The kernel of consolidated depth: ladders of several books of a symbol joined into one.

Records and ladders are 64-bit words of the MBP layouts, as `engine.book.kernel` describes them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.core.jit import inlined, kernel

Words = npt.NDArray[np.int64]
Indices = npt.NDArray[np.uint32]

NONE: Final = -1
UNDEF_PRICE: Final = 2**63 - 1
U32: Final = 0xFFFFFFFF
TRADE: Final = 84
HEAD_WORDS: Final = 6
PUBLISHER_MASK: Final = ~(0xFFFF << 16)
BELOW_DEPTH: Final = (1 << 56) - 1


@inlined
def _join_side(
    latest: Words, next_of: Words, first: int, at: Words, side: int, ladder: Words
) -> None:
    """Write the best levels of a side of all books of a symbol, sizes and counts added.

    Parameters
    ----------
    latest : int64[m, 4 * depth]
        The ladder of each book.
    next_of : int64[m]
        The next book of the symbol, NONE after the last.
    first : int
        The first one.
    at : int64[m]
        Scratch: how many levels of each book have been taken.
    side : int
        0 for bids, 1 for asks.
    ladder : int64[4 * depth]
        Written, but for the other side's halves.
    """
    depth = ladder.shape[0] >> 2
    shift = 32 * side
    book = first
    while book != NONE:
        at[book] = 0
        book = next_of[book]
    for k in range(depth):
        best = UNDEF_PRICE
        book = first
        while book != NONE:
            if at[book] < depth:
                price = latest[book, 4 * at[book] + side]
                if price != UNDEF_PRICE and (
                    best == UNDEF_PRICE or (price < best if side else price > best)
                ):
                    best = price
            book = next_of[book]
        ladder[4 * k + side] = best
        if best == UNDEF_PRICE:
            continue
        size = 0
        count = 0
        book = first
        while book != NONE:
            word = 4 * at[book]
            if at[book] < depth and latest[book, word + side] == best:
                size += (latest[book, word + 2] >> shift) & U32
                count += (latest[book, word + 3] >> shift) & U32
                at[book] += 1
            book = next_of[book]
        ladder[4 * k + 2] |= min(size, U32) << shift
        ladder[4 * k + 3] |= min(count, U32) << shift


@kernel
def join(
    words: Words,
    instrument: Indices,
    first_of: Words,
    next_of: Words,
    latest: Words,
    shown: Words,
    at: Words,
    ladder: Words,
    out: Words,
    made: Indices,
) -> int:
    """Write the consolidated record of each depth record that changes its symbol's ladder.

    Parameters
    ----------
    words : int64[n, 6 + 4 * depth]
        Depth records of single books.
    instrument : uint32[n]
        The instrument of each.
    first_of, next_of : int64[m]
        Of each instrument the first one of its symbol, and the next one of it, NONE after the last.
    latest : int64[m, 4 * depth]
        The ladder of each book, which is brought up to these records.
    shown : int64[m, 4 * depth]
        The consolidated ladder by a symbol's first instrument, brought up to these records too.
    at : int64[m]
    ladder : int64[4 * depth]
        Scratch.
    out : int64[n, 6 + 4 * depth]
        Room for the records. Trades give one always. `depth` is the first level that changed.
    made : uint32[n]
        Room for the first instrument of each one's symbol.

    Returns
    -------
    int
        How many records were written.
    """
    n_made = 0
    for i in range(words.shape[0]):
        book = np.int64(instrument[i])
        first = first_of[book]
        for k in range(ladder.shape[0]):
            latest[book, k] = words[i, HEAD_WORDS + k]
            ladder[k] = 0
        _join_side(latest, next_of, first, at, 0, ladder)
        _join_side(latest, next_of, first, at, 1, ladder)
        changed = NONE
        for k in range(ladder.shape[0]):
            if ladder[k] != shown[first, k]:
                if changed == NONE:
                    changed = k >> 2
                shown[first, k] = ladder[k]
        is_trade = (words[i, 3] >> 32) & 0xFF == TRADE
        if changed == NONE and not is_trade:
            continue
        depth = max(changed, 0)
        out[n_made, 0] = words[i, 0] & PUBLISHER_MASK
        out[n_made, 1] = words[i, 1]
        out[n_made, 2] = words[i, 2]
        out[n_made, 3] = (words[i, 3] & BELOW_DEPTH) | (depth << 56)
        out[n_made, 4] = words[i, 4]
        out[n_made, 5] = words[i, 5]
        for k in range(ladder.shape[0]):
            out[n_made, HEAD_WORDS + k] = ladder[k]
        made[n_made] = first
        n_made += 1
    return n_made
