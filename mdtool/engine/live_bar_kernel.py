"""The kernel of live bars: ticks of many symbols into the bars of several intervals, with history.

A tick is added to its symbol's newest bar of the shortest interval alone; that bar is merged into
those of the longer intervals when the next one begins. Layouts, all int64:

- a bar is a row of eleven: start, open, high, low, close, volume, count, the times of its first and
  its last trade (the earliest trade sets the open, the latest the close, whatever the order of
  arrival), the number of the update that added its latest trade, and that of the last update that
  merged a bar into it or put it in its place;
- `newest[symbol * intervals + interval]` is that series' newest bar, count 0 when it has none;
- `ends` of the same index is a row of three: the pool rows of the newest and of the oldest of its
  older bars, and how many those are;
- `pool` is rows of bars, in chunks of `CHUNK` that a series takes as it grows and gives back as
  its oldest bars go; `chunks` has a row of two for each: the chunk before it (older) and the chunk
  after it (newer) in its series, where there are such;
- `heap` is two: how many chunks were ever taken, and the first that was given back, else -1; the
  chunk before that is the next one given back, else -1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mdtool.core.jit import inlined, kernel

START, OPEN, HIGH, LOW, CLOSE, VOLUME, COUNT, FIRST, LAST, CHANGED, MOVED = range(11)
COLUMNS = 11
NEWEST, OLDEST, HELD = range(3)
OLDER, NEWER = range(2)
TAKEN, GIVEN_BACK = range(2)
CHUNK = 16
MAX_VOLUME = 2**63 - 1
MIN_START = -(2**63)


@inlined
def _copy(rows: Any, k: int, source: Any, s: int) -> None:
    for column in range(COLUMNS):
        rows[k, column] = source[s, column]


@inlined
def _trade(rows: Any, k: int, start: int, price: int, volume: int, ts: int, step: int) -> None:
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
    rows[k, CHANGED] = step
    rows[k, MOVED] = step


@inlined
def _amend(rows: Any, k: int, price: int, volume: int, ts: int, step: int) -> None:
    """Add a trade to the bar of row `k`."""
    rows[k, HIGH] = max(rows[k, HIGH], price)
    rows[k, LOW] = min(rows[k, LOW], price)
    if ts >= rows[k, LAST]:
        rows[k, LAST] = ts
        rows[k, CLOSE] = price
    if ts < rows[k, FIRST]:
        rows[k, FIRST] = ts
        rows[k, OPEN] = price
    rows[k, VOLUME] += min(volume, MAX_VOLUME - rows[k, VOLUME])
    rows[k, COUNT] += 1
    rows[k, CHANGED] = step


@kernel
def merge(rows: Any, k: int, source: Any, s: int) -> None:
    """Add the trades of row `s` of `source`, a bar inside that of row `k`, to row `k`."""
    rows[k, HIGH] = max(rows[k, HIGH], source[s, HIGH])
    rows[k, LOW] = min(rows[k, LOW], source[s, LOW])
    if source[s, LAST] >= rows[k, LAST]:
        rows[k, LAST] = source[s, LAST]
        rows[k, CLOSE] = source[s, CLOSE]
    if source[s, FIRST] < rows[k, FIRST]:
        rows[k, FIRST] = source[s, FIRST]
        rows[k, OPEN] = source[s, OPEN]
    rows[k, VOLUME] += min(source[s, VOLUME], MAX_VOLUME - rows[k, VOLUME])
    rows[k, COUNT] += source[s, COUNT]
    rows[k, CHANGED] = max(rows[k, CHANGED], source[s, CHANGED])


@kernel
def _take_chunk(chunks: Any, heap: Any) -> Any:
    chunk = heap[GIVEN_BACK]
    if chunk >= 0:
        heap[GIVEN_BACK] = chunks[chunk, OLDER]
        return chunk
    heap[TAKEN] += 1
    return heap[TAKEN] - 1


@inlined
def _older(chunks: Any, row: int) -> Any:
    """Return the row of the bar before that of `row`, which is not the oldest."""
    if row % CHUNK:
        return row - 1
    return chunks[row // CHUNK, OLDER] * CHUNK + CHUNK - 1


@kernel
def _drop_oldest(ends: Any, chunks: Any, heap: Any, k: int) -> None:
    """Drop the oldest of the older bars of series `k`, of which there are two or more."""
    oldest = ends[k, OLDEST]
    ends[k, OLDEST] += 1
    ends[k, HELD] -= 1
    if oldest % CHUNK == CHUNK - 1:
        chunk = oldest // CHUNK
        ends[k, OLDEST] = chunks[chunk, NEWER] * CHUNK
        chunks[chunk, OLDER] = heap[GIVEN_BACK]
        heap[GIVEN_BACK] = chunk


@kernel
def _append(ends: Any, pool: Any, chunks: Any, heap: Any, k: int, keep: int, saved: int) -> Any:
    """Make room for one more bar at the new end of series `k`; return its row.

    The oldest bars go when there are more than `keep`, which is 2 or more, but none that was
    touched after update number `saved`.
    """
    while ends[k, HELD] >= keep:
        oldest = ends[k, OLDEST]
        if max(pool[oldest, CHANGED], pool[oldest, MOVED]) > saved:
            break
        _drop_oldest(ends, chunks, heap, k)
    if ends[k, HELD] == 0:
        ends[k, NEWEST] = _take_chunk(chunks, heap) * CHUNK
        ends[k, OLDEST] = ends[k, NEWEST]
    elif ends[k, NEWEST] % CHUNK == CHUNK - 1:
        chunk = _take_chunk(chunks, heap)
        chunks[chunk, OLDER] = ends[k, NEWEST] // CHUNK
        chunks[ends[k, NEWEST] // CHUNK, NEWER] = chunk
        ends[k, NEWEST] = chunk * CHUNK
    else:
        ends[k, NEWEST] += 1
    ends[k, HELD] += 1
    return ends[k, NEWEST]


@kernel
def _merge_past(
    ends: Any,
    pool: Any,
    chunks: Any,
    heap: Any,
    k: int,
    keep: int,
    saved: int,
    start: int,
    source: Any,
    s: int,
    step: int,
) -> None:
    """Add a bar to that of `start` in series `k`, or put it in its place if there is none.

    Fewer than `keep` bars are newer than that place.
    """
    newer = 0
    row = ends[k, NEWEST]
    while newer < ends[k, HELD] and pool[row, START] >= start:
        if pool[row, START] == start:
            merge(pool, row, source, s)
            pool[row, MOVED] = step
            return
        newer += 1
        if newer < ends[k, HELD]:
            row = _older(chunks, row)
    to = _append(ends, pool, chunks, heap, k, keep, saved)
    for _ in range(newer):
        row = _older(chunks, to)
        _copy(pool, to, pool, row)
        to = row
    _copy(pool, to, source, s)
    pool[to, START] = start
    pool[to, MOVED] = step


@kernel
def _add(
    newest: Any,
    ends: Any,
    pool: Any,
    chunks: Any,
    heap: Any,
    k: int,
    keep: int,
    saved: int,
    interval: int,
    source: Any,
    s: int,
    step: int,
) -> None:
    """Add a bar to the longer or equal one of series `k` that it lies in."""
    age = source[s, START] - newest[k, START]
    if newest[k, COUNT] > 0 and 0 <= age < interval:
        merge(newest, k, source, s)
        newest[k, MOVED] = step
        return
    start = source[s, START] - source[s, START] % interval
    if newest[k, COUNT] > 0 and age < 0:
        _merge_past(ends, pool, chunks, heap, k, keep, saved, start, source, s, step)
        return
    if newest[k, COUNT] > 0:
        _close(newest, ends, pool, chunks, heap, k, keep, saved, step)
    _copy(newest, k, source, s)
    newest[k, START] = start
    newest[k, MOVED] = step


@kernel
def _close(
    newest: Any,
    ends: Any,
    pool: Any,
    chunks: Any,
    heap: Any,
    k: int,
    keep: int,
    saved: int,
    step: int,
) -> None:
    """Put the newest bar of series `k` among its older ones, for another to take its place."""
    row = _append(ends, pool, chunks, heap, k, keep, saved)
    _copy(pool, row, newest, k)
    pool[row, MOVED] = step


@kernel
def update(
    intervals: Any,
    lateness: int,
    keep: int,
    saved: int,
    newest: Any,
    ends: Any,
    pool: Any,
    chunks: Any,
    heap: Any,
    symbol: Any,
    price: Any,
    volume: Any,
    ts: Any,
    begin: int,
    step: int,
    late: Any,
    scratch: Any,
) -> int:
    """Apply the trades from `begin` on; return the first for which chunks are missing.

    `intervals` rise and are multiples of the first. `keep` is 2 or more, and more than the bars
    that a tick within the lateness can be older than. Bars that were touched after update number
    `saved` are held beyond it. `step` is the number of this update, higher than those before.
    `late[0]` is raised by each tick left out. `scratch` has room for one bar.
    """
    series = len(intervals)
    shortest = intervals[0]
    for i in range(begin, len(ts)):
        at = ts[i]
        k: Any = np.int64(symbol[i]) * series
        age = at - newest[k, START]
        if 0 <= age < shortest and newest[k, COUNT] > 0:
            _amend(newest, k, price[i], volume[i], at, step)
            continue
        if len(chunks) - heap[TAKEN] < series:
            return i
        start = at - at % shortest
        if newest[k, COUNT] == 0:
            _trade(newest, k, start, price[i], volume[i], at, step)
        elif age >= shortest:
            for j in range(1, series):
                length = intervals[j]
                _add(newest, ends, pool, chunks, heap, k + j, keep, saved, length, newest, k, step)
            _close(newest, ends, pool, chunks, heap, k, keep, saved, step)
            _trade(newest, k, start, price[i], volume[i], at, step)
        elif newest[k, LAST] - lateness - start >= shortest:
            late[0] += 1
        else:
            _trade(scratch, 0, start, price[i], volume[i], at, step)
            for j in range(series):
                length = intervals[j]
                _add(newest, ends, pool, chunks, heap, k + j, keep, saved, length, scratch, 0, step)
    return len(ts)


@kernel
def closed(ends: Any, pool: Any, chunks: Any, k: int, keep: int, before: int, rows: Any) -> int:
    """Write the newest bars of series `k`, newest first, and return how many.

    They start before `before`, and are among the newest `keep` of the pool.
    """
    held = min(keep, ends[k, HELD])
    found = 0
    row = ends[k, NEWEST]
    for i in range(held):
        if i > 0:
            row = _older(chunks, row)
        if found == len(rows):
            break
        if pool[row, START] < before:
            _copy(rows, found, pool, row)
            found += 1
    return found


@kernel
def open_bars(intervals: Any, newest: Any, base: int, place: int, rows: Any) -> Any:
    """Write the bars of an interval that are not in its pool yet, newest first; return how many.

    There are one or two: the symbol's newest bar of the shortest interval is still to be merged
    into the longer one that it lies in, which need not be the newest of those.
    """
    _copy(rows, 0, newest, base)
    if place == 0:
        return 1
    rows[0, START] -= rows[0, START] % intervals[place]
    if newest[base + place, COUNT] == 0:
        return 1
    _copy(rows, 1, newest, base + place)
    if rows[0, START] != rows[1, START]:
        return 2
    merge(rows, 1, rows, 0)
    _copy(rows, 0, rows, 1)
    return 1


@kernel
def _reverse(rows: Any, begin: int, end: int) -> None:
    last = end - 1
    while begin < last:
        for column in range(COLUMNS):
            rows[begin, column], rows[last, column] = rows[last, column], rows[begin, column]
        begin += 1
        last -= 1


@kernel
def changed(
    intervals: Any,
    lateness: int,
    keep: int,
    newest: Any,
    ends: Any,
    pool: Any,
    chunks: Any,
    place: int,
    symbol: Any,
    since: int,
    bar_symbol: Any,
    bars: Any,
    fresh: Any,
) -> int:
    """Write the bars of an interval that updates after number `since` changed; return how many.

    They come symbol by symbol, oldest first; of each symbol only the newest where `since` is 0.
    Bars beyond the room are counted, and not written: with more room, call again. `fresh` has room
    for two bars.
    """
    series = len(intervals)
    found = 0
    for i in range(len(symbol)):
        base: Any = np.int64(symbol[i]) * series
        k = base + place
        begin = found
        stop = MIN_START
        unpooled = open_bars(intervals, newest, base, place, fresh)
        for age in range(min(unpooled + ends[k, HELD], 1 + keep)):
            if age < unpooled:
                row: Any = age
                rows = fresh
            else:
                row = ends[k, NEWEST] if age == unpooled else _older(chunks, row)
                rows = pool
            if rows[row, START] <= stop:
                break
            if rows[row, CHANGED] > since:
                if found < len(bars):
                    _copy(bars, found, rows, row)
                    bar_symbol[found] = symbol[i]
                found += 1
            elif stop == MIN_START:
                # This bar was there when `since` was: what ended before it by more than the
                # lateness was closed for good even then.
                stop = rows[row, START] - lateness - intervals[place]
            if since == 0:
                break
        _reverse(bars, begin, min(found, len(bars)))
    return found


@kernel
def touched(
    intervals: Any,
    lateness: int,
    newest: Any,
    ends: Any,
    pool: Any,
    chunks: Any,
    symbol: Any,
    since: int,
    keys: Any,
    bars: Any,
) -> int:
    """Write the bars, as they are held, that updates after number `since` touched; return how many.

    `keys` has a row of three for each: its symbol, its interval, and 1 for the newest of a series.
    Bars beyond the room are counted, and not written: with more room, call again.
    """
    series = len(intervals)
    found = 0
    for i in range(len(symbol)):
        base: Any = np.int64(symbol[i]) * series
        for place in range(series):
            k = base + place
            if newest[k, COUNT] == 0:
                continue
            stop = MIN_START
            for age in range(1 + ends[k, HELD]):
                if age == 0:
                    row: Any = k
                    rows = newest
                else:
                    row = ends[k, NEWEST] if age == 1 else _older(chunks, row)
                    rows = pool
                if rows[row, START] <= stop:
                    break
                if max(rows[row, CHANGED], rows[row, MOVED]) > since:
                    if found < len(bars):
                        _copy(bars, found, rows, row)
                        keys[found, 0] = symbol[i]
                        keys[found, 1] = intervals[place]
                        keys[found, 2] = 1 if age == 0 else 0
                    found += 1
                elif stop == MIN_START:
                    # As in `changed`: what ended so long before a bar that was there already is
                    # not amended any more.
                    stop = rows[row, START] - lateness - intervals[place]
    return found


@kernel
def restore(
    newest: Any,
    ends: Any,
    pool: Any,
    chunks: Any,
    heap: Any,
    place: Any,
    is_open: Any,
    bars: Any,
    step: int,
) -> None:
    """Fill empty series with bars, START to LAST of each, as `touched` returned them.

    `place` is the index of each bar's series; of one series they come oldest first.
    """
    for i in range(len(place)):
        k = place[i]
        if is_open[i]:
            row = k
            rows = newest
        else:
            row = _append(ends, pool, chunks, heap, k, ends[k, HELD] + 2, step)
            rows = pool
        for column in range(CHANGED):
            rows[row, column] = bars[i, column]
        rows[row, CHANGED] = step
        rows[row, MOVED] = step
