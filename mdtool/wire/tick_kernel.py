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
"""The frame at `position` says that it is empty or too long, or is a control frame."""
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
MIN_TICK_BYTES: Final = 28
"""A frame that can be accepted has a header, a letter, a price, a volume and a late timestamp."""
MIN_FRAME_BYTES: Final = 5

_BAD_SYMBOL, _BAD_PRICE, _BAD_VOLUME, _BAD_TIMESTAMP, _MALFORMED = 1, 2, 3, 4, 5

# Constants of arithmetic on the eight bytes of a word at once.
_ONES = 0x0101010101010101
_SEVEN_BITS = 0x7F7F7F7F7F7F7F7F
_TOP_BITS = ~_SEVEN_BITS
_NOT_BLANK = 0x21 * _ONES
_CASE = 0x20 * _ONES
_FROM_A = (0x80 - ord("a")) * _ONES
_PAST_Z = (0x80 - ord("z") - 1) * _ONES
_HASH = 0x9E3779B97F4A7C15 - (1 << 64)


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


@kernel
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


@kernel
def _short_varint(data: Any, at: int, end: int) -> tuple[int, int]:
    """Return a tag or a length, which have five bytes at most."""
    return _varint(data, at, min(end, at + 5))


@kernel
def _skip(data: Any, at: int, end: int, tag: int) -> int:
    """Return what is behind the value of an unknown field, -1 where it is malformed."""
    wire_type = tag & 7
    if wire_type == 0:
        at = _varint(data, at, end)[1]
    elif wire_type == 1:
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


@kernel
def _is_utf8(data: Any, at: int, end: int) -> bool:
    """Return whether the bytes are UTF-8 in its shortest form, without surrogates."""
    while at < end:
        lead = _byte(data, at)
        at += 1
        if lead < 0x80:
            continue
        if 0xC2 <= lead < 0xE0:
            more, low, high = 1, 0x80, 0xBF
        elif 0xE0 <= lead < 0xF0:
            more = 2
            low = 0xA0 if lead == 0xE0 else 0x80
            high = 0x9F if lead == 0xED else 0xBF
        elif 0xF0 <= lead < 0xF5:
            more = 3
            low = 0x90 if lead == 0xF0 else 0x80
            high = 0x8F if lead == 0xF4 else 0xBF
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


@kernel
def _is_blank(byte: int) -> bool:
    return byte == 0x20 or 0x09 <= byte <= 0x0D or 0x1C <= byte <= 0x1F


@kernel
def _normalise(data: Any, at: int, end: int, scratch: Any) -> int:
    """Write the symbol, trimmed and upper-cased, into `scratch`; return its length, 0 if bad."""
    while at < end and _is_blank(_byte(data, at)):
        at += 1
    while at < end and _is_blank(_byte(data, end - 1)):
        end -= 1
    length = end - at
    if length > 70:
        return 0
    for k in range(SYMBOL_WORDS):
        scratch[k] = 0
    for k in range(length):
        byte = _byte(data, at + k)
        if byte < 0x20 or byte > 0x7E:
            return 0
        if 0x61 <= byte <= 0x7A:
            byte -= 0x20
        scratch[k >> 3] |= byte << (8 * (k & 7))
    return length


@kernel
def symbol_key(words: Any) -> int:
    """Return what stands for a symbol in the table: its one word, or a hash with bit 63 set."""
    if words[1] == 0:
        return words[0]  # type: ignore[no-any-return]
    key = 0
    for k in range(SYMBOL_WORDS):
        key = (key ^ words[k]) * _HASH
        key ^= (key >> 32) & 0xFFFFFFFF
    return key | (-1 << 63)


@kernel
def _find(table: Any, words: Any, key: int, symbol: Any) -> int:
    """Return the slot of a symbol, or the free one where it would stand."""
    mask = len(table) - 1
    slot = ((key * _HASH) >> 32) & mask
    while table[slot, 0] != 0:
        if table[slot, 0] == key:
            if key > 0:
                return slot
            index = table[slot, 1]
            same = True
            for k in range(SYMBOL_WORDS):
                same &= words[index, k] == symbol[k]
            if same:
                return slot
        slot = (slot + 1) & mask
    return slot


@kernel
def add_symbol(table: Any, words: Any, index: int) -> int:
    """Put symbol `index` of `words` into the table; return the index that it has there already."""
    key = symbol_key(words[index])
    slot = _find(table, words, key, words[index])
    if table[slot, 0] != 0:
        return table[slot, 1]  # type: ignore[no-any-return]
    table[slot, 0] = key
    table[slot, 1] = index
    return index


