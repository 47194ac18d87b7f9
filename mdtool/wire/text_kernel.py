"""The kernel that writes records as text: one program of fields for each layout, interpreted.

Records come as the 64-bit words of a DBN stream, little-endian, of any mixture of layouts. Text is
stored eight bytes at a time, and may run over its end by as many; what follows is stored over it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.core.jit import inlined, kernel

Words = npt.NDArray[np.int64]
Text = npt.NDArray[np.uint8]

UNSIGNED: Final = 0
SIGNED: Final = 1
PRICE: Final = 2
TIME: Final = 3
CHARACTER: Final = 4
STRING: Final = 5
"""Kinds of fields: integers, decimals with nine places, ISO-8601, one byte, bytes up to a NUL."""

F_KIND: Final = 0
F_WORD: Final = 1
F_SHIFT: Final = 2
F_MASK: Final = 3
F_SIGN: Final = 4
F_TEXT: Final = 5
FIELD_COLUMNS: Final = 8
"""Columns of a field: its kind; the word in which it is, by how many bits it is shifted, its mask
and sign bit (of a string its byte and how many); then the text before it (three columns)."""

G_FIELD: Final = 0
G_END: Final = 1
G_WORD: Final = 2
G_WORD_END: Final = 3
GROUP_COLUMNS: Final = 4
"""Columns of a group: its first field and the end; the words that repeat its text if they are as
in the record before, none where they never do."""

P_GROUP: Final = 0
P_END: Final = 1
P_MOST: Final = 2
P_TEXT: Final = 3
PROGRAM_COLUMNS: Final = 6
"""Columns of a program: its first group and the end, the most bytes of a record's text, and the
text after the last field (three columns)."""

T_WORD: Final = 0
T_WORDS: Final = 1
T_BYTES: Final = 2
"""Columns of a text: its first word, how many words, how many bytes."""

C_TEXT: Final = 0
C_TEXT_BYTES: Final = 1
C_ESCAPE: Final = 2
C_ESCAPE_BYTES: Final = 3
"""Rows of what is known of each byte: as a character, and in a string."""

S_RECORD: Final = 0
S_WORD: Final = 1
S_IS_LEFT: Final = 2
STATE_COLUMNS: Final = 3
"""The state of a run: the next record, its first word, and whether it is left to databento_dbn."""

UNDEF_PRICE: Final = 2**63 - 1
LEAST_PRICE: Final = -(2**63)
UNDEF_TIME: Final = -1
SECONDS_A_DAY: Final = np.uint64(86_400)
SIXTY: Final = np.uint64(60)
QUOTE: Final = np.uint64(34)
MINUS: Final = np.uint64(45)
POINT: Final = np.uint64(46)
ZERO: Final = np.uint64(48)
ZULU: Final = np.uint64(90)

ONE: Final = np.uint64(1)
EIGHT: Final = np.uint64(8)
TEN: Final = np.uint64(10)
HUNDRED: Final = np.uint64(100)
E4: Final = np.uint64(10**4)
E8: Final = np.uint64(10**8)
E9: Final = np.uint64(10**9)
BYTE: Final = np.uint64(0xFF)
ZEROS: Final = np.uint64(0x3030303030303030)

SMALL: Final = np.array(
    [int.from_bytes(str(n).encode(), "little") | len(str(n)) << 56 for n in range(1000)], np.uint64
)
"""The digits of numbers below 1000, and in the highest byte how many there are."""
LIMIT_OF_SMALL: Final = np.uint64(1000)

NULL: Final = np.uint64(int.from_bytes(b"null", "little"))
NULL_BYTES: Final = 4

YEAR_AND_MONTH: Final = np.uint64(int.from_bytes(b"\0\0\0\0-\0\0-", "little"))
DAY_AND_MINUTE: Final = np.uint64(int.from_bytes(b"\0\0T\0\0:\0\0", "little"))
SECOND: Final = np.uint64(int.from_bytes(b":", "little"))
"""The separators between the digits of a time, by the words that hold them."""

MEMO_WORDS: Final = 4
MEMO_SLOTS: Final = 4
MEMO_MASK: Final = np.uint64(MEMO_SLOTS - 1)


@inlined
def _store(out: Text, at: int, word: np.uint64) -> None:
    """Store eight bytes: LLVM makes one instruction of the eight."""
    to = np.uint64(at)
    out[to] = word & BYTE
    out[to + np.uint64(1)] = (word >> np.uint64(8)) & BYTE
    out[to + np.uint64(2)] = (word >> np.uint64(16)) & BYTE
    out[to + np.uint64(3)] = (word >> np.uint64(24)) & BYTE
    out[to + np.uint64(4)] = (word >> np.uint64(32)) & BYTE
    out[to + np.uint64(5)] = (word >> np.uint64(40)) & BYTE
    out[to + np.uint64(6)] = (word >> np.uint64(48)) & BYTE
    out[to + np.uint64(7)] = (word >> np.uint64(56)) & BYTE


@inlined
def _put_text(out: Text, at: int, texts: Words, word: int, words: int, n_bytes: int) -> int:
    """Copy a text of whole words; return where its bytes end."""
    _store(out, at, np.uint64(texts[np.uint64(word)]))
    for k in range(1, words):
        _store(out, at + 8 * k, np.uint64(texts[np.uint64(word + k)]))
    return at + n_bytes


@inlined
def _repeat(out: Text, at: int, begin: int, end: int) -> int:
    """Copy text that was written before; return where it ends."""
    # With unsigned indices, which cannot count from the end, whole vectors are copied.
    to = np.uint64(at)
    origin = np.uint64(begin)
    for i in range(np.uint64(end - begin)):
        out[to + i] = out[origin + i]
    return at + end - begin


@inlined
def _digits(value: np.uint64) -> np.uint64:
    """Return the eight decimal digits of a number below 10**8 as bytes, the first one lowest."""
    # Halves of four digits side by side, then pairs, then digits, each divided at once.
    high = value // E4
    x = high | ((value - high * E4) << np.uint64(32))
    high = ((x * np.uint64(10486)) >> np.uint64(20)) & np.uint64(0x7F0000007F)
    x = high | ((x - high * HUNDRED) << np.uint64(16))
    high = ((x * np.uint64(103)) >> np.uint64(10)) & np.uint64(0x000F000F000F000F)
    return high | ((x - high * TEN) << EIGHT)


@inlined
def _put_leading(out: Text, at: int, value: np.uint64) -> int:
    """Write a number below 10**8 without leading zeros; return where it ends."""
    if value < LIMIT_OF_SMALL:
        word = SMALL[value]
        _store(out, at, word)
        return at + int(word >> np.uint64(56))
    n_digits = 4
    for limit in (10**4, 10**5, 10**6, 10**7):
        n_digits += int(value >= np.uint64(limit))
    _store(out, at, (_digits(value) | ZEROS) >> np.uint64(8 * (8 - n_digits)))
    return at + n_digits


@inlined
def _put_unsigned(out: Text, at: int, value: np.uint64) -> int:
    """Write a number; return where it ends."""
    if value < E8:
        return _put_leading(out, at, value)
    high = value // E8
    if high < E8:
        at = _put_leading(out, at, high)
    else:
        highest = high // E8
        at = _put_leading(out, at, highest)
        _store(out, at, _digits(high - highest * E8) | ZEROS)
        at += 8
    _store(out, at, _digits(value - high * E8) | ZEROS)
    return at + 8


@inlined
def _put_nine(out: Text, at: int, value: np.uint64) -> int:
    """Write a point and the nine digits of a number below 10**9; return where they end."""
    first = value // E8
    _store(out, at, POINT | ((ZERO + first) << EIGHT))
    _store(out, at + 2, _digits(value - first * E8) | ZEROS)
    return at + 10


@inlined
def _put_null(out: Text, at: int, is_json: int) -> int:
    """Write that there is no value: JSON's null, nothing in CSV; return where it ends."""
    _store(out, at, NULL)
    return at + NULL_BYTES * is_json


