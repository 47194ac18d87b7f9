"""The kernel of live bars: ticks of many symbols into the bars of several intervals, with history.

Layouts, all int64:

- a bar is a row of nine: start, open, high, low, close, volume, count, and the times of its first
  and its last trade (who trades earliest sets the open, who trades latest the close, whatever the
  order of arrival);
- `newest[symbol * intervals + interval]` is that series' newest bar, count 0 when it has none;
- `rings` of the same index is a row of four: where in `pool` the ring of its older bars lies, how
  many rows it has (a power of two), the position of its oldest bar, how many bars it holds;
- `pool` is rows of bars, handed out by `heap`: rows used so far, then for each power of two the
  first freed region of that many rows, -1 when none; a freed region's first number is the next.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdtool.core.jit import inlined, kernel

START, OPEN, HIGH, LOW, CLOSE, VOLUME, COUNT, FIRST, LAST = range(9)
COLUMNS = 9
OFFSET, CAPACITY, HEAD, HELD = range(4)
FIRST_CAPACITY = 8
MAX_VOLUME = 2**63 - 1

Integers = NDArray[np.int64]


@inlined
def _fresh(rows: Any, k: int, start: int, price: int, volume: int, ts: int) -> None:
    """Make row `k` the bar of one trade."""
    rows[k, START] = start
    rows[k, OPEN] = price
    rows[k, HIGH] = price
    rows[k, LOW] = price
    rows[k, CLOSE] = price
    rows[k, VOLUME] = volume
    rows[k, COUNT] = 1
    rows[k, FIRST] = ts
    rows[k, LAST] = ts


@inlined
def _amend(rows: Any, k: int, price: int, volume: int, ts: int) -> None:
    """Add a trade to the bar of row `k`."""
    if price > rows[k, HIGH]:
        rows[k, HIGH] = price
    if price < rows[k, LOW]:
        rows[k, LOW] = price
    if ts >= rows[k, LAST]:
        rows[k, LAST] = ts
        rows[k, CLOSE] = price
    if ts < rows[k, FIRST]:
        rows[k, FIRST] = ts
        rows[k, OPEN] = price
    if volume > MAX_VOLUME - rows[k, VOLUME]:
        rows[k, VOLUME] = MAX_VOLUME
    else:
        rows[k, VOLUME] += volume
    rows[k, COUNT] += 1


@kernel
def _allocate(pool: Any, heap: Any, capacity: int) -> int:
    """Return the first row of a region of `capacity` rows, a freed one where there is one."""
    power = 0
    while 1 << power < capacity:
        power += 1
    region = heap[1 + power]
    if region >= 0:
        heap[1 + power] = pool[region, 0]
        return region  # type: ignore[no-any-return]
    region = heap[0]
    heap[0] += capacity
    return region  # type: ignore[no-any-return]


@kernel
def _release(pool: Any, heap: Any, region: int, capacity: int) -> None:
    power = 0
    while 1 << power < capacity:
        power += 1
    pool[region, 0] = heap[1 + power]
    heap[1 + power] = region


@kernel
def _reserve(rings: Any, pool: Any, heap: Any, k: int, keep: int) -> int:
    """Make room for one more bar at the new end of ring `k`; return its row in `pool`."""
    if rings[k, HELD] == keep:
        rings[k, HEAD] = (rings[k, HEAD] + 1) & (rings[k, CAPACITY] - 1)
        rings[k, HELD] -= 1
    capacity = rings[k, CAPACITY]
    if rings[k, HELD] == capacity:
        larger = max(capacity * 2, FIRST_CAPACITY)
        region = _allocate(pool, heap, larger)
        for i in range(rings[k, HELD]):
            row = rings[k, OFFSET] + ((rings[k, HEAD] + i) & (capacity - 1))
            pool[region + i, :] = pool[row, :]
        if capacity > 0:
            _release(pool, heap, rings[k, OFFSET], capacity)
        rings[k, OFFSET] = region
        rings[k, CAPACITY] = larger
        rings[k, HEAD] = 0
    place = (rings[k, HEAD] + rings[k, HELD]) & (rings[k, CAPACITY] - 1)
    rings[k, HELD] += 1
    return rings[k, OFFSET] + place  # type: ignore[no-any-return]


@kernel
def _amend_past(
    rings: Any,
    pool: Any,
    heap: Any,
    k: int,
    keep: int,
    start: int,
    price: int,
    volume: int,
    ts: int,
) -> None:
    """Add a trade to an older bar of ring `k`, or put the bar in its place if there is none."""
    newer = 0
    held = rings[k, HELD]
    mask = rings[k, CAPACITY] - 1
    while newer < held:
        row = rings[k, OFFSET] + ((rings[k, HEAD] + held - 1 - newer) & mask)
        if pool[row, START] == start:
            _amend(pool, row, price, volume, ts)
            return
        if pool[row, START] < start:
            break
        newer += 1
    if newer == keep:
        return  # older than all that is kept
    to = _reserve(rings, pool, heap, k, keep)
    mask = rings[k, CAPACITY] - 1
    last = rings[k, HEAD] + rings[k, HELD] - 1
    for i in range(newer):
        row = rings[k, OFFSET] + ((last - 1 - i) & mask)
        pool[to, :] = pool[row, :]
        to = row
    _fresh(pool, to, start, price, volume, ts)


@kernel
def update(
    intervals: Integers,
    lateness: int,
    keep: int,
    newest: Integers,
    rings: Integers,
    pool: Integers,
    heap: Integers,
    symbol: NDArray[np.uint32],
    price: Integers,
    volume: Integers,
    ts: Integers,
    begin: int,
    late: Integers,
) -> int:
    """Take the ticks from `begin` on; return the first that is not taken for want of pool rows.

    `intervals` rise. `late[0]` is raised by each tick that is left out.
    """
    series = len(intervals)
    shortest = intervals[0]
    capacity = FIRST_CAPACITY
    while capacity < keep:
        capacity *= 2
    for i in range(begin, len(ts)):
        if len(pool) - heap[0] < series * capacity:
            return i
        at = ts[i]
        base = np.int64(symbol[i]) * series
        if newest[base, COUNT] > 0 and at < newest[base, START]:
            # The newest bar of the shortest interval holds the symbol's latest trade.
            watermark = newest[base, LAST] - lateness
            if watermark - (at - at % shortest) >= shortest:
                late[0] += 1
                continue
        for j in range(series):
            k = base + j
            age = at - newest[k, START]
            if newest[k, COUNT] == 0:
                _fresh(newest, k, at - at % intervals[j], price[i], volume[i], at)
            elif age >= intervals[j]:
                row = _reserve(rings, pool, heap, k, keep)
                pool[row, :] = newest[k, :]
                _fresh(newest, k, at - at % intervals[j], price[i], volume[i], at)
            elif age >= 0:
                _amend(newest, k, price[i], volume[i], at)
            else:
                start = at - at % intervals[j]
                _amend_past(rings, pool, heap, k, keep, start, price[i], volume[i], at)
    return len(ts)