@kernel
def decode_frames(
    data: NDArray[np.uint8],
    table: NDArray[np.int64],
    words: NDArray[np.int64],
    is_full: bool,
    max_frame_bytes: int,
    ingest_ns: int,
    columns: NDArray[np.int64],
    indices: NDArray[np.uint32],
    refused: NDArray[np.int64],
    scratch: NDArray[np.int64],
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
    ingest_ns : int
        What the ingest timestamp of every tick is set to.
    columns : int64[4, n // MIN_TICK_BYTES + 1]
        Written: price, volume, exchange and ingest timestamp of the ticks accepted.
    indices : uint32[2, n // MIN_TICK_BYTES + 1]
        Written: symbol and frame number of the ticks accepted.
    refused : int64[3, n // MIN_FRAME_BYTES + 1]
        Written: frame number, reason and position in `data` of the frames refused.
    scratch : int64[9]
        Written: a symbol, normalised.
    state : int64[4]
        Read and written: POSITION, FRAMES, ACCEPTED, REFUSED so far.

    Returns
    -------
    int
        DONE, BAD_LENGTH, GROUP or NEW_SYMBOL. In every case POSITION is where the
        first frame begins that was not read.
    """
    n = len(data)
    position, frames, accepted, rejected = state[0], state[1], state[2], state[3]
    status = DONE
    while position + 4 <= n:
        at = position + 4
        length = (
            (_byte(data, position) << 24)
            | (_byte(data, position + 1) << 16)
            | (_byte(data, position + 2) << 8)
            | _byte(data, position + 3)
        )
        if length == 0 or length > max_frame_bytes:
            status = BAD_LENGTH
            break
        end = at + length
        if end > n:
            break

        symbol_at, symbol_end = 0, 0
        price_bits, volume, timestamp = 0, 0, 0
        reason = 0
        while at < end:
            tag = _byte(data, at)
            at += 1
            if tag >= 0x80:
                tag, at = _short_varint(data, at - 1, end)
                if at < 0:
                    reason = _MALFORMED
                    break
            if tag == 0x0A:
                if not _is_utf8(data, symbol_at, symbol_end):
                    reason = _MALFORMED
                    break
                length, at = _short_varint(data, at, end)
                if at < 0 or at + length > end:
                    reason = _MALFORMED
                    break
                symbol_at = at
                at += length
                symbol_end = at
            elif tag == 0x11:
                if at + 8 > end:
                    reason = _MALFORMED
                    break
                price_bits = _word(data, at)
                at += 8
            elif tag == 0x18 or tag == 0x20:
                value, at = _varint(data, at, end)
                if at < 0:
                    reason = _MALFORMED
                    break
                if tag == 0x18:
                    volume = value
                else:
                    timestamp = value
            elif tag < 8 or tag > 0xFFFFFFFF:
                reason = _MALFORMED
                break
            elif tag & 7 == 3:
                status = GROUP
                break
            else:
                at = _skip(data, at, end, tag)
                if at < 0:
                    reason = _MALFORMED
                    break
        if status == GROUP:
            break

        slot = 0
        if reason == 0:
            if _normalise(data, symbol_at, symbol_end, scratch) == 0:
                reason = _BAD_SYMBOL if _is_utf8(data, symbol_at, symbol_end) else _MALFORMED
            else:
                slot = _find(table, words, symbol_key(scratch), scratch)
                if is_full and table[slot, 0] == 0:
                    reason = _BAD_SYMBOL
        price = 0
        if reason == 0:
            scaled = np.int64(price_bits).view(np.float64) * 1e9
            if not 0.5 < scaled < 9223372036854775807.0:
                reason = _BAD_PRICE
            elif volume <= 0:
                reason = _BAD_VOLUME
            elif timestamp < 100_000_000_000_000_000:
                reason = _BAD_TIMESTAMP
            elif table[slot, 0] == 0:
                status = NEW_SYMBOL
                break
            else:
                price = np.int64(scaled)
                part = scaled - price
                if part > 0.5 or (part == 0.5 and price & 1 == 1):
                    price += 1
        if reason == 0:
            columns[0, accepted] = price
            columns[1, accepted] = volume
            columns[2, accepted] = timestamp
            columns[3, accepted] = ingest_ns
            indices[0, accepted] = table[slot, 1]
            indices[1, accepted] = frames
            accepted += 1
        else:
            refused[0, rejected] = frames
            refused[1, rejected] = reason
            refused[2, rejected] = position
            rejected += 1
        frames += 1
        position = end
    state[0], state[1], state[2], state[3] = position, frames, accepted, rejected
    return status