@inlined
def _put_price(out: Text, at: int, value: int, is_json: int) -> int:
    """Write a price as a decimal; return where it ends, -1 for the least of all.

    Of that one databento_dbn's text is no number.
    """
    if value == UNDEF_PRICE:
        return _put_null(out, at, is_json)
    if value == LEAST_PRICE:
        return -1
    _store(out, at, QUOTE)
    at += is_json
    magnitude = np.uint64(value)
    if value < 0:
        _store(out, at, MINUS)
        at += 1
        magnitude = np.uint64(-value)
    units = magnitude // E9
    at = _put_nine(out, _put_unsigned(out, at, units), magnitude - units * E9)
    _store(out, at, QUOTE)
    return at + is_json


@inlined
def _date(day: np.uint64) -> np.uint64:
    """Return year, month and day as the number YYYYMMDD, of a day since 1970-01-01."""
    # Days of the 400-year cycle that began on 0000-03-01; its years begin in March.
    z = day + np.uint64(719468)
    era = z // np.uint64(146097)
    of_era = z - era * np.uint64(146097)
    year = (
        of_era
        - of_era // np.uint64(1460)
        + of_era // np.uint64(36524)
        - of_era // np.uint64(146096)
    ) // np.uint64(365)
    of_year = of_era - (np.uint64(365) * year + year // np.uint64(4) - year // np.uint64(100))
    month = (np.uint64(5) * of_year + np.uint64(2)) // np.uint64(153)
    date = of_year - (np.uint64(153) * month + np.uint64(2)) // np.uint64(5) + ONE
    if month < TEN:
        month += np.uint64(3)
    else:
        month -= np.uint64(9)
        year += ONE
    return (year + era * np.uint64(400)) * E4 + month * HUNDRED + date


@inlined
def _put_time(out: Text, at: int, value: int, memo: Words, is_json: int) -> int:
    """Write a time as YYYY-MM-DDTHH:MM:SS.NNNNNNNNNZ; return where it ends.

    `memo` holds the texts of seconds that were written before: records share them.
    """
    if value in (UNDEF_TIME, 0):
        return _put_null(out, at, is_json)
    _store(out, at, QUOTE)
    at += is_json
    time = np.uint64(value)
    second = time // E9
    slot = np.int64(second & MEMO_MASK) * MEMO_WORDS
    if memo[slot] != np.int64(second):
        memo[slot] = np.int64(second)
        day = second // SECONDS_A_DAY
        of_day = second - day * SECONDS_A_DAY
        minute = of_day // SIXTY
        hour = minute // SIXTY
        date = _digits(_date(day)) | ZEROS
        clock = hour * E4 + (minute - hour * SIXTY) * HUNDRED + of_day - minute * SIXTY
        clock = _digits(clock) | ZEROS
        two = np.uint64(0xFFFF)
        memo[slot + 1] = np.int64(
            (date & np.uint64(0xFFFFFFFF))
            | (((date >> np.uint64(32)) & two) << np.uint64(40))
            | YEAR_AND_MONTH
        )
        memo[slot + 2] = np.int64(
            (date >> np.uint64(48))
            | (((clock >> np.uint64(16)) & two) << np.uint64(24))
            | (((clock >> np.uint64(32)) & two) << np.uint64(48))
            | DAY_AND_MINUTE
        )
        memo[slot + 3] = np.int64(((clock >> np.uint64(48)) << EIGHT) | SECOND)
    _store(out, at, np.uint64(memo[slot + 1]))
    _store(out, at + 8, np.uint64(memo[slot + 2]))
    _store(out, at + 16, np.uint64(memo[slot + 3]))
    at = _put_nine(out, at + 19, time - second * E9)
    _store(out, at, ZULU | (QUOTE << EIGHT))
    return at + 1 + is_json


@inlined
def _put_string(
    out: Text, at: int, words: Words, pos: int, first: int, size: int, codes: Words
) -> int:
    """Write bytes up to a NUL, escaped; return where they end, -1 where a byte has no escape.

    A string without a NUL is empty.
    """
    begin = at
    for i in range(first, first + size):
        code = (words[np.uint64(pos + (i >> 3))] >> (8 * (i & 7))) & 0xFF
        if code == 0:
            return at
        n_bytes = codes[C_ESCAPE_BYTES, code]
        if n_bytes == 0:
            return -1
        _store(out, at, np.uint64(codes[C_ESCAPE, code]))
        at += n_bytes
    return begin


@inlined
def _put_value(
    out: Text,
    at: int,
    words: Words,
    pos: int,
    fields: Words,
    f: int,
    codes: Words,
    memo: Words,
    is_json: int,
) -> int:
    """Write the value of a field; return where it ends, -1 where it is left to databento_dbn."""
    kind = fields[f, F_KIND]
    if kind == STRING:
        return _put_string(out, at, words, pos, fields[f, F_WORD], fields[f, F_MASK], codes)
    value = (words[np.uint64(pos + fields[f, F_WORD])] >> fields[f, F_SHIFT]) & fields[f, F_MASK]
    if kind == CHARACTER:
        _store(out, at, np.uint64(codes[C_TEXT, value]))
        return at + int(codes[C_TEXT_BYTES, value])
    if kind == PRICE:
        return _put_price(out, at, value, is_json)
    if kind == TIME:
        return _put_time(out, at, value, memo, is_json)
    magnitude = np.uint64(value)
    if kind == SIGNED:
        sign = fields[f, F_SIGN]
        value = (value ^ sign) - sign
        magnitude = np.uint64(value)
        if value < 0:
            _store(out, at, MINUS)
            at += 1
            magnitude = np.uint64(0) - magnitude
    return _put_unsigned(out, at, magnitude)


@inlined
def _is_as_before(words: Words, pos: int, before: int, begin: int, end: int) -> bool:
    """Return whether some words of a record are as one before it has them."""
    differing = 0
    for word in range(begin, end):
        differing |= words[np.uint64(pos + word)] ^ words[np.uint64(before + word)]
    return differing == 0


@kernel
def encode(
    words: Words,
    ending_of: Words,
    endings: Words,
    program_of: Words,
    programs: Words,
    groups: Words,
    fields: Words,
    texts: Words,
    codes: Words,
    is_json: int,
    begins: Words,
    before: Words,
    memo: Words,
    state: Words,
    out: Text,
) -> int:
    """Write records one after the other as long as there is room; return where their text ends.

    Parameters
    ----------
    words : int64[...]
        Whole records of a DBN stream.
    ending_of : int64[n]
        Which text each record ends with.
    endings : int64[m, 3]
        Those texts.
    program_of : int64[256]
        The program of each rtype; -1 where its records are left out.
    programs : int64[..., PROGRAM_COLUMNS]
    groups : int64[..., GROUP_COLUMNS]
    fields : int64[..., FIELD_COLUMNS]
    texts : int64[...]
        The words of all texts.
    codes : int64[4, 256]
        What each byte is as a character, and in a string: eight bytes of text and their number; a
        number of 0 leaves the record to databento_dbn.
    is_json : int
        1 for JSON, 0 for CSV.
    begins : int64[...]
        For each group and one more; where texts began. Working space.
    before : int64[...]
        For each program. Working space.
    memo : int64[MEMO_SLOTS * MEMO_WORDS]
        Filled with -1 at first, and kept.
    state : int64[STATE_COLUMNS]
        Is moved on. It stops at a record that is left to databento_dbn, or for which there is no
        room.
    out : uint8[...]
    """
    record, pos = state[S_RECORD], state[S_WORD]
    state[S_IS_LEFT] = 0
    before[:] = -1
    at = 0
    while record < ending_of.shape[0]:
        head = words[np.uint64(pos)]
        program = program_of[(head >> 8) & 0xFF]
        if program < 0:
            pos += (head & 0xFF) >> 1
            record += 1
            continue
        if at + programs[program, P_MOST] > out.shape[0]:
            break
        begin = at
        last = before[program]
        group, end = programs[program, P_GROUP], programs[program, P_END]
        while group < end:
            # Most levels are as in the record before: so is their text, however many in a row.
            same = group
            while last >= 0 and same < end and groups[same, G_WORD] < groups[same, G_WORD_END]:
                if not _is_as_before(
                    words, pos, last, groups[same, G_WORD], groups[same, G_WORD_END]
                ):
                    break
                same += 1
            if same > group:
                moved = at - begins[group]
                at = _repeat(out, at, begins[group], begins[same])
                for k in range(group, same):
                    begins[k] += moved
                group = same
                continue
            begins[group] = at
            for f in range(groups[group, G_FIELD], groups[group, G_END]):
                text = fields[f, F_TEXT + T_WORD]
                at = _put_text(
                    out,
                    at,
                    texts,
                    text,
                    fields[f, F_TEXT + T_WORDS],
                    fields[f, F_TEXT + T_BYTES],
                )
                at = _put_value(out, at, words, pos, fields, f, codes, memo, is_json)
                if at < 0:
                    state[S_RECORD], state[S_WORD], state[S_IS_LEFT] = record, pos, 1
                    return begin
            group += 1
        begins[end] = at
        before[program] = pos
        at = _put_text(
            out,
            at,
            texts,
            programs[program, P_TEXT + T_WORD],
            programs[program, P_TEXT + T_WORDS],
            programs[program, P_TEXT + T_BYTES],
        )
        ending = ending_of[record]
        at = _put_text(
            out,
            at,
            texts,
            endings[ending, T_WORD],
            endings[ending, T_WORDS],
            endings[ending, T_BYTES],
        )
        pos += (head & 0xFF) >> 1
        record += 1
    state[S_RECORD], state[S_WORD] = record, pos
    return at
