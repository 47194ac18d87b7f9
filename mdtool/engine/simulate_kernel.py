"""The matching engine of the synthetic exchange: its books, its flow of orders, what it reports.

Everything here is integer arithmetic on one 64-bit generator, so that a seed gives the same bytes
on every machine. Orders of both sides are handled alike in *keys*: a bid's key is its price in
ticks, an ask's is the negative of it. The better order always has the larger key, and an order
trades with the other side as long as the two keys add up to 0 or more.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mdtool.core.jit import kernel

MAX_ORDERS: Final = 256
"""Resting orders that one book has room for; there can be no more levels than that."""
USUAL_ORDERS: Final = 128
"""Resting orders that a book opens with and returns to."""
MIN_LEVELS: Final = 3
"""Levels that a side always keeps: what would take the last of them does not happen."""
MAX_EVENT_RECORDS: Final = 3 * MAX_ORDERS + 1
"""A trade for every level, a fill and a cancel for every order, the rest of the aggressor."""

OPENING_GAP_NS: Final = 1_000_000
"""The time from one order of the opening books to the next."""
FRACTION_BITS: Final = 32
"""Fair values are in 2^-32 ticks."""
GAP_FRACTION_BITS: Final = 10
"""Gaps between events are in 2^-10 ns."""
REVERSION_BITS: Final = 28
"""Each event pulls the fair value 2^-28 of the way back to its anchor."""

LATENCY_NS: Final = 60_000
"""The least time from the exchange's clock to the receiver's."""
PUBLISH_NS: Final = 10_000
"""The time from the packet with an event's trades to the one with what they did to the book."""

# What an event is, in 1024ths; the share of cancels makes up the rest.
_ARRIVALS: Final = 500
_MODIFIES: Final = 75

# Not plain ints, for each of which numba would compile `_write` again.
_ADD, _CANCEL, _MODIFY, _CLEAR, _TRADE, _FILL = (np.int64(ord(code)) for code in "ACMRTF")
_BID, _ASK, _NO_SIDE = (ord(code) for code in "BAN")
_F_LAST: Final = 128
_F_SNAPSHOT: Final = 32
_UNDEF_PRICE: Final = 2**63 - 1

# splitmix64, in unsigned integers, for signed ones may not wrap: numba lets LLVM assume that they
# do not. Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_27, _30, _31 = (np.uint64(shift) for shift in (27, 30, 31))

MARKET: Final = np.dtype(
    [
        ("random", "u8"),  # the generator's state
        ("now_ns", "i8"),  # the exchange's clock
        ("now_fraction", "i8"),  # and what it is past that, in 2^-10 ns
        ("received_ns", "i8"),  # the receiver's clock at the packet last sent
        ("sequence", "i8"),  # number of the packet last sent
        ("order_id", "i8"),  # of the order that came last
        ("ts_in_delta", "i8"),  # of the packet last sent, ns
        ("opened", "i8"),  # instruments whose opening snapshot was sent
    ]
)
ORDER: Final = np.dtype(
    [
        ("order_id", "i8"),
        ("key", "i8"),
        ("side", "i8"),  # 0 bid, 1 ask
        ("size", "i8"),
        ("ahead", "i8"),  # the slot of the order before it in its queue, or -1
        ("behind", "i8"),  # the slot of the order after it, or -1
        # Two permutations of the slots, each the inverse of the other, share the array: those
        # that rest come first, those that are free after them.
        ("slot", "i8"),  # the slot that stands at this place
        ("place", "i8"),  # the place at which this slot stands
    ]
)
LEVEL: Final = np.dtype(
    [
        ("key", "i8"),
        ("first", "i8"),  # the slot of the order that fills first
        ("last", "i8"),
        ("size", "i8"),
        ("count", "i8"),
    ]
)
BOOK: Final = np.dtype(
    [
        ("instrument_id", "i8"),
        ("tick", "i8"),  # the price of one tick, at 1e-9
        ("anchor", "i8"),  # what the instrument is worth in the long run, in 2^-32 ticks
        ("fair", "i8"),  # what it is worth now
        ("volatility", "i8"),  # what it changes by in an event that `_move_fair` draws 1 for
        ("resting", "i8"),  # how many orders rest
        ("bid_levels", "i8"),
        ("ask_levels", "i8"),
        ("orders", ORDER, (MAX_ORDERS,)),
        ("levels", LEVEL, (2, MAX_ORDERS)),  # bids, asks: each side from its worst to its best
    ]
)
TOP: Final = np.dtype(
    [
        ("is_touched", "i8"),  # 1 where the record changed its side's best level
        ("bid_px", "i8"),
        ("ask_px", "i8"),
        ("bid_sz", "i8"),
        ("ask_sz", "i8"),
        ("bid_ct", "i8"),
        ("ask_ct", "i8"),
    ]
)


