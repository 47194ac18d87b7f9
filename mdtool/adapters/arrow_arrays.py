"""Arrow's arrays made of numpy's, and numpy's of Arrow's, over their buffers.

`pyarrow.array` and `to_numpy` do the same, but import pandas, which takes longer than most exports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mdtool.core.symbols import SymbolTable


def numbers(
    values: npt.NDArray[Any], kind: Any = None, known: npt.NDArray[np.bool_] | None = None
) -> Any:
    """Return an array, which shares the memory of values that are contiguous.

    Parameters
    ----------
    values : ndarray
        Integers of any width; or of 128 bits as int64[n, 2], low word first.
    kind : pyarrow.DataType, optional
        Another type than that of `values`, of the same width.
    known : bool[n], optional
        Where False, the value is null.
    """
    kind = pa.from_numpy_dtype(values.dtype) if kind is None else kind
    values = np.ascontiguousarray(values)
    is_known = None if known is None else pa.py_buffer(np.packbits(known, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [is_known, pa.py_buffer(values)])


def texts(values: Sequence[bytes]) -> Any:
    """Return an array of strings.

    Raises
    ------
    pyarrow.ArrowInvalid
        When a value is no UTF-8.
    """
    ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
    array = pa.StringArray.from_buffers(
        len(values), pa.py_buffer(ends), pa.py_buffer(b"".join(values))
    )
    array.validate(full=True)
    return array


def named(table: SymbolTable, indices: npt.NDArray[np.integer[Any]]) -> Any:
    """Return an array of strings: of each index, its name in `table`."""
    used, places = np.unique(indices, return_inverse=True)
    names = texts([table[index].encode() for index in used.tolist()])
    return names.take(numbers(places))


def integers(array: Any, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the values of an array without nulls, read-only, in the memory that it has."""
    values = np.frombuffer(array.buffers()[1], dtype)
    return values[array.offset : array.offset + len(array)]
