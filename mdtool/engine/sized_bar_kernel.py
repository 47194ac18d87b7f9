"""The kernel of bars by volume, ticks or notional: each closes with the trade that fills it.

Layouts, all int64:

- an instrument is a row of ten: instrument, time of its open bar's first trade, open, high, low,
  close, volume, count (0: no bar is open), and what the bar has reached of its measure, as a
  whole part and billionths;
- `table` is a hash table of rows by instrument, open addressing, -1 where empty; its length is a
  power of two and at least twice that of the rows;
- `state` is two numbers: how many instruments there are, how many closed bars stand in `out`;
- `out` takes the first eight columns of each bar that closes.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from mdtool.core.jit import kernel

INSTRUMENT, START, OPEN, HIGH, LOW, CLOSE, VOLUME, COUNT, WHOLE, BILLIONTHS = range(10)
COLUMNS = 10
RESULT_COLUMNS = 8
HELD, CLOSED = range(2)
BY_VOLUME, BY_TICKS, BY_NOTIONAL = range(3)
BILLION = 1_000_000_000
LARGEST = 2**63 - 1
# A hash wraps around, which only unsigned numbers may.
_BY_INSTRUMENT: Final = np.uint64(0x1E3779B97F4A7C15)
_HALF: Final = np.uint64(32)


@kernel
def find(rows: Any, table: Any, instrument: int) -> Any:
    """Return the place in `table` of an instrument, or the empty one where it would stand."""
    mixed = np.uint64(instrument) * _BY_INSTRUMENT
    place = np.int64(mixed ^ (mixed >> _HALF)) & (len(table) - 1)
    while table[place] >= 0 and rows[table[place], INSTRUMENT] != instrument:
        place = (place + 1) & (len(table) - 1)
    return place


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
def update(
    measure: int,
    whole: int,
    billionths: int,
    rows: Any,
    table: Any,
    state: Any,
    out: Any,
    instrument: Any,
    price: Any,
    size: Any,
    ts: Any,
    begin: int,
) -> int:
    """Take trades from `begin` on; return the first not taken for want of room in `rows`.

    `out` has room for a bar a trade. A bar closes at `whole` and `billionths` of `measure`.
    """
    for i in range(begin, len(ts)):
        place = find(rows, table, instrument[i])
        row = table[place]
        if row < 0:
            row = state[HELD]
            if row == len(rows):
                return i
            table[place] = row
            rows[row, INSTRUMENT] = instrument[i]
            rows[row, COUNT] = 0
            state[HELD] += 1
        if rows[row, COUNT] == 0:
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
        rows[row, VOLUME] += size[i]
        rows[row, COUNT] += 1
        _reach(rows, row, measure, price[i], size[i])
        if rows[row, WHOLE] > whole or (
            rows[row, WHOLE] == whole and rows[row, BILLIONTHS] >= billionths
        ):
            for column in range(RESULT_COLUMNS):
                out[state[CLOSED], column] = rows[row, column]
            state[CLOSED] += 1
            rows[row, COUNT] = 0
    return len(ts)
