"""What a receiver that joined live has still to be sent."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mdtool.core.dtypes import MBO
from mdtool.services.replay.following import Following, LaggingError


def records(n: int) -> np.ndarray:
    return np.zeros(n, MBO)


async def test_records_are_taken_in_order():
    following = Following(1_000_000)
    first, second = records(2), records(3)
    following.put(first)
    following.put(second)
    assert await following.take() is first
    assert await following.take() is second


async def test_take_waits_for_what_comes():
    following = Following(1_000_000)
    taking = asyncio.create_task(following.take())
    await asyncio.sleep(0)
    assert not taking.done()
    following.put(records(1))
    assert len(await taking) == 1


async def test_the_end_comes_behind_what_is_kept():
    following = Following(1_000_000)
    following.put(records(1))
    following.close()
    assert len(await following.take()) == 1
    assert await following.take() is None
    assert await following.take() is None


async def test_too_much_drops_everything_until_it_is_caught_up():
    following = Following(10 * MBO.itemsize)
    following.put(records(6))
    following.put(records(5))
    following.put(records(1))
    for _ in range(2):
        with pytest.raises(LaggingError):
            await following.take()
    following.catch_up()
    following.put(records(10))
    assert len(await following.take()) == 10


async def test_room_comes_back_as_records_are_taken():
    following = Following(10 * MBO.itemsize)
    for _ in range(5):
        following.put(records(10))
        assert len(await following.take()) == 10
