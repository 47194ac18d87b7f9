"""The hash tables of kernels: open-addressed, in arrays whose length is a power of two.

A table has a row for each slot; its first column is the key, 0 in a free row. At most half of the
rows are taken, so that a search is short; its owner counts them, and moves them to a table of twice
the length before more are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdtool.core.jit import inlined, kernel

KEY = 0

# A hash wraps around, which only unsigned numbers may.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


@inlined
def home_of(key: int, slots: int) -> int:
    """Return the row where the search for a key begins."""
    return np.int64((np.uint64(key) * _MULTIPLIER) >> _HALF) & (slots - 1)  # type: ignore[return-value]


@inlined
def find_row(table: Any, key: int) -> int:
    """Return the row of a key other than 0, or the free one where it belongs."""
    row = home_of(key, len(table))
    while table[row, KEY] != 0 and table[row, KEY] != key:
        row = (row + 1) & (len(table) - 1)
    return row


@kernel
def move_rows(old: NDArray[np.int64], new: NDArray[np.int64]) -> None:
    """Enter every taken row of the table `old` into the larger and empty `new`."""
    for row in range(len(old)):
        if old[row, KEY] != 0:
            new[find_row(new, old[row, KEY]), :] = old[row, :]
