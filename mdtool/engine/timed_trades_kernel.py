"""The kernel that reads the trades among DBN records into columns, in one pass over the records."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mdtool.core.jit import kernel

Words = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]

UNDEF_PRICE: Final = 2**63 - 1
UNDEF_SIZE: Final = 2**32 - 1
TRADED: Final = ord("T")
LOWEST: Final = -(2**63)

UNDEFINED, LATEST = range(2)


class Layout(NamedTuple):
    """Where a record of so many 64-bit words has its fields: in which word, and at which bit."""

    width: int
    ts: int
    price: int
    size: int
    size_bit: int
    action: int
    action_bit: int


@kernel
def split(
    words: Words,
    layout: Layout,
    moves_with_all: bool,
    ts: Words,
    seen: Words,
    price: Words,
    size: Words,
    is_taken: Marks,
    found: Words,
) -> int:
    """Copy the trades whose price, size and time are defined; return how many they are.

    Parameters
    ----------
    words : int64[n * width]
        The records.
    layout : Layout
        Theirs; `ts` is that of the clock.
    moves_with_all : bool
        Whether records that are not taken move the stream's time too.
    ts, seen, price, size : int64[n]
        Written: of each trade its time, the stream's time at it, and what was traded.
    is_taken : bool[n]
        Written: which records they are.
    found : int64[2]
        Written: how many trades are not defined, and the latest time of the stream.
    """
    taken = 0
    undefined = 0
    latest = LOWEST
    for i in range(len(is_taken)):
        at = i * layout.width
        time = words[at + layout.ts]
        if moves_with_all:
            latest = max(latest, time)
        is_taken[i] = False
        if (words[at + layout.action] >> layout.action_bit) & 0xFF != TRADED:
            continue
        its_price = words[at + layout.price]
        its_size = (words[at + layout.size] >> layout.size_bit) & UNDEF_SIZE
        if time < 0 or its_price == UNDEF_PRICE or not 0 < its_size < UNDEF_SIZE:
            undefined += 1
            continue
        is_taken[i] = True
        latest = max(latest, time)
        ts[taken] = time
        seen[taken] = latest
        price[taken] = its_price
        size[taken] = its_size
        taken += 1
    found[UNDEFINED] = undefined
    found[LATEST] = latest
    return taken
