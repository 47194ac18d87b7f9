"""The order book kernel: MBO records in, books changed in place, depth records out.

Everything is int64, and records come and go as 64-bit words of their DBN layouts (little-endian):

    MBO word    0 length u8, rtype u8, publisher_id u16, instrument_id u32    4 size u32, flags u8,
                1 ts_event   2 order_id   3 price                               channel_id u8,
                5 ts_recv    6 ts_in_delta i32, sequence u32                    action u8, side u8
    MBP word    0 as above   1 ts_event   2 price                             3 size u32, action u8,
                4 ts_recv    5 ts_in_delta i32, sequence u32                    side u8, flags u8,
                6 + 4k: bid_px, ask_px, (bid_sz, ask_sz), (bid_ct, ask_ct)      depth u8

State, one row each (columns are the constants below):

    orders   a resting order, one cache line; rows of a level are linked in queue order
    levels   a price of a side: total size, number of orders, first and last order
    sides    where a side's ladder lies in `keys` and `places`, and how long it is; side 2b is the
             bids of book b, 2b + 1 its asks
    keys     ladders: a level's price (bids) or its complement ~price (asks; a negation would not
             fit for the lowest int64), rising, so that the best is last and what happens near
             the top moves little
    places   the row in `levels` beside each key
    ids      open-addressed table of (order_id, row in `orders` + 1), linear probing, no tombstones
    books    a book: its instrument, its counts, its last trade
    rows     the row in `books` of each instrument, by its index, and 1; 0 where it has no book
    sizes    how much of each is in use, heads of the free lists, and how many records there were

The kernel stops before the first record for which a table might be full, and returns which one.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mdtool.core.jit import inlined, kernel

Words = npt.NDArray[np.int64]
Indices = npt.NDArray[np.uint32]


class State(NamedTuple):
    """The arrays that the module describes."""

    orders: Words
    levels: Words
    sides: Words
    keys: Words
    places: Words
    ids: Words
    books: Words
    rows: Words
    sizes: Words


O_ID, O_BOOK, O_SIDE, O_LEVEL, O_SIZE, O_PREV, O_NEXT, O_TS = range(8)
L_KEY, L_SIZE, L_COUNT, L_HEAD, L_TAIL, L_SIDE, L_TOB, L_SPARE = range(8)
S_START, S_LENGTH, S_ROOM = range(3)
(
    B_INSTRUMENT,
    B_ID,  # of its last record: instrument_id << 16 | publisher_id
    B_UNKNOWN_SIDES,
    B_IN_SNAPSHOT,
    B_EVENTS,
    B_ORDERS,
    B_TS_EVENT,
    B_TS_RECV,
    B_SEQUENCE,
    B_TRADES,
    B_VOLUME,
    B_LAST_PRICE,
    B_LAST_SIZE,
    B_LAST_SIDE,
    B_LAST_TS,
    B_ANOMALIES,
) = range(16)
(
    UNKNOWN_CANCEL,
    UNKNOWN_MODIFY,
    OVER_CANCEL,
    DUPLICATE_ADD,
    SIDE_CHANGE,
    UNUSABLE,
    CROSSED,
    LOCKED,
    TIME_BACKWARDS,
    MAYBE_BAD,
    ANOMALY_KINDS,
) = range(11)
B_WIDTH: Final = B_ANOMALIES + 2 * ANOMALY_KINDS
"""The columns end with a count of each kind of anomaly, then the first record of each kind."""
STATE_WORDS: Final = 3
"""The words after the levels in a row about the whole book: how many orders rest, how many
levels the bids and the asks have (low and high half), and which sides are unknown."""
Z_ORDERS, Z_FREE_ORDER, Z_LEVELS, Z_FREE_LEVEL, Z_POOL, Z_BOOKS, Z_RECORDS, Z_EMITTED, Z_WIDTH = (
    range(9)
)

DONE, FULL_ORDERS, FULL_LEVELS, FULL_POOL, FULL_BOOKS, FULL_OUTPUT = range(6)

MBO_WORDS: Final = 7
UNDEF_PRICE: Final = 2**63 - 1
NONE: Final = -1
ASK: Final = 65
BID: Final = 66
ADD: Final = 65
CANCEL: Final = 67
FILL: Final = 70
MODIFY: Final = 77
NOTHING: Final = 78
CLEAR: Final = 82
TRADE: Final = 84
F_LAST: Final = 128
F_TOB: Final = 64
F_SNAPSHOT: Final = 32
F_MAYBE_BAD_BOOK: Final = 4
UNDEF_SIZE: Final = 0xFFFFFFFF
U32: Final = 0xFFFFFFFF
NS_PER_DAY: Final = 86_400_000_000_000
BOTH_SIDES: Final = 0b11
MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
HALF: Final = np.uint64(32)
SHIFT: Final = np.uint64(29)
FIRST_LADDER: Final = 16


@inlined
def _home(order_id: int, book: int, mask: int) -> Any:
    """Return where the search for an order begins in `ids`."""
    mixed = np.uint64(order_id) ^ (np.uint64(book) * MULTIPLIER)
    # A product's low bits know nothing of its factors' high ones, where venues put dates.
    mixed = (mixed ^ (mixed >> HALF)) * MULTIPLIER
    return np.int64(mixed ^ (mixed >> SHIFT)) & mask


@inlined
def _note(s: State, book: int, kind: int) -> None:
    """Count an anomaly, and remember which record was the first of its kind."""
    if s.books[book, B_ANOMALIES + kind] == 0:
        s.books[book, B_ANOMALIES + ANOMALY_KINDS + kind] = s.sizes[Z_RECORDS]
    s.books[book, B_ANOMALIES + kind] += 1


@inlined
def _find_order(ids: Words, orders: Words, order_id: int, book: int) -> int:
    """Return the position of an order in `ids`, or of the gap where it would go."""
    mask = ids.shape[0] - 1
    at = _home(order_id, book, mask)
    while ids[at, 1] != 0:
        if ids[at, 0] == order_id and orders[ids[at, 1] - 1, O_BOOK] == book:
            return at
        at = (at + 1) & mask
    return at


@inlined
def _find_book(s: State, instrument: int) -> int:
    """Return the row of an instrument's book, a new and partial one when it has none yet."""
    if s.rows[instrument] != 0:
        return s.rows[instrument] - 1
    row = s.sizes[Z_BOOKS]
    s.sizes[Z_BOOKS] = row + 1
    s.rows[instrument] = row + 1
    s.books[row, :] = 0
    s.books[row, B_INSTRUMENT] = instrument
    s.books[row, B_UNKNOWN_SIDES] = BOTH_SIDES
    s.books[row, B_LAST_PRICE] = UNDEF_PRICE
    s.sides[2 * row : 2 * row + 2, :] = 0
    return row


