"""The kernels of bars: trades of many instruments into bars by time, and by what is traded.

Layouts, all int64. Every bar begins with nine columns, which are copied to `out` when it closes:
instrument, start, open, high, low, close, volume, count, VWAP. The VWAP is kept only where there
are `sums`, a row for each row of bars, laid out as the windows of `vwap_kernel`.

Bars by time close as the stream's time advances. Buckets are of one length, `interval`; or that
is 0, and they begin at `bounds`, rising, which cover the trades and what comes after them:

- an open bar is a row of thirteen: these, the times of its first and its last trade, the row of
  the same instrument's bar before it, or -1, and its end;
- `latest_row` has the row of each instrument's latest open bar, by index, -1 where there is none;
- `state` is five numbers: how many bars are open, the stream's latest time, the earliest end
  among the open bars, how many trades were too late, how many closed bars are in `out`.

Bars by volume, ticks or notional close with the trade that fills them: an instrument has the row of
its index, of eleven: these (count 0: no bar is open), and what the bar has reached of its measure,
as a whole part and billionths.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdtool.core.jit import inlined, kernel
from mdtool.engine import vwap_kernel

INSTRUMENT, START, OPEN, HIGH, LOW, CLOSE, VOLUME, COUNT, VWAP = range(9)
RESULT_COLUMNS = 9
FIRST, LAST, BEFORE, END = range(9, 13)
TIME_COLUMNS = 13
WHOLE, BILLIONTHS = range(9, 11)
SIZE_COLUMNS = 11
HELD, LATEST, EARLIEST, LATE, CLOSED = range(5)
BY_VOLUME, BY_TICKS, BY_NOTIONAL = range(3)
BILLION = 1_000_000_000
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


@inlined
def _sum(rows: Any, row: int, sums: Any, price: int, size: int) -> None:
    """Add a trade to the VWAP of a bar, whose count it is not in yet."""
    if rows[row, COUNT] == 0:
        sums[row, :] = 0
    vwap_kernel.add(sums, row, price, size)
    rows[row, VWAP] = sums[row, vwap_kernel.VWAP] if sums[row, vwap_kernel.VOLUME] else LARGEST


@kernel
def _close_until(
    watermark: int, rows: Any, sums: Any, latest_row: Any, state: Any, out: Any
) -> None:
    """Move the bars that end at `watermark` or before to `out`, and close up the others."""
    for row in range(state[HELD]):
        latest_row[rows[row, INSTRUMENT]] = -1
    kept = 0
    state[EARLIEST] = LARGEST
    for row in range(state[HELD]):
        if watermark >= rows[row, END]:
            for column in range(RESULT_COLUMNS):
                out[state[CLOSED], column] = rows[row, column]
            state[CLOSED] += 1
        else:
            for column in range(TIME_COLUMNS):
                rows[kept, column] = rows[row, column]
            if len(sums):
                for column in range(vwap_kernel.COLUMNS):
                    sums[kept, column] = sums[row, column]
            state[EARLIEST] = min(state[EARLIEST], rows[row, END])
            kept += 1
    state[HELD] = kept
    for row in range(kept):
        _enter(rows, latest_row, row)


@kernel
def advance(
    lateness: int, rows: Any, sums: Any, latest_row: Any, state: Any, out: Any, latest: int
) -> None:
    """Let the stream's time be at least `latest`; `out` has room for every open bar."""
    state[LATEST] = max(state[LATEST], latest)
    watermark = state[LATEST] - lateness
    if state[HELD] > 0 and watermark >= state[EARLIEST]:
        _close_until(watermark, rows, sums, latest_row, state, out)


@kernel
def update_by_time(
    interval: int,
    bounds: Any,
    lateness: int,
    rows: Any,
    sums: Any,
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
    """Apply trades from `begin` on; return the first for which `rows` or `out` has no room.

    `seen[i]` is the latest time in the stream up to and with trade `i`.
    """
    last = -1
    for i in range(begin, len(ts)):
        at = ts[i]
        of: Any = np.int64(instrument[i])
        latest = max(state[LATEST], seen[i])
        if state[HELD] > 0 and latest - lateness >= state[EARLIEST]:
            if state[CLOSED] + state[HELD] > len(out):
                return i
            _close_until(latest - lateness, rows, sums, latest_row, state, out)
            last = -1
        state[LATEST] = latest
        row: Any = last
        if row < 0 or rows[row, INSTRUMENT] != of or not rows[row, START] <= at < rows[row, END]:
            if interval > 0:
                start: Any = at - at % interval
                end: Any = start + min(interval, LARGEST - start)
            else:
                bucket = vwap_kernel.bucket_of(bounds, at)
                start, end = bounds[bucket], bounds[bucket + 1]
            if latest - lateness >= end:
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
                rows[row, END] = end
                _enter(rows, latest_row, row)
                state[EARLIEST] = end if row == 0 else min(state[EARLIEST], end)
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
        if len(sums):
            _sum(rows, row, sums, price[i], size[i])
        rows[row, VOLUME] += size[i]
        rows[row, COUNT] += 1
    return len(ts)


@kernel
def _reach(rows: Any, row: int, measure: int, price: int, size: int) -> None:
    """Add what a trade is worth; what would leave int64 stops at its end."""
    if measure == BY_TICKS:
        rows[row, WHOLE] += 1
        return
    if measure == BY_VOLUME:
        rows[row, WHOLE] += min(size, LARGEST - rows[row, WHOLE])
        return
    price = abs(price)
    # A size is below 2^32, so that the billionths of a price times it stay within int64.
    billionths = rows[row, BILLIONTHS] + price % BILLION * size
    whole = billionths // BILLION
    if size > 0 and price // BILLION > (LARGEST - whole - rows[row, WHOLE]) // size:
        rows[row, WHOLE] = LARGEST
    else:
        rows[row, WHOLE] += price // BILLION * size + whole
    rows[row, BILLIONTHS] = billionths % BILLION


@kernel
def update_by_size(
    measure: int,
    whole: int,
    billionths: int,
    rows: Any,
    sums: Any,
    out: Any,
    instrument: Any,
    price: Any,
    size: Any,
    ts: Any,
) -> int:
    """Apply trades; return how many bars closed, which are in `out`.

    `out` has room for a bar a trade. A bar closes at `whole` and `billionths` of `measure`.
    """
    closed = 0
    for i in range(len(ts)):
        row: Any = np.int64(instrument[i])
        if rows[row, COUNT] == 0:
            rows[row, INSTRUMENT] = row
            rows[row, START] = ts[i]
            rows[row, OPEN] = price[i]
            rows[row, HIGH] = price[i]
            rows[row, LOW] = price[i]
            rows[row, VOLUME] = 0
            rows[row, WHOLE] = 0
            rows[row, BILLIONTHS] = 0
        rows[row, HIGH] = max(rows[row, HIGH], price[i])
        rows[row, LOW] = min(rows[row, LOW], price[i])
        rows[row, CLOSE] = price[i]
        if len(sums):
            _sum(rows, row, sums, price[i], size[i])
        rows[row, VOLUME] += size[i]
        rows[row, COUNT] += 1
        _reach(rows, row, measure, price[i], size[i])
        if rows[row, WHOLE] > whole or (
            rows[row, WHOLE] == whole and rows[row, BILLIONTHS] >= billionths
        ):
            for column in range(RESULT_COLUMNS):
                out[closed, column] = rows[row, column]
            closed += 1
            rows[row, COUNT] = 0
    return closed
