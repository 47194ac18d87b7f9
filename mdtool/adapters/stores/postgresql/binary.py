"""Columns of integers between arrays and PostgreSQL's binary formats.

Sources: "COPY", binary format, in PostgreSQL's documentation; `array_send` for arrays.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from psycopg.adapt import Dumper
from psycopg.pq import Format

COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
"""The beginning of a copy: no flags, no extension."""
COPY_TRAILER: Final = b"\xff\xff"
_BYTES: Final = 8
_BIGINT_OID: Final = 20
_BIGINTS_OID: Final = 1016
_ELEMENT: Final = np.dtype([("bytes", ">i4"), ("value", ">i8")])
_HEAD: Final = struct.Struct("!iiIii")
"""Dimensions, whether there are nulls, the type of elements, their number, the first index."""
_EMPTY: Final = struct.pack("!iiI", 0, 0, _BIGINT_OID)


class ColumnDumper(Dumper):
    """Passes an array of integers, of one dimension, to a statement as a bigint[]."""

    format = Format.BINARY
    oid = _BIGINTS_OID

    def dump(self, obj: NDArray[Any]) -> bytes:
        """Return the array as it is sent."""
        if not len(obj):
            return _EMPTY
        elements = np.empty(len(obj), _ELEMENT)
        elements["bytes"] = _BYTES
        elements["value"] = obj
        return _HEAD.pack(1, 0, _BIGINT_OID, len(obj), 1) + elements.tobytes()


def copied_rows(columns: NDArray[np.int64]) -> bytes:
    """Return int64[columns, n] as the rows of a copy, all bigints."""
    rows = np.empty(columns.shape[1], _row(len(columns)))
    rows["columns"] = len(columns)
    rows["elements"]["bytes"] = _BYTES
    rows["elements"]["value"] = columns.T
    return rows.tobytes()


def read_rows(pieces: Iterable[bytes | bytearray | memoryview], columns: int) -> NDArray[np.int64]:
    """Return the rows of a whole copy of bigints, int64[columns, n].

    Raises
    ------
    ValueError
        When there are other columns, or a value is null.
    """
    rows = np.frombuffer(b"".join(pieces)[len(COPY_HEADER) : -len(COPY_TRAILER)], _row(columns))
    if (rows["elements"]["bytes"] != _BYTES).any():
        raise ValueError("a copied value is not a bigint")
    return np.ascontiguousarray(rows["elements"]["value"].T, np.int64)


def _row(columns: int) -> np.dtype[np.void]:
    """Return the dtype of a copied row of so many bigints, none of which is null."""
    return np.dtype([("columns", ">i2"), ("elements", _ELEMENT, (columns,))])
