"""Conversions between numpy's and Arrow's arrays, over their buffers.

`pyarrow.array` and `to_numpy` do the same, but import pandas, which takes longer than most exports.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mdtool.core.units import PRICE_SCALE, format_price

PRICE: Final = pa.decimal128(19, 9)
TIME: Final = pa.timestamp("ns", "UTC")
LOTS: Final = "mdtool.lots"
"""The key of a file's metadata with the lots of its symbols, where one is not 1, as JSON."""


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


def floats(prices: npt.NDArray[np.int64], known: npt.NDArray[np.bool_] | None = None) -> Any:
    """Return prices in units of 1e-9 as doubles, the nearest to each."""
    return numbers(prices / PRICE_SCALE, known=known)


def characters(values: npt.NDArray[np.bytes_]) -> Any:
    """Return an array of strings from values of one width, without trailing NULs.

    Raises
    ------
    pyarrow.ArrowInvalid
        When a value is not UTF-8.
    """
    if values.itemsize == 1:
        return coded_characters(values).dictionary_decode()
    lengths = np.char.str_len(values)
    cells = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), values.itemsize)
    return _strings(lengths, cells[np.arange(cells.shape[1]) < lengths[:, None]])


def coded_characters(values: npt.NDArray[np.bytes_]) -> Any:
    """Return a dictionary array of strings from single bytes, empty for NUL.

    Raises
    ------
    pyarrow.ArrowInvalid
        When a value is not ASCII.
    """
    codes = np.ascontiguousarray(values).view(np.uint8)
    is_there = np.zeros(256, np.bool_)
    is_there[codes] = True
    used = np.flatnonzero(is_there).astype(np.uint8)
    number = np.zeros(256, np.int16)
    number[used] = np.arange(len(used))
    texts = _strings((used != 0).astype(np.int64), used[used != 0].tobytes())
    return pa.DictionaryArray.from_arrays(numbers(number[codes]), texts)


def named(names: Iterable[str | None], indices: npt.NDArray[np.integer[Any]]) -> Any:
    """Return an array of strings: the name of each index, null where it is None."""
    return coded_names(names, indices).dictionary_decode()


def coded_names(names: Iterable[str | None], indices: npt.NDArray[np.integer[Any]]) -> Any:
    """Return a dictionary array of strings: the name of each index, null where it is None."""
    number: dict[str, int] = {}
    codes = np.array(
        [-1 if name is None else number.setdefault(name, len(number)) for name in names], np.int32
    )
    found = codes[indices]
    encoded = [name.encode() for name in number]
    texts = _strings(np.array([*map(len, encoded)], np.int64), b"".join(encoded))
    known = found >= 0
    return pa.DictionaryArray.from_arrays(
        numbers(np.maximum(found, 0), known=None if known.all() else known), texts
    )


def integers(array: Any, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the values of an array without nulls, read-only, in its memory."""
    values = np.frombuffer(array.buffers()[1], dtype)
    return values[array.offset : array.offset + len(array)]


def _strings(lengths: npt.NDArray[np.int64], data: Any) -> Any:
    ends = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=ends[1:])
    array = pa.StringArray.from_buffers(len(lengths), pa.py_buffer(ends), pa.py_buffer(data))
    array.validate(full=True)
    return array


def lots_text(lots: Mapping[str, int]) -> str:
    """Return lots in units of 1e-9 as metadata has them: `{"BTC/USD":"0.00001"}`."""
    steps = {symbol: format_price(lot) for symbol, lot in sorted(lots.items())}
    return json.dumps(steps, separators=(",", ":"))
