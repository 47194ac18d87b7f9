"""The conflating hand-over."""

from __future__ import annotations

import asyncio

from mdtool.core.queues import Conflated


async def test_a_slow_reader_gets_the_latest_of_each_key():
    pending: Conflated[str, int] = Conflated()
    for key, value in [("AAPL", 1), ("MSFT", 2), ("AAPL", 3)]:
        pending.put(key, value)
    assert len(pending) == 2
    assert await pending.take() == {"AAPL": 3, "MSFT": 2}
    assert pending.conflated == 1


async def test_keys_come_in_the_order_in_which_they_changed_first():
    pending: Conflated[str, int] = Conflated()
    for key in ("C", "A", "B", "A", "C"):
        pending.put(key, 0)
    assert list(await pending.take()) == ["C", "A", "B"]


async def test_take_waits_until_there_is_something():
    pending: Conflated[str, int] = Conflated()
    reader = asyncio.create_task(pending.take())
    await asyncio.sleep(0)
    assert not reader.done()
    pending.put("AAPL", 1)
    assert await reader == {"AAPL": 1}


async def test_what_was_taken_does_not_come_again():
    pending: Conflated[str, int] = Conflated()
    pending.put("AAPL", 1)
    await pending.take()
    reader = asyncio.create_task(pending.take())
    await asyncio.sleep(0)
    assert not reader.done()
    pending.put("AAPL", 2)
    assert await reader == {"AAPL": 2}
    assert pending.conflated == 0


async def test_a_cancelled_reader_takes_nothing_away():
    pending: Conflated[str, int] = Conflated()
    reader = asyncio.create_task(pending.take())
    await asyncio.sleep(0)
    pending.put("AAPL", 1)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert await pending.take() == {"AAPL": 1}
