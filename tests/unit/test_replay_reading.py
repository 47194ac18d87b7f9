"""The backlog of a stream, and readers of one whose positions rise."""

from __future__ import annotations

import numpy as np
import pytest

from mdtool.core.dtypes import MBO
from mdtool.services.replay.reading import Backlog, ForwardReader, Part
from tests.support.instruments import batch


def stream(*lengths: int) -> list[np.ndarray]:
    """Arrays whose order ids count through."""
    arrays, begin = [], 0
    for length in lengths:
        array = np.zeros(length, MBO)
        array["order_id"] = np.arange(begin, begin + length)
        arrays.append(array)
        begin += length
    return arrays


def backlog(limit: int, *lengths: int) -> Backlog:
    kept = Backlog(limit * MBO.itemsize)
    for array in stream(*lengths):
        kept.append(Part(array, 0))
    return kept


def test_all_records_are_stored_while_there_is_room():
    kept = backlog(10, 3, 1, 4)
    for position in range(8):
        assert kept.read(position)["order_id"][0] == position
    assert [len(kept.read(position)) for position in (0, 1, 3, 4, 7)] == [3, 2, 1, 4, 1]


def test_the_oldest_go_first():
    kept = backlog(5, 3, 1, 4)
    assert kept.read(0) is None
    assert kept.read(2) is None
    assert kept.read(3)["order_id"].tolist() == [3]


def test_the_last_array_is_stored_whatever_its_size():
    kept = backlog(1, 3, 9)
    assert kept.read(2) is None
    assert len(kept.read(3)) == 9


async def batches_of(*lengths: int):
    for array in stream(*lengths):
        yield batch(array)


async def test_a_reader_reads_from_any_later_position():
    reader = ForwardReader(batches_of(3, 1, 4))
    for position in (0, 0, 2, 3, 6, 7):
        records = (await reader.read(position)).records
        assert records["order_id"][0] == position
        assert len(records) <= 4


async def test_a_reader_ends_with_its_stream():
    reader = ForwardReader(batches_of(3, 1))
    with pytest.raises(StopAsyncIteration):
        await reader.read(4)
