"""The kernel of time bars: trades of many instruments into bars that close as time goes on.

Layouts, all int64:

- an open bar is a row of eleven: instrument, start, open, high, low, close, volume, count, the
  times of its first and its last trade, and its place in `table`;
- `table` is a hash table of rows by instrument and start, open addressing, -1 where empty; its
  length is a power of two and at least twice that of the rows;
- `state` is five numbers: how many bars are open, the stream's latest time, the earliest start
  among the open bars, how many trades came too late, how many closed bars stand in `out`;
- `out` takes the first eight columns of each bar that closes.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from mdtool.core.jit import inlined, kernel

INSTRUMENT, START, OPEN, HIGH, LOW, CLOSE, VOLUME, COUNT, FIRST, LAST, PLACE = range(11)
COLUMNS = 11
RESULT_COLUMNS = 8
HELD, LATEST, EARLIEST, LATE, CLOSED = range(5)
LARGEST = 2**63 - 1
# A hash wraps around, which only unsigned numbers may.
_BY_INSTRUMENT: Final = np.uint64(0x1E3779B97F4A7C15)
_BY_START: Final = np.uint64(0x42B2AE3D27D4EB4F)
_HALF: Final = np.uint64(32)


@inlined
def _slot(table: Any, instrument: int, start: int) -> Any:
    mixed = np.uint64(instrument) * _BY_INSTRUMENT + np.uint64(start) * _BY_START
    return np.int64(mixed ^ (mixed >> _HALF)) & (len(table) - 1)


@kernel
def _find(rows: Any, table: Any, instrument: int, start: int) -> Any:
    """Return the place in `table` of a bar, or the empty one where it would stand."""
    place = _slot(table, instrument, start)
    while table[place] >= 0:
        row = table[place]
        if rows[row, INSTRUMENT] == instrument and rows[row, START] == start:
            break
        place = (place + 1) & (len(table) - 1)
    return place


@kernel
def index_rows(rows: Any, table: Any, held: int) -> None:
    """Enter the first `held` rows into an empty `table`."""
    for row in range(held):
        place = _find(rows, table, rows[row, INSTRUMENT], rows[row, START])
        table[place] = row
        rows[row, PLACE] = place


@kernel
def _close_until(
    watermark: int, interval: int, rows: Any, table: Any, state: Any, out: Any
) -> None:
    """Move the bars that end at `watermark` or before to `out`, and close up the others."""
    for row in range(state[HELD]):
        table[rows[row, PLACE]] = -1
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
    index_rows(rows, table, kept)


@kernel
def advance(
    interval: int, lateness: int, rows: Any, table: Any, state: Any, out: Any, latest: int
) -> None:
    """Let the stream's time be at least `latest`; `out` has room for every open bar."""
    state[LATEST] = max(state[LATEST], latest)
    watermark = state[LATEST] - lateness
    if state[HELD] > 0 and watermark - state[EARLIEST] >= interval:
        _close_until(watermark, interval, rows, table, state, out)


@kernel
def update(
    interval: int,
    lateness: int,
    rows: Any,
    table: Any,
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
        latest = max(state[LATEST], seen[i])
        if state[HELD] > 0 and latest - lateness - state[EARLIEST] >= interval:
            if state[CLOSED] + state[HELD] > len(out):
                return i
            _close_until(latest - lateness, interval, rows, table, state, out)
            last = -1
        state[LATEST] = latest
        row: Any = last
        if (
            row < 0
            or rows[row, INSTRUMENT] != instrument[i]
            or not 0 <= at - rows[row, START] < interval
        ):
            start = at - at % interval
            if latest - lateness - start >= interval:
                state[LATE] += 1
                continue
            place = _find(rows, table, instrument[i], start)
            row = table[place]
            if row < 0:
                row = state[HELD]
                if row == len(rows):
                    return i
                table[place] = row
                rows[row, INSTRUMENT] = instrument[i]
                rows[row, START] = start
                rows[row, OPEN] = price[i]
                rows[row, HIGH] = price[i]
                rows[row, LOW] = price[i]
                rows[row, VOLUME] = 0
                rows[row, COUNT] = 0
                rows[row, FIRST] = at
                rows[row, LAST] = at
                rows[row, PLACE] = place
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