Array = npt.NDArray[Any]


class Habits(NamedTuple):
    """What orders look like and when they come: tables that random bits point into."""

    books: Array  # i8[2^k]: whose the next event is
    gaps: Array  # i8[2^k + 1]: quantiles of the time between events, 2^-10 ns
    offsets: Array  # i8[2^k]: ticks between the fair value and a new order
    sizes: Array  # i8[2^k]


class Tape(NamedTuple):
    """The market that is simulated, and the output."""

    market: Any  # the MARKET record
    records: Array  # MBO, action and side as u1
    tops: Array  # TOP, one a record, or none


@kernel
def run(
    markets: Array, books: Array, habits: Habits, records: Array, tops: Array, wanted: int
) -> int:
    """Write records until `wanted` are there and the event they belong to is whole.

    Parameters
    ----------
    markets : MARKET[1], changed in place
    books : BOOK[n], changed in place
    habits : Habits
    records : MBO[at least wanted + MAX_EVENT_RECORDS]
        With action and side as u1.
    tops : TOP[the same, or 0]
        The best levels after each record, where wanted.
    wanted : int

    Returns
    -------
    int
        How many records were written.
    """
    market = markets[0]
    tape = Tape(market, records, tops)
    written = 0
    while written < wanted and market.opened < len(books):
        written = _open(tape, books[market.opened], habits, written)
        market.opened += 1
    while written < wanted:
        _pass_time(market, habits.gaps)
        before = written
        while written == before:
            book = books[_pick(habits.books, _draw(market))]
            written = _happen(tape, book, habits, written)
        records[written - 1].flags |= _F_LAST
    return written


@kernel
def _happen(tape: Tape, book: Any, habits: Habits, written: int) -> int:
    """Let one thing happen to a book, or nothing where it would leave a side too thin."""
    _move_fair(book, _draw(tape.market))
    bits = _draw(tape.market)
    # A book that is fuller than usual gets fewer new orders.
    arrivals = _ARRIVALS + 4 * (USUAL_ORDERS - book.resting)
    choice = bits & 1023
    if choice < arrivals:
        return _arrive(tape, book, habits, bits >> 10, written)
    if choice >= 1024 - _MODIFIES:
        return _modify(tape, book, habits, bits >> 10, written)
    return _cancel(tape, book, bits >> 10, written)


@kernel
def _draw(market: Any) -> int:
    """Return 64 random bits; shifts to the right bring in copies of the highest."""
    market.random += _GAMMA
    bits = market.random
    bits = (bits ^ (bits >> _30)) * _MIX_1
    bits = (bits ^ (bits >> _27)) * _MIX_2
    return np.int64(bits ^ (bits >> _31))  # type: ignore[return-value]


@kernel
def _pick(table: Array, bits: int) -> int:
    return int(table[bits & (len(table) - 1)])


@kernel
def _pass_time(market: Any, gaps: Array) -> None:
    """Move on to the next event, and to the packet that publishes it."""
    bits = _draw(market)
    at = bits & (len(gaps) - 2)
    within = (bits >> 16) & 0xFFF
    gap = gaps[at] + ((gaps[at + 1] - gaps[at]) * within >> 12)
    passed = market.now_fraction + gap
    market.now_ns += max(1, passed >> GAP_FRACTION_BITS)
    market.now_fraction = passed & ((1 << GAP_FRACTION_BITS) - 1)
    _send(market, (bits >> 48) & 0xFFFF)


