"""Trades and closed bars as BSON documents of one layout each, whole columns at a time.

Their `_id` has the parts of the key, most significant byte first, with the sign inverted, so that
MongoDB's order of `_id` is that of the keys, and the one index that every collection has is the
only one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import bson
import numpy as np
from bson.binary import Binary
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from numpy.typing import NDArray

_SIGN: Final = -(2**63)
_BEFORE_KEY: Final = 4 + 1 + len("_id\0") + 4 + 1
"""Bytes of a document's size, a type, a name, a length and a subtype."""


class Layout:
    """Documents whose `_id` is of integers, and whose fields are int64.

    Parameters
    ----------
    parts : sequence of int
        The bytes of each part of the key: 4 for numbers from 0, 8 for int64.
    fields : sequence of str
    """

    def __init__(self, parts: Sequence[int], fields: Sequence[str] = ()) -> None:
        self.parts = tuple(parts)
        empty = {"_id": Binary(bytes(sum(parts))), **dict.fromkeys(fields, Int64(0))}
        self._template = bson.encode(empty)
        formats, offsets, at = [], [], _BEFORE_KEY
        for size in self.parts:
            formats.append(f">i{size}")
            offsets.append(at)
            at += size
        self._key = slice(_BEFORE_KEY, at)
        for name in fields:
            at += len(f"\0{name}\0")
            formats.append("<i8")
            offsets.append(at)
            at += 8
        self._names = [str(place) for place in range(len(formats))]
        self._dtype = np.dtype(
            {
                "names": self._names,
                "formats": formats,
                "offsets": offsets,
                "itemsize": len(self._template),
            }
        )
        fixed = np.ones(len(self._template), np.bool_)
        for offset, each in zip(offsets, formats, strict=True):
            fixed[offset : offset + int(each[-1])] = False
        self._is_fixed = fixed

    def key(self, *values: int) -> Binary:
        """Return the `_id` of a key, or of the start of one, which is below all that have it."""
        return Binary(
            b"".join(
                (value - _SIGN if size == 8 else value).to_bytes(size, "big")
                for size, value in zip(self.parts, values, strict=False)
            ).ljust(sum(self.parts), b"\0")
        )

    def keys(self, columns: NDArray[np.int64]) -> list[bytes]:
        """Return the `_id` of each of int64[k, n]."""
        rows = self._rows(columns)[:, self._key]
        return np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").ravel().tolist()

    def encode(self, columns: NDArray[np.int64]) -> list[RawBSONDocument]:
        """Return documents of the parts of the key and the fields, int64[k, n]."""
        data, size = self._rows(columns).tobytes(), self._dtype.itemsize
        return [RawBSONDocument(data[at : at + size]) for at in range(0, len(data), size)]

    def decode(self, data: bytes) -> NDArray[np.int64]:
        """Return the parts of the keys, and the fields, of documents one after the other.

        Returns
        -------
        int64[k, n]

        Raises
        ------
        ValueError
            When they are of another layout.
        """
        size = self._dtype.itemsize
        rows = np.frombuffer(data, np.uint8)
        if rows.size % size:
            raise ValueError("a document is of another size")
        rows = rows.reshape(-1, size)
        template = np.frombuffer(self._template, np.uint8)
        if not (rows[:, self._is_fixed] == template[self._is_fixed]).all():
            raise ValueError("a document has other fields")
        records = rows.view(self._dtype).ravel()
        columns = np.empty((len(self._names), len(records)), np.int64)
        for place, name in enumerate(self._names):
            columns[place] = records[name]
            if place < len(self.parts) and self.parts[place] == 8:
                columns[place] ^= _SIGN
        return columns

    def _rows(self, columns: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return documents as uint8[n, size]; columns that are not given are 0."""
        data = np.tile(np.frombuffer(self._template, np.uint8), (columns.shape[1], 1))
        records = data.view(self._dtype).ravel()
        for place, column in enumerate(columns[: len(self._names)]):
            is_signed = place < len(self.parts) and self.parts[place] == 8
            records[self._names[place]] = column ^ _SIGN if is_signed else column
        return data


TRADES: Final = Layout((4, 8, 4, 8), ("price", "volume", "ingest_timestamp"))
"""The key: number of the symbol, exchange time, number of the stream, sequence."""
TRADE_KEYS: Final = Layout(TRADES.parts)
"""Trades of which only the `_id` is read."""
BAR_FIELDS: Final = ("open", "high", "low", "close", "volume", "count", "first_ns", "last_ns")
BARS: Final = Layout((4, 8, 8), (*BAR_FIELDS, "step"))
"""The key: number of the symbol, length, start. `step` is the number of what wrote it last."""


def packed(columns: NDArray[np.int64]) -> Binary:
    """Return int64[k, n] as bytes."""
    return Binary(columns.astype("<i8", copy=False).tobytes())


def unpacked(data: bytes, rows: int) -> NDArray[np.int64]:
    """Return what `packed` made of int64[rows, n]."""
    return np.frombuffer(data, "<i8").reshape(rows, -1)


def named(names: Sequence[str], values: Sequence[int]) -> dict[str, Any]:
    """Return a document of int64."""
    return {name: Int64(value) for name, value in zip(names, values, strict=True)}
