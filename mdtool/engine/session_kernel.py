"""The kernel that folds trades into their symbols' sessions: one row of eight int64 a symbol.

A session rolls with the first trade of its symbol that is beyond its end; the one before it is
kept, and still takes its late trades. A row of `spans`, four a symbol, says when these are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdtool.core.jit import inlined, kernel
from mdtool.engine.vwap_kernel import bucket_of

OPEN, HIGH, LOW, CLOSE, VOLUME, COUNT, TIMESTAMP, INGEST_TIMESTAMP = range(8)
COLUMNS = 8
"""Of a row, which is one cache line."""
START, END, PREVIOUS_START, PREVIOUS_END = range(4)
SPANS = 4
LATE, PAST = range(2)
ROLLED_SYMBOL, ROLLED_AT, ROLLED_START = range(3)
ROLLED_COLUMNS = 3 + COLUMNS
"""Of a session that is no symbol's previous one any more: whose, which commit last changed it, its
start, and its row."""
_MAX_VOLUME = 2**63 - 1


@inlined
def _fold(rows: Any, index: int, price: int, size: int, ts_event: int, ts_recv: int) -> None:
    if rows[index, COUNT] == 0:
        rows[index, OPEN] = price
        rows[index, HIGH] = price
        rows[index, LOW] = price
    else:
        rows[index, HIGH] = max(rows[index, HIGH], price)
        rows[index, LOW] = min(rows[index, LOW], price)
    rows[index, CLOSE] = price
    rows[index, VOLUME] += min(size, _MAX_VOLUME - rows[index, VOLUME])
    rows[index, COUNT] += 1
    rows[index, TIMESTAMP] = ts_event
    rows[index, INGEST_TIMESTAMP] = ts_recv


@kernel
def _span(interval: int, bounds: Any, spans: Any, index: int, column: int, at: int) -> None:
    """Set the start and the end of the session that a time is in."""
    if interval > 0:
        start: Any = at - at % interval
        spans[index, column] = start
        spans[index, column + 1] = start + min(interval, _MAX_VOLUME - start)
    else:
        bucket = bucket_of(bounds, at)
        spans[index, column] = bounds[bucket]
        spans[index, column + 1] = bounds[bucket + 1]


@kernel
def fold_sessions(
    interval: int,
    bounds: NDArray[np.int64],
    symbol: NDArray[np.uint32],
    price: NDArray[np.int64],
    size: NDArray[np.int64],
    ts_event: NDArray[np.int64],
    ts_recv: NDArray[np.int64],
    sessions: NDArray[np.int64],
    previous: NDArray[np.int64],
    spans: NDArray[np.int64],
    changed_at: NDArray[np.int64],
    previous_at: NDArray[np.int64],
    totals: NDArray[np.int64],
    commit: int,
    rolled: NDArray[np.int64],
    changed: NDArray[np.uint32],
) -> tuple[int, int]:
    """Fold trades into their symbols' rows, in order of arrival.

    Parameters
    ----------
    interval : int
        Sessions begin at its multiples; 0 where they begin at `bounds`.
    bounds : int64 [n]
        Rising; they cover all trades, and one more begins behind them.
    symbol, price, size, ts_event, ts_recv : arrays [trades]
        The trades; every symbol is a row of `sessions`.
    sessions, previous : int64 [symbols, 8]
        Mutated: the session of each symbol, and the one before it, count 0 for none. A total volume
        beyond int64 stays at its largest value.
    spans : int64 [symbols, 4]
        Mutated: the starts and ends of both, where there are such.
    changed_at, previous_at : int64 [symbols]
        Mutated: the number of the commit that last changed the symbol, and its previous session.
    totals : int64 [2]
        Mutated: how many trades are of a session that is not kept, and how many are not in a
        current session, these too.
    commit : int
        The number of this commit, larger than all before.
    rolled : int64 [trades, ROLLED_COLUMNS]
        Written: sessions that another one replaced as their symbol's previous one, in order. Where
        it has no rows, these are not written.
    changed : uint32 [at least min(trades, symbols)]
        Written: the symbols that changed, each once, in order of their first trade.

    Returns
    -------
    (int, int)
        How many symbols changed, and how many rows of `rolled` are written.
    """
    changes = replaced = 0
    for k in range(len(symbol)):
        index = np.int64(symbol[k])
        at = ts_event[k]
        if changed_at[index] != commit:
            changed_at[index] = commit
            changed[changes] = symbol[k]
            changes += 1
        if sessions[index, COUNT] > 0 and at >= spans[index, END]:
            totals[PAST] += sessions[index, COUNT]
            if previous[index, COUNT] > 0 and len(rolled) > 0:
                rolled[replaced, ROLLED_SYMBOL] = index
                rolled[replaced, ROLLED_AT] = previous_at[index]
                rolled[replaced, ROLLED_START] = spans[index, PREVIOUS_START]
                for column in range(COLUMNS):
                    rolled[replaced, ROLLED_START + 1 + column] = previous[index, column]
                replaced += 1
            for column in range(COLUMNS):
                previous[index, column] = sessions[index, column]
                sessions[index, column] = 0
            spans[index, PREVIOUS_START] = spans[index, START]
            spans[index, PREVIOUS_END] = spans[index, END]
            previous_at[index] = commit
        if sessions[index, COUNT] == 0:
            _span(interval, bounds, spans, index, START, at)  # type: ignore[arg-type]
        if at >= spans[index, START]:
            _fold(sessions, index, price[k], size[k], at, ts_recv[k])  # type: ignore[arg-type]
            continue
        totals[PAST] += 1
        if previous[index, COUNT] == 0:
            _span(interval, bounds, spans, index, PREVIOUS_START, at)  # type: ignore[arg-type]
        if spans[index, PREVIOUS_START] <= at < spans[index, PREVIOUS_END]:
            _fold(previous, index, price[k], size[k], at, ts_recv[k])  # type: ignore[arg-type]
            previous_at[index] = commit
        else:
            totals[LATE] += 1
    return changes, replaced