@kernel
def _send(market: Any, delay_ns: int) -> None:
    """Begin a packet, which arrives some time later, but never before the one sent before it."""
    market.sequence += 1
    market.received_ns = max(market.received_ns + 1, market.now_ns + LATENCY_NS + delay_ns)
    market.ts_in_delta = 12_000 + (delay_ns >> 3)


@kernel
def _move_fair(book: Any, bits: int) -> None:
    """Let the fair value take a step; four uniform numbers add up to a nearly normal one."""
    total = (bits & 0xFFFF) + ((bits >> 16) & 0xFFFF)
    total += ((bits >> 32) & 0xFFFF) + ((bits >> 48) & 0xFFFF)
    book.fair += book.volatility * (total - 2 * 0xFFFF) >> 16
    book.fair += (book.anchor - book.fair) >> REVERSION_BITS


@kernel
def _fair(book: Any, side: int) -> int:
    """Return the best key at which `side` does not give anything away."""
    return int(book.fair if side == 0 else -book.fair) >> FRACTION_BITS


@kernel
def _depth(book: Any, side: int) -> int:
    return int(book.bid_levels if side == 0 else book.ask_levels)


@kernel
def _deepen(book: Any, side: int, by: int) -> None:
    if side == 0:
        book.bid_levels += by
    else:
        book.ask_levels += by


@kernel
def _open(tape: Tape, book: Any, habits: Habits, written: int) -> int:
    """Write a snapshot: a clear, and the orders that came in the milliseconds before."""
    market = tape.market
    for place in range(MAX_ORDERS):
        book.orders[place].slot = place
        book.orders[place].place = place
    first = written
    written = _write(tape, book, _CLEAR, 0, 0, 0, 0, written)
    for count in range(USUAL_ORDERS):
        bits = _draw(market)
        side = count & 1
        # The first orders see to it that no side is too thin.
        offset = count // 2 if count < 2 * MIN_LEVELS else _pick(habits.offsets, bits)
        key = _fair(book, side) - offset
        size = _pick(habits.sizes, bits >> 16)
        market.sequence += 1
        market.order_id += 1
        _rest(book, market.order_id, side, key, size)
        written = _write(tape, book, _ADD, side, key, size, market.order_id, written)
        market.now_ns += OPENING_GAP_NS
    for index in range(first, written):
        tape.records[index].flags = _F_SNAPSHOT
    tape.records[written - 1].flags = _F_SNAPSHOT | _F_LAST
    return written


@kernel
def _arrive(tape: Tape, book: Any, habits: Habits, bits: int, written: int) -> int:
    """Let a new order in: it trades as far as its price allows, and rests or not."""
    side = bits & 1
    other = 1 - side
    size = _pick(habits.sizes, bits >> 8)
    patience = (bits >> 18) & 63
    if patience < 2:
        # Most want the best price alone, and half of those just what the first order there offers.
        reach = 1 + ((bits >> 2) & 3) // 3
        level = book.levels[other, _depth(book, other) - reach]
        key = -level.key
        if reach == 1 and bits & 2:
            size = book.orders[level.first].size
    else:
        key = _fair(book, side) - _pick(habits.offsets, bits >> 24)
        if patience < 44:
            key = min(key, _behind(book, other))
    tape.market.order_id += 1
    order_id = tape.market.order_id
    fillable = _fillable(book, other, key, size)
    if fillable > 0:
        written = _match(tape, book, order_id, other, fillable, written)
    size -= fillable
    crosses = key + book.levels[other, _depth(book, other) - 1].key >= 0
    if size > 0 and patience >= 2 and not crosses and book.resting < MAX_ORDERS:
        _rest(book, order_id, side, key, size)
        written = _write(tape, book, _ADD, side, key, size, order_id, written)
    return written


@kernel
def _behind(book: Any, other: int) -> int:
    """Return the best key at which an order does not trade with the side `other`."""
    return int(-book.levels[other, _depth(book, other) - 1].key - 1)


