"""The kernel that writes rows about order books as JSON lines."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.core.jit import inlined, kernel

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.int64]


def _text(text: str) -> Bytes:
    return np.frombuffer(text.encode(), np.uint8)


LINE_BYTES: Final = 640
"""The most that a line takes beside its symbol and its levels."""
LEVEL_BYTES: Final = 72
"""The most that a level takes."""

UNDEF_PRICE: Final = 2**63 - 1
PRICE_SCALE: Final = 1_000_000_000
NS_PER_S: Final = 1_000_000_000
S_PER_DAY: Final = 86_400
U32: Final = 0xFFFFFFFF
ZERO, QUOTE, BACKSLASH, MINUS, POINT, COMMA = 48, 34, 92, 45, 46, 44
FIRST_PRINTABLE, LAST_PRINTABLE = 33, 126

SYMBOL: Final = _text('{"symbol":')
PUBLISHER: Final = _text(',"publisher_id":')
TIMESTAMP: Final = _text(',"timestamp":"')
TIMESTAMP_NS: Final = _text('","timestamp_ns":"')
NO_TIMESTAMP: Final = _text(',"timestamp":null,"timestamp_ns":null')
RECORD: Final = _text(',"record":{"ts_event":')
SEQUENCE: Final = _text(',"sequence":')
ACTION: Final = _text(',"action":"')
SIDE: Final = _text('","side":"')
PRICE: Final = _text('","price":')
SIZE: Final = _text(',"size":')
FLAGS: Final = _text(',"flags":')
BBO: Final = _text('},"bbo":{"bid":')
ASK: Final = _text(',"ask":')
BIDS: Final = _text('},"levels":{"bids":[')
ASKS: Final = _text('],"asks":[')
LEVEL_PRICE: Final = _text('{"price":"')
LEVEL_SIZE: Final = _text('","size":')
LEVEL_COUNT: Final = _text(',"count":')
LEVEL_END: Final = _text("}")
ORDERS: Final = _text(']},"stats":{"total_orders":')
BID_LEVELS: Final = _text(',"bid_levels":')
ASK_LEVELS: Final = _text(',"ask_levels":')
PARTIAL: Final = _text('},"partial":true}\n')
WHOLE: Final = _text('},"partial":false}\n')
NULL: Final = _text("null")


@inlined
def _put(out: Bytes, at: int, text: Bytes) -> int:
    length: int = text.shape[0]
    for i in range(length):
        out[at + i] = text[i]
    return at + length


@inlined
def _put_digits(out: Bytes, at: int, number: int, width: int) -> int:
    """Write the last `width` digits of a number that is not negative."""
    rest = number
    for i in range(width - 1, -1, -1):
        out[at + i] = ZERO + rest % 10
        rest //= 10
    return at + width


@inlined
def _put_number(out: Bytes, at: int, number: int) -> int:
    """Write a number that is not negative."""
    width = 1
    rest = number // 10
    while rest > 0:
        width += 1
        rest //= 10
    return _put_digits(out, at, number, width)


@inlined
def _put_price(out: Bytes, at: int, price: int) -> int:
    """Write a fixed-point price as a decimal without trailing zeros."""
    whole = price // PRICE_SCALE
    fraction = price - whole * PRICE_SCALE
    if price < 0:
        out[at] = MINUS
        at += 1
        if fraction > 0:
            whole += 1
            fraction = PRICE_SCALE - fraction
        whole = -whole
    at = _put_number(out, at, whole)
    if fraction > 0:
        out[at] = POINT
        width = 9
        while fraction % 10 == 0:
            fraction //= 10
            width -= 1
        at = _put_digits(out, at + 1, fraction, width)
    return at


@inlined
def _put_time(out: Bytes, at: int, ts_ns: int) -> int:
    """Write a time as ISO-8601 with nanoseconds.

    The date is counted in eras of 400 years that begin with March, whose days are always as many.
    """
    seconds = ts_ns // NS_PER_S
    days = seconds // S_PER_DAY
    second = seconds - days * S_PER_DAY
    since_era = days + 719_468
    era = since_era // 146_097
    day_of_era = since_era - era * 146_097
    year_of_era = (
        day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096
    ) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    year = year_of_era + era * 400 + (month <= 2)
    at = _put_digits(out, at, year, 4)
    out[at] = MINUS
    at = _put_digits(out, at + 1, month, 2)
    out[at] = MINUS
    at = _put_digits(out, at + 1, day, 2)
    out[at] = 84  # T
    at = _put_digits(out, at + 1, second // 3_600, 2)
    out[at] = 58  # :
    at = _put_digits(out, at + 1, second // 60 % 60, 2)
    out[at] = 58
    at = _put_digits(out, at + 1, second % 60, 2)
    out[at] = POINT
    at = _put_digits(out, at + 1, ts_ns - seconds * NS_PER_S, 9)
    out[at] = 90  # Z
    return at + 1


@inlined
def _put_character(out: Bytes, at: int, character: int) -> int:
    """Write a character that JSON takes as it is, and nothing for any other."""
    if FIRST_PRINTABLE <= character <= LAST_PRINTABLE and character not in (QUOTE, BACKSLASH):
        out[at] = character
        return at + 1
    return at


@inlined
def _put_level(out: Bytes, at: int, rows: Words, row: int, level: int, is_ask: int) -> int:
    word = 6 + 4 * level
    shift = 32 * is_ask
    at = _put(out, at, LEVEL_PRICE)
    at = _put_price(out, at, rows[row, word + is_ask])
    at = _put(out, at, LEVEL_SIZE)
    at = _put_number(out, at, (rows[row, word + 2] >> shift) & U32)
    at = _put(out, at, LEVEL_COUNT)
    at = _put_number(out, at, (rows[row, word + 3] >> shift) & U32)
    return _put(out, at, LEVEL_END)


@inlined
def _put_levels(out: Bytes, at: int, rows: Words, row: int, shown: int, is_ask: int) -> int:
    for level in range(shown):
        if level > 0:
            out[at] = COMMA
            at += 1
        at = _put_level(out, at, rows, row, level, is_ask)
    return at


@inlined
def _put_record(out: Bytes, at: int, rows: Words, row: int) -> int:
    what = rows[row, 3]
    at = _put(out, at, RECORD)
    if rows[row, 1] < 0:
        at = _put(out, at, NULL)
    else:
        out[at] = QUOTE
        at = _put_number(out, at + 1, rows[row, 1])
        out[at] = QUOTE
        at += 1
    at = _put(out, at, SEQUENCE)
    at = _put_number(out, at, (rows[row, 5] >> 32) & U32)
    at = _put(out, at, ACTION)
    at = _put_character(out, at, (what >> 32) & 0xFF)
    at = _put(out, at, SIDE)
    at = _put_character(out, at, (what >> 40) & 0xFF)
    at = _put(out, at, PRICE)
    if rows[row, 2] == UNDEF_PRICE:
        at = _put(out, at, NULL)
    else:
        out[at] = QUOTE
        at = _put_price(out, at + 1, rows[row, 2])
        out[at] = QUOTE
        at += 1
    at = _put(out, at, SIZE)
    size = what & U32
    at = _put(out, at, NULL) if size == U32 else _put_number(out, at, size)
    at = _put(out, at, FLAGS)
    return _put_number(out, at, (what >> 48) & 0xFF)


@kernel
def write_lines(
    rows: Words,
    symbol: Words,
    symbols: Bytes,
    symbol_ends: Words,
    out: Bytes,
    ends: Words,
) -> int:
    """Write a line for each row; return how many bytes they take.

    Parameters
    ----------
    rows : int64[n, 9 + 4 * depth]
        As `engine.book.state.Books.states` yields them: an MBP record of `depth` levels as 64-bit
        words, how many orders rest, how many levels each side has (bids in the low half), and
        which sides are unknown. A time below 0 is undefined.
    symbol : int64[n]
        The symbol of each row, counted in `symbol_ends`.
    symbols : uint8[s]
        JSON strings, quotes and all, one behind the other.
    symbol_ends : int64[t + 1]
        Where each of them ends, behind a 0.
    out : uint8[]
        Room for n lines of `LINE_BYTES`, a symbol and 2 * depth + 2 times `LEVEL_BYTES`.
    ends : int64[n]
        Written: where each line ends.
    """
    depth = (rows.shape[1] - 9) >> 2
    stats = 6 + 4 * depth
    at = 0
    for row in range(rows.shape[0]):
        bids = rows[row, stats + 1] & U32
        asks = (rows[row, stats + 1] >> 32) & U32
        at = _put(out, at, SYMBOL)
        for i in range(symbol_ends[symbol[row]], symbol_ends[symbol[row] + 1]):
            out[at] = symbols[i]
            at += 1
        at = _put(out, at, PUBLISHER)
        at = _put_number(out, at, (rows[row, 0] >> 16) & 0xFFFF)
        if rows[row, 4] < 0:
            at = _put(out, at, NO_TIMESTAMP)
        else:
            at = _put(out, at, TIMESTAMP)
            at = _put_time(out, at, rows[row, 4])
            at = _put(out, at, TIMESTAMP_NS)
            at = _put_number(out, at, rows[row, 4])
            out[at] = QUOTE
            at += 1
        at = _put_record(out, at, rows, row)
        at = _put(out, at, BBO)
        at = _put_level(out, at, rows, row, 0, 0) if bids > 0 else _put(out, at, NULL)
        at = _put(out, at, ASK)
        at = _put_level(out, at, rows, row, 0, 1) if asks > 0 else _put(out, at, NULL)
        at = _put(out, at, BIDS)
        at = _put_levels(out, at, rows, row, min(bids, depth), 0)
        at = _put(out, at, ASKS)
        at = _put_levels(out, at, rows, row, min(asks, depth), 1)
        at = _put(out, at, ORDERS)
        at = _put_number(out, at, rows[row, stats])
        at = _put(out, at, BID_LEVELS)
        at = _put_number(out, at, bids)
        at = _put(out, at, ASK_LEVELS)
        at = _put_number(out, at, asks)
        at = _put(out, at, PARTIAL if rows[row, stats + 2] != 0 else WHOLE)
        ends[row] = at
    return at
