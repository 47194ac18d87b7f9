"""Columns of ticks as Tick frames, for a client of an ingest server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdtool.core.errors import InputError
from mdtool.core.symbols import MAX_SYMBOL_CHARS
from mdtool.core.units import UNDEF_PRICE
from mdtool.wire.tick_encode_kernel import MAX_FIXED_BYTES, encode_ticks

_FEW = 64


@dataclass(frozen=True, slots=True)
class EncodedFrames:
    """Frames ready to send.

    Attributes
    ----------
    data : memoryview
        The frames, end to end.
    ends : int64[n]
        Where each frame ends in `data`, so that a part of them can be dropped or sent again.
    """

    data: memoryview
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        """Return how many frames there are."""
        return len(self.ends)

    def __getitem__(self, part: slice) -> Self:
        """Return consecutive frames, without a copy of their bytes."""
        first, last, _ = part.indices(len(self.ends))
        if first >= last:
            return type(self)(self.data[:0], self.ends[:0])
        start = int(self.ends[first - 1]) if first else 0
        ends = self.ends[first:last] - start
        return type(self)(self.data[start : start + int(ends[-1])], ends)


def encode_frames(
    symbols: Sequence[str],
    symbol: ArrayLike,
    price: ArrayLike,
    volume: ArrayLike,
    timestamp: ArrayLike,
) -> EncodedFrames:
    """Return one Tick frame for each entry of the columns, byte for byte as protobuf writes it.

    Parameters
    ----------
    symbols : sequence of str
        What `symbol` points into.
    symbol : int[n]
        Index of each tick's symbol.
    price : int64[n]
        In units of 1e-9.
    volume : int64[n]
        Above 0.
    timestamp : int64[n]
        Exchange time in nanoseconds since the epoch, above 0. The ingest timestamp is left out.

    Raises
    ------
    InputError
        For ticks that no server would take: a symbol that is not 1 to 70 ASCII characters, an
        undefined price, a volume or timestamp that is not above 0; for columns of different
        lengths. Nothing is encoded then.
    """
    texts = [_text(name) for name in symbols]
    indices = np.ascontiguousarray(symbol, np.int64)
    prices = np.ascontiguousarray(price, np.int64)
    volumes = np.ascontiguousarray(volume, np.int64)
    timestamps = np.ascontiguousarray(timestamp, np.int64)
    if not len(indices) == len(prices) == len(volumes) == len(timestamps):
        raise InputError("columns of ticks have different lengths")
    if len(prices) and _extremes(prices)[1] == UNDEF_PRICE:
        raise InputError(f"tick {int(np.argmax(prices)):,} has no price")
    for name, column in (("volume", volumes), ("timestamp", timestamps)):
        if len(column) and _extremes(column)[0] <= 0:
            at = int(np.argmax(column <= 0))
            raise InputError(f"tick {at:,} has a {name} of {column[at]}, which is not above 0")
    if len(indices):
        first, last = _extremes(indices)
        if first < 0 or last >= len(texts):
            raise InputError(f"a symbol index is outside the table of {len(texts):,}")
    longest = max(map(len, texts), default=0)
    data = np.empty(len(indices) * (MAX_FIXED_BYTES + longest), np.uint8)
    ends = np.empty(len(indices), np.int64)
    encode_ticks(
        np.frombuffer(b"".join(texts), np.uint8),
        np.cumsum([len(text) for text in texts], dtype=np.int64),
        indices,
        prices,
        volumes,
        timestamps,
        data,
        ends,
    )
    length = int(ends[-1]) if len(ends) else 0
    return EncodedFrames(data[:length].data, ends)


def _extremes(column: NDArray[np.int64]) -> tuple[int, int]:
    """Return the least and the greatest of some numbers, at least one."""
    if len(column) <= _FEW:  # numpy takes ten times as long for one
        values = column.tolist()
        return min(values), max(values)
    return int(column.min()), int(column.max())


def _text(symbol: str) -> bytes:
    text = symbol.encode("ascii", "replace")
    if not 1 <= len(text) <= MAX_SYMBOL_CHARS or not symbol.isascii():
        raise InputError(f"symbol {symbol!r} is not 1 to {MAX_SYMBOL_CHARS} ASCII characters")
    return text