@kernel
def _fillable(book: Any, other: int, key: int, size: int) -> int:
    """Return how much of `size` finds resting orders at `key` or better.

    The worst few levels of a side are left alone.
    """
    found = 0
    at = _depth(book, other) - 1
    while at >= MIN_LEVELS and found < size and key + book.levels[other, at].key >= 0:
        found += book.levels[other, at].size
        at -= 1
    return min(found, size)


@kernel
def _match(tape: Tape, book: Any, order_id: int, other: int, size: int, written: int) -> int:
    """Fill `size` from the best levels of `other`: trades and fills first, then the book.

    As CME does, with one trade a level, whose side and order are the aggressor's.
    """
    left = size
    at = _depth(book, other) - 1
    while left > 0:
        level = book.levels[other, at]
        here = min(left, level.size)
        # A trade's price is the level's, in the aggressor's keys.
        written = _write(tape, book, _TRADE, 1 - other, -level.key, here, order_id, written)
        left -= here
        slot = level.first
        while here > 0:
            order = book.orders[slot]
            fill = min(here, order.size)
            written = _write(tape, book, _FILL, other, order.key, fill, order.order_id, written)
            here -= fill
            slot = order.behind
        at -= 1
    _send(tape.market, PUBLISH_NS + 0xFFFF)
    left = size
    while left > 0:
        level = book.levels[other, _depth(book, other) - 1]
        slot = level.first
        order = book.orders[slot]
        fill = min(left, order.size)
        left -= fill
        if fill == order.size:
            written = _withdraw(tape, book, slot, written)
        else:
            order.size -= fill
            level.size -= fill
            written = _write(
                tape, book, _MODIFY, other, order.key, order.size, order.order_id, written
            )
    return written


@kernel
def _cancel(tape: Tape, book: Any, bits: int, written: int) -> int:
    """Take an order away; half the time the one of two that is farther from the fair value."""
    slot = _random_order(book, bits)
    if bits & 1:
        rival = _random_order(book, bits >> 24)
        if _distance(book, rival) > _distance(book, slot):
            slot = rival
    if _is_needed(book, slot):
        return written
    return _withdraw(tape, book, slot, written)


@kernel
def _modify(tape: Tape, book: Any, habits: Habits, bits: int, written: int) -> int:
    """Give an order a new price, or a larger or smaller size."""
    slot = _random_order(book, bits)
    order = book.orders[slot]
    side, order_id, size = order.side, order.order_id, order.size
    old_key = key = order.key
    if bits & 1:
        key = _fair(book, side) - _pick(habits.offsets, bits >> 24)
        key = min(key, _behind(book, 1 - side))
    else:
        size = _pick(habits.sizes, bits >> 24)
    if key == old_key and size == order.size:
        return written
    if key == old_key and size < order.size:
        # Only what makes an order smaller keeps its place in the queue.
        book.levels[side, _find(book, side, key)].size -= order.size - size
        order.size = size
    elif key != old_key and _is_needed(book, slot):
        return written
    else:
        _remove(book, slot)
        _rest(book, order_id, side, key, size)
    written = _write(tape, book, _MODIFY, side, key, size, order_id, written)
    if len(tape.tops) and old_key >= book.levels[side, _depth(book, side) - 1].key:
        tape.tops[written - 1].is_touched = 1
    return written


@kernel
def _random_order(book: Any, bits: int) -> int:
    return int(book.orders[(bits >> 1 & 0x7FFFFF) * book.resting >> 23].slot)


@kernel
def _distance(book: Any, slot: int) -> int:
    order = book.orders[slot]
    return int(abs(_fair(book, order.side) - order.key))


@kernel
def _is_needed(book: Any, slot: int) -> bool:
    """Return whether its side would be too thin without this order."""
    order = book.orders[slot]
    if _depth(book, order.side) > MIN_LEVELS:
        return False
    return bool(book.levels[order.side, _find(book, order.side, order.key)].count == 1)


@kernel
def _withdraw(tape: Tape, book: Any, slot: int, written: int) -> int:
    order = book.orders[slot]
    side, key, size, order_id = order.side, order.key, order.size, order.order_id
    _remove(book, slot)
    return _write(tape, book, _CANCEL, side, key, size, order_id, written)


