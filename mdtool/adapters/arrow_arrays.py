"""Conversions between numpy's and Arrow's arrays, over their buffers.

`pyarrow.array` and `to_numpy` do the same, but import pandas, which takes longer than most exports.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

PRICE: Final = pa.decimal128(19, 9)
TIME: Final = pa.timestamp("ns", "UTC")


def numbers(
    values: npt.NDArray[Any], kind: Any = None, known: npt.NDArray[np.bool_] | None = None
) -> Any:
    """Return an array, which shares the memory of contiguous values.

    Parameters
    ----------
    values : ndarray
        Integers of any width; or of 128 bits as int64[n, 2], low word first.
    kind : pyarrow.DataType, optional
        Another type of the same width.
    known : bool[n], optional
        Where False, the value is null.
    """
    kind = pa.from_numpy_dtype(values.dtype) if kind is None else kind
    values = np.ascontiguousarray(values)
    is_known = None if known is None else pa.py_buffer(np.packbits(known, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [is_known, pa.py_buffer(values)])


def decimals(prices: npt.NDArray[np.int64], known: npt.NDArray[np.bool_] | None = None) -> Any:
    """Return prices in units of 1e-9 as PRICE: 128-bit integers at the same scale."""
    return numbers(np.stack([prices, prices >> 63], axis=1), PRICE, known)


def characters(values: npt.NDArray[np.bytes_]) -> Any:
    """Return an array of strings from values of one width, without trailing NULs.

    Raises
    ------
    pyarrow.ArrowInvalid
        When a value is not UTF-8.
    """
    lengths = np.char.str_len(values)
    cells = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), values.itemsize)
    return _strings(lengths, cells[np.arange(cells.shape[1]) < lengths[:, None]])


def named(names: Iterable[str | None], indices: npt.NDArray[np.integer[Any]]) -> Any:
    """Return an array of strings: the name of each index, null where it is None."""
    listed = [*names]
    encoded = [(name or "").encode() for name in listed]
    lengths = np.array([*map(len, encoded)], np.int64)
    known = np.array([name is not None for name in listed], np.bool_)
    return _strings(lengths, b"".join(encoded), known).take(numbers(indices))


def integers(array: Any, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the values of an array without nulls, read-only, in its memory."""
    values = np.frombuffer(array.buffers()[1], dtype)
    return values[array.offset : array.offset + len(array)]


def _strings(
    lengths: npt.NDArray[np.int64], data: Any, known: npt.NDArray[np.bool_] | None = None
) -> Any:
    ends = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=ends[1:])
    is_known = None if known is None else pa.py_buffer(np.packbits(known, bitorder="little"))
    array = pa.StringArray.from_buffers(
        len(lengths), pa.py_buffer(ends), pa.py_buffer(data), is_known
    )
    array.validate(full=True)
    return array
