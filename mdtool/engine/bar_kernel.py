"""The kernel of time bars: trades of many instruments into bars that close as time goes on.

Layouts, all int64:

- an open bar is a row of eleven: instrument, start, open, high, low, close, volume, count, the
  times of its first and its last trade, and the row of the same instrument's bar before it, or -1;
- `latest_row` has the row of each instrument's latest open bar, by index, -1 where there is none;
- `state` is five numbers: how many bars are open, the stream's latest time, the earliest start
  among the open bars, how many trades came too late, how many closed bars stand in `out`;
- `out` takes the first eight columns of each bar that closes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdtool.core.jit import inlined, kernel

INSTRUMENT, START, OPEN, HIGH, LOW, CLOSE, VOLUME, COUNT, FIRST, LAST, BEFORE = range(11)
COLUMNS = 11
RESULT_COLUMNS = 8
HELD, LATEST, EARLIEST, LATE, CLOSED = range(5)
LARGEST = 2**63 - 1


@inlined
def _enter(rows: Any, latest_row: Any, row: int) -> None:
    """Put a row into the chain of its instrument's open bars, which runs back in time."""
    instrument, start = rows[row, INSTRUMENT], rows[row, START]
    after = -1
    before = latest_row[instrument]
    while before >= 0 and rows[before, START] > start:
        after = before
        before = rows[before, BEFORE]
    rows[row, BEFORE] = before
    if after >= 0:
        rows[after, BEFORE] = row
    else:
        latest_row[instrument] = row


@inlined
def _find(rows: Any, latest_row: Any, instrument: int, start: int) -> int:
    """Return the row of an open bar, or -1."""
    row = latest_row[instrument]
    while row >= 0 and rows[row, START] > start:
        row = rows[row, BEFORE]
    return row if row >= 0 and rows[row, START] == start else -1


@kernel
def _close_until(
    watermark: int, interval: int, rows: Any, latest_row: Any, state: Any, out: Any
) -> None:
    """Move the bars that end at `watermark` or before to `out`, and close up the others."""
    for row in range(state[HELD]):
        latest_row[rows[row, INSTRUMENT]] = -1
    kept = 0
    state[EARLIEST] = LARGEST
    for row in range(state[HELD]):
        if watermark - rows[row, START] >= interval:
            for column in range(RESULT_COLUMNS):
                out[state[CLOSED], column] = rows[row, column]
            state[CLOSED] += 1
        else:
            for column in range(COLUMNS):
                rows[kept, column] = rows[row, column]
            state[EARLIEST] = min(state[EARLIEST], rows[row, START])
            kept += 1
    state[HELD] = kept
    for row in range(kept):
        _enter(rows, latest_row, row)


@kernel
def advance(
    interval: int, lateness: int, rows: Any, latest_row: Any, state: Any, out: Any, latest: int
) -> None:
    """Let the stream's time be at least `latest`; `out` has room for every open bar."""
    state[LATEST] = max(state[LATEST], latest)
    watermark = state[LATEST] - lateness
    if state[HELD] > 0 and watermark - state[EARLIEST] >= interval:
        _close_until(watermark, interval, rows, latest_row, state, out)


@kernel
def update(
    interval: int,
    lateness: int,
    rows: Any,
    latest_row: Any,
    state: Any,
    out: Any,
    instrument: Any,
    price: Any,
    size: Any,
    ts: Any,
    seen: Any,
    begin: int,
) -> int:
    """Take trades from `begin` on; return the first not taken for want of room in `rows` or `out`.

    `seen[i]` is the latest time in the stream up to and with trade `i`.
    """
    last = -1
    for i in range(begin, len(ts)):
        at = ts[i]
        of: Any = np.int64(instrument[i])
        latest = max(state[LATEST], seen[i])
        if state[HELD] > 0 and latest - lateness - state[EARLIEST] >= interval:
            if state[CLOSED] + state[HELD] > len(out):
                return i
            _close_until(latest - lateness, interval, rows, latest_row, state, out)
            last = -1
        state[LATEST] = latest
        row: Any = last
        if row < 0 or rows[row, INSTRUMENT] != of or not 0 <= at - rows[row, START] < interval:
            start = at - at % interval
            if latest - lateness - start >= interval:
                state[LATE] += 1
                continue
            row = _find(rows, latest_row, of, start)
            if row < 0:
                row = state[HELD]
                if row == len(rows):
                    return i
                rows[row, INSTRUMENT] = of
                rows[row, START] = start
                rows[row, OPEN] = price[i]
                rows[row, HIGH] = price[i]
                rows[row, LOW] = price[i]
                rows[row, VOLUME] = 0
                rows[row, COUNT] = 0
                rows[row, FIRST] = at
                rows[row, LAST] = at
                _enter(rows, latest_row, row)
                state[EARLIEST] = start if row == 0 else min(state[EARLIEST], start)
                state[HELD] += 1
            last = row
        rows[row, HIGH] = max(rows[row, HIGH], price[i])
        rows[row, LOW] = min(rows[row, LOW], price[i])
        if at >= rows[row, LAST]:
            rows[row, LAST] = at
            rows[row, CLOSE] = price[i]
        if at < rows[row, FIRST]:
            rows[row, FIRST] = at
            rows[row, OPEN] = price[i]
        rows[row, VOLUME] += size[i]
        rows[row, COUNT] += 1
    return len(ts)