@kernel
def _find(book: Any, side: int, key: int) -> int:
    """Return the level of `key`, or -1 - the index at which it would have to be put in."""
    ladder = book.levels[side]
    at = _depth(book, side) - 1
    while at >= 0 and ladder[at].key > key:
        at -= 1
    if at >= 0 and ladder[at].key == key:
        return at
    return -2 - at


@kernel
def _rest(book: Any, order_id: int, side: int, key: int, size: int) -> None:
    """Put an order at the end of its queue."""
    at = _find(book, side, key)
    ladder = book.levels[side]
    if at < 0:
        at = -1 - at
        for index in range(_depth(book, side), at, -1):
            ladder[index] = ladder[index - 1]
        _deepen(book, side, 1)
        level = ladder[at]
        level.key, level.first, level.last, level.size, level.count = key, -1, -1, 0, 0
    level = ladder[at]
    slot = book.orders[book.resting].slot
    book.resting += 1
    order = book.orders[slot]
    order.order_id, order.side, order.key, order.size = order_id, side, key, size
    order.ahead, order.behind = level.last, -1
    if level.last >= 0:
        book.orders[level.last].behind = slot
    else:
        level.first = slot
    level.last = slot
    level.size += size
    level.count += 1


@kernel
def _remove(book: Any, slot: int) -> None:
    """Take an order out of its queue, and its level away when it was the last one there."""
    orders = book.orders
    order = orders[slot]
    ladder = book.levels[order.side]
    at = _find(book, order.side, order.key)
    level = ladder[at]
    if order.ahead >= 0:
        orders[order.ahead].behind = order.behind
    else:
        level.first = order.behind
    if order.behind >= 0:
        orders[order.behind].ahead = order.ahead
    else:
        level.last = order.ahead
    level.size -= order.size
    level.count -= 1
    if level.count == 0:
        _deepen(book, order.side, -1)
        for index in range(at, _depth(book, order.side)):
            ladder[index] = ladder[index + 1]
    # The free slot changes places with the last of those that rest.
    book.resting -= 1
    hole, end = order.place, book.resting
    moved = orders[end].slot
    orders[hole].slot, orders[moved].place = moved, hole
    orders[end].slot, order.place = slot, end


@kernel
def _write(
    tape: Tape,
    book: Any,
    action: np.int64,
    side: int,
    key: int,
    size: int,
    order_id: int,
    written: int,
) -> int:
    """Report what has just been done, and return how many records there are now."""
    market = tape.market
    record = tape.records[written]
    record.instrument_id = book.instrument_id
    record.ts_event = market.now_ns
    record.order_id = order_id
    record.size = size
    record.flags = 0
    record.action = action
    record.ts_recv = market.received_ns
    record.ts_in_delta = market.ts_in_delta
    record.sequence = market.sequence & 0xFFFFFFFF
    if action == _CLEAR:
        record.side = _NO_SIDE
        record.price = _UNDEF_PRICE
    else:
        record.side = _BID if side == 0 else _ASK
        record.price = (key if side == 0 else -key) * book.tick
    if len(tape.tops):
        _write_top(tape, book, action, side, key, written)
    return written + 1


@kernel
def _write_top(tape: Tape, book: Any, action: np.int64, side: int, key: int, written: int) -> None:
    """Note the best levels after the record that is being written."""
    top = tape.tops[written]
    tick = book.tick
    bid, ask = _depth(book, 0) - 1, _depth(book, 1) - 1
    best = book.levels[0, max(0, bid)] if side == 0 else book.levels[1, max(0, ask)]
    changes = action in (_ADD, _CANCEL, _MODIFY)
    top.is_touched = 1 if changes and key >= best.key else 0
    top.bid_px, top.bid_sz, top.bid_ct = _UNDEF_PRICE, 0, 0
    if bid >= 0:
        level = book.levels[0, bid]
        top.bid_px, top.bid_sz, top.bid_ct = level.key * tick, level.size, level.count
    top.ask_px, top.ask_sz, top.ask_ct = _UNDEF_PRICE, 0, 0
    if ask >= 0:
        level = book.levels[1, ask]
        top.ask_px, top.ask_sz, top.ask_ct = -level.key * tick, level.size, level.count
