"""The kernel that writes columns of ticks as Tick frames."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mdtool.core.jit import inlined, kernel

MAX_FIXED_BYTES: Final = 4 + 2 + 9 + 11 + 11
"""What a frame takes at most, but for its symbol."""


@inlined
def _put(data: Any, at: int, byte: int) -> None:
    # An unsigned index spares the test for indices from the end.
    data[np.uint64(at)] = byte & 0xFF


@kernel
def _put_varint(data: Any, at: int, value: int) -> int:
    """Write a value, 0 and above, and return what is behind it."""
    while value >= 0x80:
        _put(data, at, value | 0x80)
        value >>= 7
        at += 1
    _put(data, at, value)
    return at + 1


@kernel
def encode_ticks(
    texts: NDArray[np.uint8],
    text_ends: NDArray[np.int64],
    symbol: NDArray[np.int64],
    price: NDArray[np.int64],
    volume: NDArray[np.int64],
    timestamp: NDArray[np.int64],
    data: NDArray[np.uint8],
    ends: NDArray[np.int64],
) -> None:
    """Write one frame a tick, as protobuf writes it: fields in order, zeros left out.

    Parameters
    ----------
    texts, text_ends : uint8[...], int64[s]
        The symbols' ASCII texts, end to end, and where each ends.
    symbol : int64[n]
        Index of each tick's symbol.
    price, volume, timestamp : int64[n]
        In units of 1e-9, any sign; above 0; in nanoseconds, above 0.
    data, ends : uint8[...], int64[n]
        Written: the frames, and where each ends.
    """
    at = 0
    for k in range(len(symbol)):
        head = at
        at += 4
        index = symbol[k]
        text = text_ends[index - 1] if index else 0
        text_end = text_ends[index]
        _put(data, at, 0x0A)
        _put(data, at + 1, text_end - text)
        at += 2
        for place in range(text, text_end):
            _put(data, at, texts[place])
            at += 1
        if price[k] != 0:
            _put(data, at, 0x11)
            bits: Any = np.float64(price[k] / 1e9).view(np.int64)
            for place in range(8):
                _put(data, at + 1 + place, bits >> (8 * place))
            at += 9
        _put(data, at, 0x18)
        at = _put_varint(data, at + 1, volume[k])
        _put(data, at, 0x20)
        at = _put_varint(data, at + 1, timestamp[k])
        length = at - head - 4
        _put(data, head, 0)
        _put(data, head + 1, 0)
        _put(data, head + 2, length >> 8)
        _put(data, head + 3, length)
        ends[k] = at
