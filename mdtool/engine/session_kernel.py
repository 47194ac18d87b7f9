"""The kernel that folds ticks into each symbol's session: one row of eight int64 a symbol."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdtool.core.jit import kernel

OPEN, HIGH, LOW, CLOSE, VOLUME, COUNT, TIMESTAMP, INGEST_TIMESTAMP = range(8)
COLUMNS = 8
"""Of a row, which is one cache line."""
_MAX_VOLUME = 2**63 - 1


@kernel
def fold_sessions(
    symbol: NDArray[np.uint32],
    price: NDArray[np.int64],
    volume: NDArray[np.int64],
    exchange_timestamp: NDArray[np.int64],
    ingest_timestamp: NDArray[np.int64],
    sessions: NDArray[np.int64],
    changed_at: NDArray[np.int64],
    commit: int,
    changed: NDArray[np.uint32],
) -> int:
    """Fold ticks into their symbols' rows, in order of arrival.

    Parameters
    ----------
    symbol, price, volume, exchange_timestamp, ingest_timestamp : arrays [ticks]
        The ticks; every symbol is a row of `sessions`.
    sessions : int64 [symbols, 8]
        Mutated: the row of each symbol. A total volume beyond int64 stays at its largest value.
    changed_at : int64 [symbols]
        Mutated: the number of the commit that last changed the symbol.
    commit : int
        The number of this commit, larger than all before.
    changed : uint32 [at least min(ticks, symbols)]
        Written: the symbols that changed, each once, in order of their first tick.

    Returns
    -------
    int
        How many symbols changed.
    """
    changes = 0
    for tick in range(len(symbol)):
        index = np.int64(symbol[tick])
        row = sessions[index]
        if row[COUNT] == 0:
            row[OPEN] = price[tick]
            row[HIGH] = price[tick]
            row[LOW] = price[tick]
        else:
            row[HIGH] = max(row[HIGH], price[tick])
            row[LOW] = min(row[LOW], price[tick])
        row[CLOSE] = price[tick]
        room = _MAX_VOLUME - row[VOLUME]
        row[VOLUME] += min(volume[tick], room)
        row[COUNT] += 1
        row[TIMESTAMP] = exchange_timestamp[tick]
        row[INGEST_TIMESTAMP] = ingest_timestamp[tick]
        if changed_at[index] != commit:
            changed_at[index] = commit
            changed[changes] = symbol[tick]
            changes += 1
    return changes