@inlined
def _search(s: State, side: int, key: int) -> int:
    """Return how many keys of a side's ladder are below `key`: its index, or where it would go."""
    start = s.sides[side, S_START]
    low = 0
    high = s.sides[side, S_LENGTH]
    # Most of what happens, happens near the best, which is last.
    for _ in range(min(8, high)):
        if s.keys[start + high - 1] < key:
            return high
        high -= 1
    while low < high:
        middle = (low + high) >> 1
        if s.keys[start + middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


@inlined
def _open_level(s: State, side: int, key: int, at: int) -> int:
    """Put an empty level into a side's ladder at index `at`; return its row."""
    start = s.sides[side, S_START]
    length = s.sides[side, S_LENGTH]
    if length == s.sides[side, S_ROOM]:
        moved = s.sizes[Z_POOL]
        room = max(FIRST_LADDER, 2 * length)
        s.sizes[Z_POOL] = moved + room
        for i in range(length):
            s.keys[moved + i] = s.keys[start + i]
            s.places[moved + i] = s.places[start + i]
        start = moved
        s.sides[side, S_START] = moved
        s.sides[side, S_ROOM] = room
    for i in range(start + length, start + at, -1):
        s.keys[i] = s.keys[i - 1]
        s.places[i] = s.places[i - 1]
    level = s.sizes[Z_FREE_LEVEL]
    if level == NONE:
        level = s.sizes[Z_LEVELS]
        s.sizes[Z_LEVELS] = level + 1
    else:
        s.sizes[Z_FREE_LEVEL] = s.levels[level, L_HEAD]
    s.keys[start + at] = key
    s.places[start + at] = level
    s.sides[side, S_LENGTH] = length + 1
    s.levels[level, L_KEY] = key
    s.levels[level, L_SIZE] = 0
    s.levels[level, L_COUNT] = 0
    s.levels[level, L_HEAD] = NONE
    s.levels[level, L_TAIL] = NONE
    s.levels[level, L_SIDE] = side
    s.levels[level, L_TOB] = 0
    return level


@inlined
def _close_level(s: State, level: int, at: int) -> None:
    """Take the level at index `at` out of its ladder."""
    side = s.levels[level, L_SIDE]
    start = s.sides[side, S_START]
    length = s.sides[side, S_LENGTH] - 1
    for i in range(start + at, start + length):
        s.keys[i] = s.keys[i + 1]
        s.places[i] = s.places[i + 1]
    s.sides[side, S_LENGTH] = length
    s.levels[level, L_HEAD] = s.sizes[Z_FREE_LEVEL]
    s.sizes[Z_FREE_LEVEL] = level


@inlined
def _new_order(s: State, at: int, order_id: int, book: int) -> int:
    """Give an order a row and enter it in `ids` at position `at`; return the row."""
    row = s.sizes[Z_FREE_ORDER]
    if row == NONE:
        row = s.sizes[Z_ORDERS]
        s.sizes[Z_ORDERS] = row + 1
    else:
        s.sizes[Z_FREE_ORDER] = s.orders[row, O_NEXT]
    s.ids[at, 0] = order_id
    s.ids[at, 1] = row + 1
    s.orders[row, O_ID] = order_id
    s.orders[row, O_BOOK] = book
    s.books[book, B_ORDERS] += 1
    return row


@inlined
def _forget_order(s: State, at: int) -> None:
    """Free the order at position `at` of `ids`, and close the gap in its probe sequence."""
    freed = s.ids[at, 1] - 1
    mask = s.ids.shape[0] - 1
    gap = at
    following = at
    while True:
        following = (following + 1) & mask
        row = s.ids[following, 1]
        if row == 0:
            break
        home = _home(s.ids[following, 0], s.orders[row - 1, O_BOOK], mask)
        if ((following - home) & mask) >= ((following - gap) & mask):
            s.ids[gap, 0] = s.ids[following, 0]
            s.ids[gap, 1] = row
            gap = following
    s.ids[gap, 1] = 0
    s.books[s.orders[freed, O_BOOK], B_ORDERS] -= 1
    s.orders[freed, O_NEXT] = s.sizes[Z_FREE_ORDER]
    s.sizes[Z_FREE_ORDER] = freed


@inlined
def _append(s: State, row: int, level: int) -> None:
    """Put an order at the tail of a level's queue."""
    tail = s.levels[level, L_TAIL]
    s.orders[row, O_LEVEL] = level
    s.orders[row, O_PREV] = tail
    s.orders[row, O_NEXT] = NONE
    if tail == NONE:
        s.levels[level, L_HEAD] = row
    else:
        s.orders[tail, O_NEXT] = row
    s.levels[level, L_TAIL] = row
    s.levels[level, L_SIZE] += s.orders[row, O_SIZE]
    s.levels[level, L_COUNT] += 1


@inlined
def _take_out(s: State, row: int, wants_index: bool) -> int:
    """Take an order out of its level's queue, and the level away when it was the last.

    Returns how far the level is from the best, where `wants_index` or the level's end asks for it.
    """
    level = s.orders[row, O_LEVEL]
    before = s.orders[row, O_PREV]
    after = s.orders[row, O_NEXT]
    if before == NONE:
        s.levels[level, L_HEAD] = after
    else:
        s.orders[before, O_NEXT] = after
    if after == NONE:
        s.levels[level, L_TAIL] = before
    else:
        s.orders[after, O_PREV] = before
    s.levels[level, L_SIZE] -= s.orders[row, O_SIZE]
    s.levels[level, L_COUNT] -= 1
    is_empty = s.levels[level, L_COUNT] == 0 and s.levels[level, L_TOB] == 0
    if not (wants_index or is_empty):
        return NONE
    side = s.levels[level, L_SIDE]
    index = _search(s, side, s.levels[level, L_KEY])
    distance = s.sides[side, S_LENGTH] - 1 - index
    if is_empty:
        _close_level(s, level, index)
    return distance


@inlined
def _distance(s: State, level: int) -> int:
    """Return how many levels of its side are better than a level."""
    side = s.levels[level, L_SIDE]
    return s.sides[side, S_LENGTH] - 1 - _search(s, side, s.levels[level, L_KEY])


@inlined
def _clear_side(s: State, side: int) -> None:
    """Remove every order and level of a side."""
    start = s.sides[side, S_START]
    for i in range(start, start + s.sides[side, S_LENGTH]):
        level = s.places[i]
        row = s.levels[level, L_HEAD]
        while row != NONE:
            after = s.orders[row, O_NEXT]
            _forget_order(s, _find_order(s.ids, s.orders, s.orders[row, O_ID], side >> 1))
            row = after
        s.levels[level, L_HEAD] = s.sizes[Z_FREE_LEVEL]
        s.sizes[Z_FREE_LEVEL] = level
    s.sides[side, S_LENGTH] = 0


@inlined
def _set_top(s: State, book: int, marked: int, price: int, size: int) -> int:
    """Replace a whole side by one level that has a size and no orders; return its distance."""
    if marked not in (BID, ASK) or size == UNDEF_SIZE:
        _note(s, book, UNUSABLE)
        return NONE
    is_ask = marked == ASK
    side = 2 * book + is_ask
    _clear_side(s, side)
    s.books[book, B_UNKNOWN_SIDES] &= ~(1 << is_ask)
    if price != UNDEF_PRICE and size > 0:
        level = _open_level(s, side, ~price if is_ask else price, 0)
        s.levels[level, L_SIZE] = size
        s.levels[level, L_TOB] = 1
    return 0


@inlined
def _cancel(s: State, book: int, order_id: int, size: int, emitting: bool) -> int:
    """Take `size` away from an order; return how far from the best it struck."""
    at = _find_order(s.ids, s.orders, order_id, book)
    row = s.ids[at, 1] - 1
    if row < 0:
        _note(s, book, UNKNOWN_CANCEL)
        return NONE
    rests = s.orders[row, O_SIZE]
    if size < rests:
        level = s.orders[row, O_LEVEL]
        s.orders[row, O_SIZE] = rests - size
        s.levels[level, L_SIZE] -= size
        return _distance(s, level) if emitting else NONE
    if size > rests:
        _note(s, book, OVER_CANCEL)
    struck = _take_out(s, row, emitting)
    _forget_order(s, at)
    return struck


@inlined
def _add_or_modify(
    s: State,
    book: int,
    action: int,
    order_id: int,
    marked: int,
    price: int,
    size: int,
    ts_event: int,
    near: int,
) -> int:
    """Give an order its side, price and size; return how far from the best that struck.

    A change of price strikes two levels: the new one counts where it is among the `near` best,
    else the old one.
    """
    at = _find_order(s.ids, s.orders, order_id, book)
    row = s.ids[at, 1] - 1
    has_side = marked in (BID, ASK) or (action == MODIFY and row >= 0)
    is_sized = size != UNDEF_SIZE and (size > 0 or action == MODIFY)
    if not (has_side and is_sized) or price == UNDEF_PRICE:
        _note(s, book, UNUSABLE)
        return NONE
    side = 2 * book + (marked == ASK) if marked in (BID, ASK) else s.orders[row, O_SIDE]
    key = ~price if side & 1 else price
    left = NONE
    if row < 0:
        if action == MODIFY:
            _note(s, book, UNKNOWN_MODIFY)
        if size == 0:
            return NONE
        row = _new_order(s, at, order_id, book)
    else:
        level = s.orders[row, O_LEVEL]
        if action == ADD:
            _note(s, book, DUPLICATE_ADD)
        elif side != s.orders[row, O_SIDE]:
            _note(s, book, SIDE_CHANGE)
        elif s.levels[level, L_KEY] == key and 0 < size <= s.orders[row, O_SIZE]:
            s.levels[level, L_SIZE] += size - s.orders[row, O_SIZE]
            s.orders[row, O_SIZE] = size
            return _distance(s, level) if near else NONE
        left = _take_out(s, row, near > 0)
        if size == 0:
            _forget_order(s, at)
            return left
    index = _search(s, side, key)
    start = s.sides[side, S_START]
    length = s.sides[side, S_LENGTH]
    if index < length and s.keys[start + index] == key:
        level = s.places[start + index]
    else:
        level = _open_level(s, side, key, index)
    s.orders[row, O_SIDE] = side
    s.orders[row, O_SIZE] = size
    s.orders[row, O_TS] = ts_event
    _append(s, row, level)
    struck = s.sides[side, S_LENGTH] - 1 - index
    return left if struck >= near and left != NONE else struck


@inlined
def _emit(s: State, out: Words, words: Words, i: int, depth: int, book: int) -> None:
    """Write the MBP record of MBO record `i`: as many levels as `out` has words for."""
    at = s.sizes[Z_EMITTED]
    s.sizes[Z_EMITTED] = at + 1
    shown = (out.shape[1] - 6) >> 2
    what = words[i, 4]
    out[at, 0] = (words[i, 0] & ~0xFFFF) | ((shown & 0xFF) << 8) | (out.shape[1] * 2 & 0xFF)
    out[at, 1] = words[i, 1]
    out[at, 2] = words[i, 3]
    flags = (what >> 32) & 0xFF
    action_and_side = (what >> 48) & 0xFFFF
    out[at, 3] = (what & U32) | (action_and_side << 32) | (flags << 48) | (depth << 56)
    out[at, 4] = words[i, 5]
    out[at, 5] = words[i, 6]
    bids = s.sides[2 * book, S_LENGTH]
    asks = s.sides[2 * book + 1, S_LENGTH]
    best_bid = s.sides[2 * book, S_START] + bids - 1
    best_ask = s.sides[2 * book + 1, S_START] + asks - 1
    for k in range(shown):
        word = 6 + 4 * k
        out[at, word] = UNDEF_PRICE
        out[at, word + 1] = UNDEF_PRICE
        both_sizes = 0
        both_counts = 0
        if k < bids:
            level = s.places[best_bid - k]
            out[at, word] = s.levels[level, L_KEY]
            both_sizes = min(s.levels[level, L_SIZE], U32)
            both_counts = s.levels[level, L_COUNT]
        if k < asks:
            level = s.places[best_ask - k]
            out[at, word + 1] = ~s.levels[level, L_KEY]
            both_sizes |= min(s.levels[level, L_SIZE], U32) << 32
            both_counts |= s.levels[level, L_COUNT] << 32
        out[at, word + 2] = both_sizes
        out[at, word + 3] = both_counts
    word = 6 + 4 * shown
    if word < out.shape[1]:
        out[at, word] = s.books[book, B_ORDERS]
        out[at, word + 1] = bids | (asks << 32)
        out[at, word + 2] = s.books[book, B_UNKNOWN_SIDES]


@inlined
def _room(s: State, out: Words) -> int:
    """Return DONE if any record can be applied, else the table that may be full."""
    if s.sizes[Z_FREE_ORDER] == NONE and s.sizes[Z_ORDERS] == s.orders.shape[0]:
        return FULL_ORDERS
    if s.sizes[Z_FREE_LEVEL] == NONE and s.sizes[Z_LEVELS] == s.levels.shape[0]:
        return FULL_LEVELS
    if s.sizes[Z_BOOKS] == s.books.shape[0]:
        return FULL_BOOKS
    if out.shape[0] > 0 and s.sizes[Z_EMITTED] == out.shape[0]:
        return FULL_OUTPUT
    return DONE


@inlined
def _has_ladder_room(s: State, book: int) -> bool:
    """Return whether either side of a book could move to a ladder of twice its length."""
    longest = max(s.sides[2 * book, S_LENGTH], s.sides[2 * book + 1, S_LENGTH])
    return s.sizes[Z_POOL] + max(FIRST_LADDER, 2 * longest) <= s.keys.shape[0]


@inlined
def _count_crossed(s: State, book: int) -> None:
    """Count a book that is crossed or locked at the end of an event."""
    bids = s.sides[2 * book, S_LENGTH]
    asks = s.sides[2 * book + 1, S_LENGTH]
    if bids > 0 and asks > 0:
        best_bid = s.keys[s.sides[2 * book, S_START] + bids - 1]
        best_ask = ~s.keys[s.sides[2 * book + 1, S_START] + asks - 1]
        if best_bid > best_ask:
            _note(s, book, CROSSED)
        elif best_bid == best_ask:
            _note(s, book, LOCKED)


@kernel
def apply(
    words: Words,
    instrument: Indices,
    first: int,
    s: State,
    out: Words,
    made: Indices,
    status: Words,
) -> int:
    """Apply MBO records from `first` on; return the number of the first that was not applied.

    Parameters
    ----------
    words : int64[n, 7]
        MBO records.
    instrument : uint32[n]
        The index of each record's instrument; `s.rows` has room for it.
    first : int
    s : State
        Changed in place.
    out : int64[m, 6 + 4 * depth] or int64[m, 6 + 4 * depth + STATE_WORDS]
        Room for MBP records of `depth` levels, filled from `sizes[Z_EMITTED]` on; without rows
        none are written. The wider rows have the book after every record, whether or not that
        changed one of the levels.
    made : uint32[m]
        Room for the instrument of each row of `out`.
    status : int64[1]
        DONE, or the table that was full.
    """
    emitting = out.shape[0] > 0
    near = ((out.shape[1] - 6) >> 2) if emitting else 0
    emits_all = emitting and (out.shape[1] - 6) & 3 == STATE_WORDS
    of: Any = np.int64(-1)
    book = -1
    for i in range(first, words.shape[0]):
        status[0] = _room(s, out)
        if status[0] != DONE:
            return i
        if np.int64(instrument[i]) != of:
            of = np.int64(instrument[i])
            book = _find_book(s, of)
        if not _has_ladder_room(s, book):
            status[0] = FULL_POOL
            return i

        what = words[i, 4]
        size = what & U32
        flags = (what >> 32) & 0xFF
        action = (what >> 48) & 0xFF
        marked = (what >> 56) & 0xFF
        price = words[i, 3]
        struck = NONE

        # Files from before February 2024 lack the clear that opens a snapshot: there it opens
        # with an add after anything else, or after those of another day's, each of one ts_recv.
        in_snapshot = action == ADD and flags & F_SNAPSHOT != 0
        opens_snapshot = in_snapshot and (
            s.books[book, B_IN_SNAPSHOT] == 0
            or words[i, 5] // NS_PER_DAY != s.books[book, B_TS_RECV] // NS_PER_DAY
        )
        s.books[book, B_IN_SNAPSHOT] = in_snapshot
        if action == CLEAR or opens_snapshot:
            _clear_side(s, 2 * book)
            _clear_side(s, 2 * book + 1)
            s.books[book, B_UNKNOWN_SIDES] = 0

        if action == ADD and flags & F_TOB:
            struck = _set_top(s, book, marked, price, size)
        elif action == CANCEL:
            struck = _cancel(s, book, words[i, 2], size, emitting)
        elif action in (ADD, MODIFY):
            struck = _add_or_modify(
                s, book, action, words[i, 2], marked, price, size, words[i, 1], near
            )
        elif action == TRADE:
            s.books[book, B_TRADES] += 1
            s.books[book, B_VOLUME] += size if size != UNDEF_SIZE else 0
            s.books[book, B_LAST_PRICE] = price
            s.books[book, B_LAST_SIZE] = size
            s.books[book, B_LAST_SIDE] = marked
            s.books[book, B_LAST_TS] = words[i, 1]
            struck = 0
        elif action == CLEAR:
            struck = 0
        elif action not in (FILL, NOTHING):
            _note(s, book, UNUSABLE)

        if flags & F_MAYBE_BAD_BOOK:
            _note(s, book, MAYBE_BAD)
            s.books[book, B_UNKNOWN_SIDES] = BOTH_SIDES
        if emits_all or 0 <= struck < near:
            made[s.sizes[Z_EMITTED]] = of
            _emit(s, out, words, i, struck, book)
        s.books[book, B_EVENTS] += 1
        if 0 <= words[i, 5] < s.books[book, B_TS_RECV]:
            _note(s, book, TIME_BACKWARDS)
        s.books[book, B_ID] = (words[i, 0] >> 16) & 0xFFFFFFFFFFFF
        s.books[book, B_TS_EVENT] = words[i, 1]
        s.books[book, B_TS_RECV] = words[i, 5]
        s.books[book, B_SEQUENCE] = (words[i, 6] >> 32) & U32
        if flags & F_LAST:
            _count_crossed(s, book)
        s.sizes[Z_RECORDS] += 1
    status[0] = DONE
    return words.shape[0]


@kernel
def find_order(s: State, order_id: int, book: int) -> int:
    """Return the row of a resting order of a book, or NONE."""
    return s.ids[_find_order(s.ids, s.orders, order_id, book), 1] - 1


@kernel
def list_orders(s: State, levels: Words, listed: Words) -> None:
    """Write the orders of levels into `listed`, each level's in queue order.

    Parameters
    ----------
    s : State
    levels : int64[m]
        Rows of levels.
    listed : int64[n, 2]
        Room for all their orders: of each its row, and how many are before it in its queue.
    """
    at = 0
    for i in range(levels.shape[0]):
        row = s.levels[levels[i], L_HEAD]
        position = 0
        while row != NONE:
            listed[at, 0] = row
            listed[at, 1] = position
            row = s.orders[row, O_NEXT]
            position += 1
            at += 1


@kernel
def rehash_orders(old: Words, new: Words, orders: Words) -> None:
    """Enter every order of the table `old` into the larger and empty `new`."""
    for i in range(old.shape[0]):
        row = old[i, 1]
        if row != 0:
            at = _find_order(new, orders, old[i, 0], orders[row - 1, O_BOOK])
            new[at, 0] = old[i, 0]
            new[at, 1] = row
