"""The kernel that reads Tick frames straight into columns, and the symbol hash table it reads.

It decides about every frame as protobuf's own parser would, but for groups: no one writes them any
more, and a frame that has one is left to that parser.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mdtool.core.jit import inlined, kernel

DONE: Final = 0
"""Every whole frame is read."""
BAD_LENGTH: Final = 1
"""The frame at `position` is empty or too long, or a control frame."""
GROUP: Final = 2
"""The frame at `position` has a group."""
NEW_SYMBOL: Final = 3
"""The frame at `position` is right, but its symbol, now in `scratch`, is not in the table."""

POSITION: Final = 0
FRAMES: Final = 1
ACCEPTED: Final = 2
REFUSED: Final = 3

SYMBOL_WORDS: Final = 9
"""A symbol is up to 72 bytes, zeros behind its text, as little-endian int64."""
MIN_TICK_BYTES: Final = 19
"""A frame that can be accepted has a header, a letter, a volume and a late timestamp."""
_MIN_PLAIN = MIN_TICK_BYTES + 9
"""The shortest tick with a price, which protobuf leaves out where it is 0."""
MIN_FRAME_BYTES: Final = 5

_BAD_SYMBOL, _BAD_PRICE, _BAD_VOLUME, _BAD_TIMESTAMP, _MALFORMED = 1, 2, 3, 4, 5
_SYMBOL_AT, _SYMBOL_END, _PRICE, _VOLUME, _TIMESTAMP, TICK_FIELDS = range(6)

_MIN_TIMESTAMP_NS = 100_000_000_000_000_000
_PRICE_SCALE = 1e9
_PRICE_END = 9223372036854775808.0

# Arithmetic on the eight bytes of a word at once. Where it wraps around it is unsigned.
_ONES = 0x0101010101010101
_SEVEN_BITS = 0x7F7F7F7F7F7F7F7F
_TOP_BITS = ~_SEVEN_BITS
_PAD = 0x21 * _ONES
_CASE = 0x20 * _ONES
_ONES_U = np.uint64(_ONES)
_TOP_BITS_U = np.uint64(0x8080808080808080)
_CASE_U = np.uint64(_CASE)
_FROM_A = np.uint64((0x80 - ord("a")) * _ONES)
_PAST_Z = np.uint64((0x80 - ord("z") - 1) * _ONES)
_ONE, _TWO, _HALF, _LAST_BYTE = np.uint64(1), np.uint64(2), np.uint64(32), np.uint64(56)
_HASH = np.uint64(0x9E3779B97F4A7C15)


@inlined
def _byte(data: Any, at: int) -> int:
    # An unsigned index spares the test for indices from the end.
    return np.int64(data[np.uint64(at)])  # type: ignore[return-value]


@inlined
def _word(data: Any, at: int) -> int:
    # LLVM makes one unaligned load of this.
    return (
        _byte(data, at)
        | (_byte(data, at + 1) << 8)
        | (_byte(data, at + 2) << 16)
        | (_byte(data, at + 3) << 24)
        | (_byte(data, at + 4) << 32)
        | (_byte(data, at + 5) << 40)
        | (_byte(data, at + 6) << 48)
        | (_byte(data, at + 7) << 56)
    )


@inlined
def _length(data: Any, at: int) -> int:
    return (
        (_byte(data, at) << 24)
        | (_byte(data, at + 1) << 16)
        | (_byte(data, at + 2) << 8)
        | _byte(data, at + 3)
    )


@inlined
def _sevens(word: Any) -> Any:
    """Return the 56 bits that the lower seven of each byte make."""
    pairs = (word & 0x007F007F007F007F) | ((word & 0x7F007F007F007F00) >> 1)
    fours = (pairs & 0x00003FFF00003FFF) | ((pairs & 0x3FFF00003FFF0000) >> 2)
    return (fours & 0x0FFFFFFF) | ((fours & 0x0FFFFFFF00000000) >> 4)


@inlined
def _varint(data: Any, at: int, end: int) -> tuple[int, int]:
    """Return the value at `at` and what is behind it, -1 where ten bytes do not end it."""
    value = 0
    shift = 0
    while at < end and shift < 70:
        byte = _byte(data, at)
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    return value, -1


@inlined
def _short_varint(data: Any, at: int, end: int) -> tuple[int, int]:
    """Return a tag or a length, which have five bytes at most."""
    return _varint(data, at, min(end, at + 5))


@inlined
def _skip(data: Any, at: int, end: int, tag: int) -> int:
    """Return what is behind the value of an unknown field, -1 where it is malformed."""
    wire_type = tag & 7
    if wire_type == 0:
        return _varint(data, at, end)[1]
    if wire_type == 1:
        at += 8
    elif wire_type == 2:
        length, at = _short_varint(data, at, end)
        if at >= 0:
            at += length
    elif wire_type == 5:
        at += 4
    else:
        return -1
    return at if at <= end else -1


@inlined
def _is_utf8(data: Any, at: int, end: int) -> bool:
    """Return whether the bytes are UTF-8 in its shortest form, without surrogates."""
    while at < end:
        lead = _byte(data, at)
        at += 1
        if lead < 0x80:
            continue
        low, high = 0x80, 0xBF
        if 0xC2 <= lead < 0xE0:
            more = 1
        elif 0xE0 <= lead < 0xF0:
            more = 2
            if lead == 0xE0:
                low = 0xA0
            elif lead == 0xED:
                high = 0x9F
        elif 0xF0 <= lead < 0xF5:
            more = 3
            if lead == 0xF0:
                low = 0x90
            elif lead == 0xF4:
                high = 0x8F
        else:
            return False
        if at + more > end:
            return False
        for k in range(more):
            byte = _byte(data, at + k)
            if byte < low or byte > high:
                return False
            low, high = 0x80, 0xBF
        at += more
    return True


@inlined
def _parse(data: Any, at: int, end: int, fields: Any) -> int:
    """Write the fields of any Tick into `fields`; return 0, _MALFORMED or -1 for a group."""
    fields[:] = 0
    while at < end:
        tag, at = _short_varint(data, at, end)
        if at < 0 or tag < 8 or tag > 0xFFFFFFFF:
            return _MALFORMED
        if tag == 0x0A:
            length, at = _short_varint(data, at, end)
            if at < 0 or at + length > end or not _is_utf8(data, at, at + length):
                return _MALFORMED
            fields[_SYMBOL_AT] = at
            at += length
            fields[_SYMBOL_END] = at
        elif tag == 0x11:
            if at + 8 > end:
                return _MALFORMED
            fields[_PRICE] = _word(data, at)
            at += 8
        elif tag == 0x18:
            fields[_VOLUME], at = _varint(data, at, end)
        elif tag == 0x20:
            fields[_TIMESTAMP], at = _varint(data, at, end)
        elif tag & 7 == 3:
            return -1
        else:
            at = _skip(data, at, end, tag)
        if at < 0:
            return _MALFORMED
    return 0


@inlined
def _is_text(word: int, lowest: int) -> bool:
    """Return whether every byte of a word is from that of `lowest` to 0x7e."""
    bytes_ = np.uint64(word)
    below = ~((bytes_ | _TOP_BITS_U) - np.uint64(lowest))
    return bool((bytes_ | (bytes_ + _ONES_U) | below) & _TOP_BITS_U == 0)


@inlined
def _upper(word: int) -> int:
    bytes_ = np.uint64(word)
    letters = (bytes_ + _FROM_A) & ~(bytes_ + _PAST_Z) & _TOP_BITS_U
    return np.int64(bytes_ - ((letters >> _TWO) & _CASE_U))  # type: ignore[return-value]


@inlined
def _is_blank(byte: int) -> bool:
    return byte == 0x20 or 0x09 <= byte <= 0x0D or 0x1C <= byte <= 0x1F


@inlined
def _read_symbol(data: Any, at: int, end: int, scratch: Any) -> int:
    """Write a symbol, trimmed and upper-cased, into `scratch`; return its key, 0 if it is bad."""
    while at < end and _is_blank(_byte(data, at)):
        at += 1
    while at < end and _is_blank(_byte(data, end - 1)):
        end -= 1
    length = end - at
    if length == 0 or length > 70:
        return 0
    for k in range(SYMBOL_WORDS):
        count = min(8, length - 8 * k)
        if count <= 0:
            scratch[k] = 0
            continue
        word = 0
        if count == 8:
            word = _word(data, at + 8 * k)
        else:
            for place in range(count):
                word |= _byte(data, at + 8 * k + place) << (8 * place)
        padding = (_CASE >> 8) >> (8 * count - 8)
        if not _is_text((word << (64 - 8 * count)) | padding, _CASE):
            return 0
        scratch[k] = _upper(word)
    return symbol_key(scratch)


@inlined
def symbol_key(words: Any) -> int:
    """Return the key of a symbol in the table: its only word, or a hash with bit 63 set."""
    if words[1] == 0:
        return words[0]  # type: ignore[no-any-return]
    key = np.uint64(0)
    for k in range(SYMBOL_WORDS):
        if words[k] == 0:
            break
        key = (key ^ np.uint64(words[k])) * _HASH
        key ^= key >> _HALF
    return np.int64(key) | (-1 << 63)  # type: ignore[return-value]


@inlined
def _home(key: int, slots: int) -> int:
    """Return the row where the search for a key begins."""
    return np.int64((np.uint64(key) * _HASH) >> _HALF) & (slots - 1)  # type: ignore[return-value]


@inlined
def _find(table: Any, words: Any, key: int, symbol: Any) -> int:
    """Return the row of a symbol, or the free one where it belongs."""
    slot = _home(key, len(table))
    while table[slot, 0] != 0:
        if table[slot, 0] == key:
            index = table[slot, 1]
            is_same = True
            if key < 0:
                for k in range(SYMBOL_WORDS):
                    is_same &= words[index, k] == symbol[k]
            if is_same:
                return slot
        slot = (slot + 1) & (len(table) - 1)
    return slot


@kernel
def add_symbol(table: Any, words: Any, index: int) -> None:
    """Add symbol `index` of `words` to the table."""
    key = symbol_key(words[index])
    slot = _find(table, words, key, words[index])
    table[slot, 0] = key
    table[slot, 1] = index


@kernel
def decode_frames(
    data: NDArray[np.uint8],
    table: NDArray[np.int64],
    words: NDArray[np.int64],
    is_full: bool,
    max_frame_bytes: int,
    any_price: bool,
    ingest_ns: int,
    columns: NDArray[np.int64],
    indices: NDArray[np.uint32],
    refused: NDArray[np.uint32],
    scratch: NDArray[np.int64],
    fields: NDArray[np.int64],
    state: NDArray[np.int64],
) -> int:
    """Read whole frames from `state[POSITION]` on, until something stops it.

    Parameters
    ----------
    data : uint8[n]
        Frames, the last of them perhaps unfinished.
    table, words : int64[2^k, 2], int64[s, 9]
        The symbols known: key and index by hash, and their texts by index.
    is_full : bool
        Whether new symbols are refused.
    max_frame_bytes : int
        The longest payload there may be.
    any_price : bool
        Whether prices of 0 and below are accepted.
    ingest_ns : int
        What the ingest timestamp of every tick is set to.
    columns : int64[4, n // MIN_TICK_BYTES + 1]
        Written: price, volume, exchange and ingest timestamp of the ticks accepted.
    indices : uint32[2, n // MIN_TICK_BYTES + 1]
        Written: symbol and frame number of the ticks accepted.
    refused : uint32[3, n // MIN_FRAME_BYTES + 1]
        Written: frame number, reason and position in `data` of the frames refused.
    scratch : int64[9]
        Written: a symbol, normalised.
    fields : int64[TICK_FIELDS]
        Written: where a Tick's symbol lies, and its other fields.
    state : int64[4]
        Read and written: POSITION, FRAMES, ACCEPTED, REFUSED so far.

    Returns
    -------
    int
        DONE, BAD_LENGTH, GROUP or NEW_SYMBOL. In every case POSITION is where the first frame
        begins that was not read.
    """
    n = len(data)
    position, frames, accepted, rejected = state[0], state[1], state[2], state[3]
    prices, volumes, timestamps, ingested = columns[0], columns[1], columns[2], columns[3]
    symbols, offsets = indices[0], indices[1]
    lowest = -_PRICE_END if any_price else 0.5
    status = DONE
    while position + 4 <= n:
        length = _length(data, position)
        if length == 0 or length > max_frame_bytes:
            status = BAD_LENGTH
            break
        at = position + 4
        end = at + length
        if end > n:
            break

        # The layout that protobuf's encoders give a tick that is right, without a loop over fields.
        is_plain = False
        if length >= _MIN_PLAIN - 4 and _byte(data, at) == 0x0A and _byte(data, at + 1) < 0x80:
            symbol_at = at + 2
            symbol_end = symbol_at + _byte(data, at + 1)
            if (
                symbol_end + 21 <= end
                and _byte(data, symbol_end) == 0x11
                and _byte(data, symbol_end + 9) == 0x18
            ):
                price_bits = _word(data, symbol_end + 1)
                word = _word(data, symbol_end + 10)
                stops = ~word & _TOP_BITS
                mask = np.int64(np.uint64(stops) ^ (np.uint64(stops) - _ONE))
                volume = _sevens(word & mask & _SEVEN_BITS)
                volume_bytes = (np.uint64(mask & _ONES) * _ONES_U) >> _LAST_BYTE
                at = symbol_end + 10 + np.int64(volume_bytes)
                if stops != 0 and at + 10 == end and _byte(data, at) == 0x20:
                    word = _word(data, at + 1)
                    last = _byte(data, at + 9)
                    if word & _TOP_BITS == _TOP_BITS and last < 0x80:
                        timestamp = _sevens(word & _SEVEN_BITS) | (last << 56)
                        is_plain = True
        reason = 0
        if not is_plain:
            reason = _parse(data, position + 4, end, fields)
            if reason < 0:
                status = GROUP
                break
            symbol_at, symbol_end = fields[_SYMBOL_AT], fields[_SYMBOL_END]
            price_bits, volume, timestamp = fields[_PRICE], fields[_VOLUME], fields[_TIMESTAMP]

        slot = 0
        if reason == 0:
            key = 0
            length = symbol_end - symbol_at
            if 0 < length <= 8 and symbol_at + 8 <= n:
                unused_bits = 64 - 8 * length
                word = _word(data, symbol_at) << unused_bits
                if _is_text(word | ((_PAD >> 8) >> (8 * length - 8)), _PAD):
                    key = _upper(word) >> unused_bits
            if key == 0:
                key = _read_symbol(data, symbol_at, symbol_end, scratch)
            if key != 0:
                slot = _home(key, len(table))
                if table[slot, 0] != key or key < 0:
                    slot = _find(table, words, key, scratch)
                if is_full and table[slot, 0] == 0:
                    reason = _BAD_SYMBOL
            elif _is_utf8(data, symbol_at, symbol_end):
                reason = _BAD_SYMBOL
            else:
                reason = _MALFORMED

        if reason == 0:
            scaled = np.int64(price_bits).view(np.float64) * _PRICE_SCALE
            if not lowest < scaled < _PRICE_END:
                reason = _BAD_PRICE
            elif volume <= 0:
                reason = _BAD_VOLUME
            elif timestamp < _MIN_TIMESTAMP_NS:
                reason = _BAD_TIMESTAMP
            elif table[slot, 0] == 0:
                _read_symbol(data, symbol_at, symbol_end, scratch)
                status = NEW_SYMBOL
                break
            else:
                whole = np.int64(scaled)
                part = scaled - whole
                k = np.uint64(accepted)
                if part >= 0:
                    prices[k] = whole + (part > 0.5 or (part == 0.5 and whole & 1 == 1))
                else:
                    prices[k] = whole - (part < -0.5 or (part == -0.5 and whole & 1 == 1))
                volumes[k] = volume
                timestamps[k] = timestamp
                ingested[k] = ingest_ns
                symbols[k] = table[slot, 1]
                offsets[k] = frames
                accepted += 1
        if reason != 0:
            refused[0, rejected] = frames
            refused[1, rejected] = reason
            refused[2, rejected] = position
            rejected += 1
        frames += 1
        position = end
    state[0], state[1], state[2], state[3] = position, frames, accepted, rejected
    return status
