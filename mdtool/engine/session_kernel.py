"""The kernel that folds trades into each symbol's session: one row of eight int64 a symbol."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdtool.core.jit import kernel

OPEN, HIGH, LOW, CLOSE, VOLUME, COUNT, TIMESTAMP, INGEST_TIMESTAMP = range(8)
COLUMNS = 8
"""Columns of a row, which is one cache line."""
_MAX_VOLUME = 2**63 - 1


@kernel
def fold_sessions(
    symbol: NDArray[np.uint32],
    price: NDArray[np.int64],
    size: NDArray[np.int64],
    ts_event: NDArray[np.int64],
    ts_recv: NDArray[np.int64],
    sessions: NDArray[np.int64],
    changed_at: NDArray[np.int64],
    commit: int,
    changed: NDArray[np.uint32],
) -> int:
    """Fold trades into their symbols' rows, in order of arrival.

    Parameters
    ----------
    symbol, price, size, ts_event, ts_recv : arrays [trades]
        The trades; every symbol is a row of `sessions`.
    sessions : int64 [symbols, 8]
        Mutated: the row of each symbol. A total volume beyond int64 stays at its largest value.
    changed_at : int64 [symbols]
        Mutated: the number of the commit that last changed the symbol.
    commit : int
        The number of this commit, larger than all before.
    changed : uint32 [at least min(trades, symbols)]
        Written: the symbols that changed, each once, in order of their first trade.

    Returns
    -------
    int
        How many symbols changed.
    """
    changes = 0
    for k in range(len(symbol)):
        index = np.int64(symbol[k])
        row = sessions[index]
        if row[COUNT] == 0:
            row[OPEN] = price[k]
            row[HIGH] = price[k]
            row[LOW] = price[k]
        else:
            row[HIGH] = max(row[HIGH], price[k])
            row[LOW] = min(row[LOW], price[k])
        row[CLOSE] = price[k]
        room = _MAX_VOLUME - row[VOLUME]
        row[VOLUME] += min(size[k], room)
        row[COUNT] += 1
        row[TIMESTAMP] = ts_event[k]
        row[INGEST_TIMESTAMP] = ts_recv[k]
        if changed_at[index] != commit:
            changed_at[index] = commit
            changed[changes] = symbol[k]
            changes += 1
    return changes
