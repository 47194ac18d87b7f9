"""The kernel of bars by volume, ticks or notional: each closes with the trade that fills it.

Layouts, all int64:

- an instrument has the row of its index, of ten: instrument, time of its open bar's first trade,
  open, high, low, close, volume, count (0: no bar is open), and what the bar has reached of its
  measure, as a whole part and billionths;
- `out` takes the first eight columns of each bar that closes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdtool.core.jit import kernel

INSTRUMENT, START, OPEN, HIGH, LOW, CLOSE, VOLUME, COUNT, WHOLE, BILLIONTHS = range(10)
COLUMNS = 10
RESULT_COLUMNS = 8
BY_VOLUME, BY_TICKS, BY_NOTIONAL = range(3)
BILLION = 1_000_000_000
LARGEST = 2**63 - 1


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
    out: Any,
    instrument: Any,
    price: Any,
    size: Any,
    ts: Any,
) -> int:
    """Take trades; return how many bars closed, which stand in `out`.

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
