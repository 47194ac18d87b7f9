"""The kernel that writes depth records as text: fields in one order, between texts that are given.

Records come as 64-bit words of their layouts (little-endian):

    0 length u8, rtype u8, publisher_id u16, instrument_id u32    3 size u32, action u8, side u8,
    1 ts_event   2 price                                            flags u8, depth u8
    4 ts_recv    5 ts_in_delta i32, sequence u32
    6 + 4k: bid_px, ask_px, (bid_sz, ask_sz), (bid_ct, ask_ct)
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.core.jit import inlined, kernel

Words = npt.NDArray[np.int64]
Text = npt.NDArray[np.uint8]

HEADER_FIELDS: Final = 13
LEVEL_FIELDS: Final = 6
P_LEVELS: Final = HEADER_FIELDS
P_LEVEL: Final = P_LEVELS + 1
P_LEVEL_END: Final = P_LEVEL + LEVEL_FIELDS
PIECES: Final = P_LEVEL_END + 1
"""Pieces of text: before each field of the header, before the levels, before each field of a
level, and after a level."""

FIRST_LEVEL: Final = 6
LEVEL_WORDS: Final = 4
U32: Final = 0xFFFFFFFF
SIGN: Final = 1 << 31
MINUS: Final = 45
ZERO: Final = np.uint64(48)
TEN: Final = np.uint64(10)
MAX_DIGITS: Final = 20
POWERS: Final = np.array([10**n for n in range(MAX_DIGITS)], np.uint64)


@inlined
def _copy(out: Text, at: int, text: Text, begin: int, end: int) -> int:
    """Copy part of a text; return where it ends."""
    # With unsigned indices, which cannot count from the end, whole vectors are copied: five times
    # as fast.
    to = np.uint64(at)
    origin = np.uint64(begin)
    for i in range(np.uint64(end - begin)):
        out[to + i] = text[origin + i]
    return at + end - begin


@inlined
def _put_unsigned(out: Text, at: int, value: np.uint64) -> int:
    """Write a number's digits; return where they end."""
    n_digits = 1
    while n_digits < MAX_DIGITS and value >= POWERS[n_digits]:
        n_digits += 1
    for i in range(at + n_digits - 1, at - 1, -1):
        rest = value // TEN
        out[i] = ZERO + value - rest * TEN
        value = rest
    return at + n_digits


@inlined
def _put_signed(out: Text, at: int, value: int) -> int:
    """Write a number's digits, after a minus where it has one; return where they end."""
    if value < 0:
        out[at] = MINUS
        return _put_unsigned(out, at + 1, np.uint64(0) - np.uint64(value))
    return _put_unsigned(out, at, np.uint64(value))


@inlined
def _piece(out: Text, at: int, pieces: Text, ends: Words, piece: int) -> int:
    """Copy a piece; return where it ends."""
    return _copy(out, at, pieces, ends[piece], ends[piece + 1])


@inlined
def _put_header(out: Text, at: int, words: Words, i: int, pieces: Text, ends: Words) -> int:
    """Write the fields before the levels; return where they end."""
    head = words[i, 0]
    what = words[i, 3]
    last = words[i, 5]
    at = _put_unsigned(out, _piece(out, at, pieces, ends, 0), np.uint64(words[i, 4]))
    at = _put_unsigned(out, _piece(out, at, pieces, ends, 1), np.uint64(words[i, 1]))
    at = _put_signed(out, _piece(out, at, pieces, ends, 2), (head >> 8) & 0xFF)
    at = _put_signed(out, _piece(out, at, pieces, ends, 3), (head >> 16) & 0xFFFF)
    at = _put_signed(out, _piece(out, at, pieces, ends, 4), (head >> 32) & U32)
    for field in range(2):
        at = _piece(out, at, pieces, ends, 5 + field)
        out[at] = (what >> (32 + 8 * field)) & 0xFF
        at += 1
    at = _put_signed(out, _piece(out, at, pieces, ends, 7), (what >> 56) & 0xFF)
    at = _put_signed(out, _piece(out, at, pieces, ends, 8), words[i, 2])
    at = _put_signed(out, _piece(out, at, pieces, ends, 9), what & U32)
    at = _put_signed(out, _piece(out, at, pieces, ends, 10), (what >> 48) & 0xFF)
    at = _put_signed(out, _piece(out, at, pieces, ends, 11), ((last & U32) ^ SIGN) - SIGN)
    return _put_signed(out, _piece(out, at, pieces, ends, 12), (last >> 32) & U32)


@inlined
def _put_level(
    out: Text, at: int, words: Words, i: int, first: int, pieces: Text, ends: Words
) -> int:
    """Write a level; return where it ends."""
    for side in range(2):
        at = _piece(out, at, pieces, ends, P_LEVEL + side)
        at = _put_signed(out, at, words[i, first + side])
    for field in range(2, LEVEL_FIELDS):
        at = _piece(out, at, pieces, ends, P_LEVEL + field)
        both = words[i, first + 1 + (field >> 1)]
        at = _put_signed(out, at, (both >> (32 * (field & 1))) & U32)
    return _piece(out, at, pieces, ends, P_LEVEL_END)


@inlined
def _is_as_before(words: Words, i: int, first: int) -> bool:
    """Tell whether a level of record `i` is as the one before it has it."""
    differing = 0
    for word in range(first, first + LEVEL_WORDS):
        differing |= words[i, word] ^ words[i - 1, word]
    return differing == 0


@kernel
def encode(
    words: Words,
    pieces: Text,
    ends: Words,
    closings: Text,
    closing_ends: Words,
    closing_of: Words,
    overlap: int,
    begins: Words,
    out: Text,
) -> int:
    """Write records one after the other; return how many bytes they take.

    Parameters
    ----------
    words : int64[n, 6 + 4 * levels]
        MBP records, whose `action` and `side` are characters that need no escape.
    pieces : uint8[...]
        The pieces, one after the other.
    ends : int64[PIECES + 1]
        Where each begins, and then where the last one ends.
    closings : uint8[...]
        What a record may end with, one after the other.
    closing_ends : int64[m + 1]
        Where each begins, and then where the last one ends.
    closing_of : int64[n]
        Which of them each record ends with.
    overlap : int
        How many bytes of the last level's end a closing replaces.
    begins : int64[levels + 1]
        Working space.
    out : uint8[...]
        Has room for all.
    """
    n_levels = (words.shape[1] - FIRST_LEVEL) // LEVEL_WORDS
    at = 0
    for i in range(words.shape[0]):
        at = _put_header(out, at, words, i, pieces, ends)
        at = _piece(out, at, pieces, ends, P_LEVELS)
        level = 0
        while level < n_levels:
            # Most levels are as in the record before: so is their text, however many in a row.
            same = level
            while i > 0 and same < n_levels:
                if not _is_as_before(words, i, FIRST_LEVEL + LEVEL_WORDS * same):
                    break
                same += 1
            if same > level:
                moved = at - begins[level]
                at = _copy(out, at, out, begins[level], begins[same])
                for k in range(level, same):
                    begins[k] += moved
                level = same
                continue
            begin = at
            at = _put_level(out, at, words, i, FIRST_LEVEL + LEVEL_WORDS * level, pieces, ends)
            begins[level] = begin
            level += 1
        begins[n_levels] = at
        closing = closing_of[i]
        at = _copy(out, at - overlap, closings, closing_ends[closing], closing_ends[closing + 1])
    return at
