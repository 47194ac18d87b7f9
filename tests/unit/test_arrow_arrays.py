"""Conversions between numpy and Arrow, compared with those of pyarrow."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.adapters.arrow_arrays import characters, integers, named, numbers
from mdtool.core.symbols import SymbolTable


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_numbers_are_those_of_pyarrow(dtype):
    ends = np.iinfo(dtype)
    values = np.array([ends.min, 1, ends.max, 2], dtype)
    assert numbers(values).equals(pa.array(values))
    assert numbers(values[::2]).equals(pa.array(values[::2]))
    known = values != 1
    assert numbers(values, known=known).equals(pa.array(values, mask=~known))


@given(st.lists(st.text()))
def test_texts_are_those_of_pyarrow(values):
    every = np.arange(len(values))
    assert named(values, every).equals(pa.array(values, pa.string()))


@given(st.lists(st.text()), st.integers(1, 2))
def test_characters_are_those_of_pyarrow(values, step):
    cells = np.array([value.encode() for value in values], np.bytes_)[::step]
    assert characters(cells).equals(pa.array(cells.tolist(), pa.binary()).cast(pa.string()))


def test_values_that_are_not_text_are_rejected():
    with pytest.raises(pa.ArrowInvalid):
        characters(np.array([b"fine", b"\xff"]))


@given(st.lists(st.integers(0, 2)))
def test_names_stand_where_their_indices_do(indices):
    table = SymbolTable(["A", "B/C", "D"])
    expected = pa.array([table[index] for index in indices], pa.string())
    assert named(table, np.array(indices, np.uint32)).equals(expected)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.integers(0, 3))
def test_integers_come_back_also_of_a_slice(values, skipped):
    array = pa.array(values, pa.int64())[skipped:]
    assert integers(array, np.int64).tolist() == values[skipped:]
