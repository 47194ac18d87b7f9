"""The kernel of rolling VWAPs: trades of many instruments into windows, at O(1) a trade.

Layouts, all int64:

- an instrument's window has the row of its index, of seven: trades, volume, VWAP, rest, latest
  time, and the row in `entries` of its oldest trade, or -1 before the first, and its next one
  will;
- `entries` has a row for each trade that is held, its price and volume and, where windows are a
  span of time, its time. It is cut into chunks of a power of two; a window has a chain of them;
- `links` is for each chunk the next one of its chain, or the next free one;
- `state` is four numbers: the free chunk to take next or -1, how many chunks were ever taken, how
  many trades came too late, how many had to leave early.

A window is kept as the VWAP rounded, q, and what that leaves, rest = sum((price - q) * volume),
at most half the volume. A trade that comes or goes changes the rest by (price - q) * volume and q
by the rounded quotient of the new rest and the new volume: small numbers, and one division of
int64, whatever the window holds. Where they are not small, the same is done in 128 bits, which are
enough: prices differ by less than 2**64 and the volume is below 2**63, so that every rest is below
2**127. Rounding is half to even, so that the VWAP depends on nothing but the window's trades.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from mdtool.core.jit import inlined, kernel

COUNT, VOLUME, VWAP, REST, LATEST, HEAD, TAIL = range(7)
COLUMNS = 7
FREE, TAKEN, LATE, EARLY = range(4)
PRICE, SIZE, TIME = range(3)
LARGEST = 2**63 - 1
# Sums of two numbers below it fit int64, also where float64 decides.
_SMALL = 2.0**61
# No less than what is lost of two int64 as float64.
_BLUR = 2048.0
# What wraps around must be unsigned.
_HALF: Final = np.uint64(32)
_LOW: Final = np.uint64(0xFFFFFFFF)
_ZERO: Final = np.uint64(0)
_ONE: Final = np.uint64(1)
_TOP: Final = np.uint64(63)


@inlined
def _product(a: Any, b: Any) -> Any:
    """Return the high and the low half of the product of two uint64."""
    a_high, a_low, b_high, b_low = a >> _HALF, a & _LOW, b >> _HALF, b & _LOW
    low = a_low * b_low
    middle = a_high * b_low + (low >> _HALF)
    other = a_low * b_high + (middle & _LOW)
    high = a_high * b_high + (middle >> _HALF) + (other >> _HALF)
    return high, (other << _HALF) | (low & _LOW)


@kernel
def _change_widely(rows: Any, row: int, price: int, volume: int, sign: int) -> None:
    """Take a trade in (`sign` 1) or out (-1) in 128 bits, and round."""
    total = rows[row, VOLUME] + sign * volume
    rows[row, VOLUME] = total
    if total == 0:
        rows[row, REST] = 0
        return
    vwap, rest = rows[row, VWAP], rows[row, REST]
    is_negative = (price < vwap) != (sign < 0)
    if price < vwap:
        distance = np.uint64(vwap) - np.uint64(price)
    else:
        distance = np.uint64(price) - np.uint64(vwap)
    high, low = _product(distance, np.uint64(volume))
    if is_negative:
        low = ~low + _ONE
        high = ~high + (_ONE if low == _ZERO else _ZERO)
    low = low + np.uint64(rest)
    high = high + (np.uint64(rest >> 63)) + (_ONE if low < np.uint64(rest) else _ZERO)
    is_negative = np.int64(high) < 0
    if is_negative:
        low = ~low + _ONE
        high = ~high + (_ONE if low == _ZERO else _ZERO)
    # The quotient is below 2**64, so `high` is below the divisor: 64 steps of long division.
    divisor = np.uint64(total)
    quotient = _ZERO
    for _ in range(64):
        high = (high << _ONE) | (low >> _TOP)
        low = low << _ONE
        quotient = quotient << _ONE
        if high >= divisor:
            high = high - divisor
            quotient = quotient | _ONE
    if is_negative:
        quotient = ~quotient + _ONE
        if high != _ZERO:
            quotient = quotient - _ONE
            high = divisor - high
    new = np.uint64(vwap) + quotient
    left = divisor - high
    if high > left or (high == left and (new & _ONE) == _ONE):
        new = new + _ONE
        rows[row, REST] = -np.int64(left)
    else:
        rows[row, REST] = np.int64(high)
    rows[row, VWAP] = np.int64(new)


@inlined
def _round(rows: Any, row: int) -> None:
    """Move the VWAP by what the rest is of the volume, rounded half to even."""
    total = rows[row, VOLUME]
    rest = rows[row, REST]
    moved = rest // total
    rest -= moved * total
    new = rows[row, VWAP] + moved
    left = total - rest
    if rest > left or (rest == left and new & 1):
        new += 1
        rest = -left
    rows[row, VWAP] = new
    rows[row, REST] = rest


@inlined
def _change(rows: Any, row: int, price: int, volume: int, sign: int) -> None:
    """Take a trade in (`sign` 1) or out (-1)."""
    vwap, rest = rows[row, VWAP], rows[row, REST]
    distance = abs(float(price) - float(vwap)) + _BLUR
    if distance * (float(volume) + 1.0) < _SMALL and abs(float(rest)) < _SMALL:
        rows[row, REST] = rest + sign * (price - vwap) * volume
        rows[row, VOLUME] += sign * volume
    else:
        _change_widely(rows, row, price, volume, sign)


@inlined
def _take(rows: Any, row: int, price: int, volume: int) -> None:
    """Take a trade in; the VWAP is to be rounded then."""
    if rows[row, VOLUME] == 0:
        rows[row, VWAP] = price
        rows[row, REST] = 0
        rows[row, VOLUME] = volume
    else:
        _change(rows, row, price, volume, 1)
    rows[row, COUNT] += 1


@inlined
def add(rows: Any, row: int, price: int, volume: int) -> None:
    """Add a trade to a row, of a window or of more columns, which no trade leaves; round its VWAP.

    What is beyond a volume of int64 is left out.
    """
    _take(rows, row, price, min(volume, LARGEST - rows[row, VOLUME]))
    if rows[row, VOLUME] > 0:
        _round(rows, row)


@kernel
def bucket_of(bounds: Any, at: int) -> int:
    """Return the bucket that a time is in, of those that begin at `bounds`."""
    low, high = 0, len(bounds) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if bounds[middle] <= at:
            low = middle
        else:
            high = middle
    return low


@kernel
def update_anchored(
    interval: int,
    bounds: Any,
    rows: Any,
    state: Any,
    instrument: Any,
    price: Any,
    volume: Any,
    ts: Any,
    vwaps: Any,
    volumes: Any,
    counts: Any,
) -> None:
    """Apply trades to windows that begin at multiples of `interval`, or if it is 0 at `bounds`.

    A row is that of a window, with where its bucket begins in place of LATEST, and where that ends
    in place of HEAD. A trade of an earlier bucket is late, and in no window.
    """
    for i in range(len(price)):
        row: Any = np.int64(instrument[i])
        at = ts[i]
        if rows[row, HEAD] < 0 or at >= rows[row, HEAD]:
            if interval > 0:
                start: Any = at - at % interval
                end: Any = start + min(interval, LARGEST - start)
            else:
                bucket = bucket_of(bounds, at)
                start, end = bounds[bucket], bounds[bucket + 1]
            rows[row, :] = 0
            rows[row, LATEST] = start
            rows[row, HEAD] = end
        elif at < rows[row, LATEST]:
            state[LATE] += 1
            volumes[i] = counts[i] = 0
            continue
        add(rows, row, price[i], volume[i])
        vwaps[i] = rows[row, VWAP]
        volumes[i] = rows[row, VOLUME]
        counts[i] = rows[row, COUNT]


@inlined
def _leave(rows: Any, row: int, entries: Any, links: Any, state: Any, chunk: int) -> None:
    """Take the oldest trade out of a window; a chunk that it leaves empty becomes free."""
    head = rows[row, HEAD]
    _change(rows, row, entries[head, PRICE], entries[head, SIZE], -1)
    rows[row, COUNT] -= 1
    head += 1
    if head & (chunk - 1) == 0:
        emptied = head // chunk - 1
        head = links[emptied] * chunk
        links[emptied] = state[FREE]
        state[FREE] = emptied
    rows[row, HEAD] = head


@inlined
def _take_chunk(links: Any, state: Any) -> Any:
    """Return a free chunk; there is one."""
    taken = state[FREE]
    if taken >= 0:
        state[FREE] = links[taken]
    else:
        taken = state[TAKEN]
        state[TAKEN] += 1
    return taken


@kernel
def update(
    most: int,
    span: int,
    chunk: int,
    rows: Any,
    entries: Any,
    links: Any,
    state: Any,
    instrument: Any,
    price: Any,
    volume: Any,
    ts: Any,
    vwaps: Any,
    volumes: Any,
    counts: Any,
    begin: int,
) -> int:
    """Apply trades from `begin` on; return the first for which there is no chunk.

    `vwaps`, `volumes` and `counts` are set to what the window of each trade's instrument then
    holds; a count of 0 is that of a trade which came too late. A `span` of 0 has no limit of time,
    and `ts` is not looked at.
    """
    for i in range(begin, len(price)):
        if state[FREE] < 0 and state[TAKEN] == len(links):
            return i
        row: Any = np.int64(instrument[i])
        if rows[row, HEAD] < 0:
            rows[row, :] = 0
            rows[row, HEAD] = _take_chunk(links, state) * chunk
            rows[row, TAIL] = rows[row, HEAD]
            if state[FREE] < 0 and state[TAKEN] == len(links):
                return i
        if span > 0:
            if rows[row, LATEST] - ts[i] >= span:
                state[LATE] += 1
                volumes[i] = counts[i] = 0
                continue
            rows[row, LATEST] = max(rows[row, LATEST], ts[i])
            while (
                rows[row, COUNT] > 0 and rows[row, LATEST] - entries[rows[row, HEAD], TIME] >= span
            ):
                _leave(rows, row, entries, links, state, chunk)
        if rows[row, COUNT] == most:
            _leave(rows, row, entries, links, state, chunk)
            if span > 0:
                state[EARLY] += 1
        while volume[i] > LARGEST - rows[row, VOLUME]:
            _leave(rows, row, entries, links, state, chunk)
            state[EARLY] += 1
        _take(rows, row, price[i], volume[i])
        tail = rows[row, TAIL]
        entries[tail, PRICE] = price[i]
        entries[tail, SIZE] = volume[i]
        if span > 0:
            entries[tail, TIME] = rows[row, LATEST]
        tail += 1
        if tail & (chunk - 1) == 0:
            following = _take_chunk(links, state)
            links[tail // chunk - 1] = following
            tail = following * chunk
        rows[row, TAIL] = tail
        if rows[row, VOLUME] > 0:
            _round(rows, row)
        vwaps[i] = rows[row, VWAP]
        volumes[i] = rows[row, VOLUME]
        counts[i] = rows[row, COUNT]
    return len(price)
