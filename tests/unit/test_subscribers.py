"""Waking readers: whom a change concerns, once, and nobody after the end."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mdtool.core.symbols import SymbolTable
from mdtool.services.aggregator.subscribers import Subscribers, Wakeups

TABLE = SymbolTable(["AAPL", "MSFT"])
AAPL, MSFT = (np.array([index], np.uint32) for index in (0, 1))


def step(wakeups: Wakeups) -> asyncio.Task[None]:
    return asyncio.ensure_future(anext(wakeups))


async def settled() -> None:
    """Let every task run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_first_step_does_not_wait():
    with Subscribers().join() as wakeups:
        await anext(wakeups)


async def test_a_reader_steps_for_its_own_symbol_only():
    subscribers = Subscribers()
    with subscribers.join("AAPL") as wakeups:
        await anext(wakeups)
        following = step(wakeups)
        subscribers.wake(TABLE, MSFT)
        await settled()
        assert not following.done()
        subscribers.wake(TABLE, AAPL)
        await following


async def test_a_reader_of_all_wakes_for_any_symbol_and_for_none():
    subscribers = Subscribers()
    with subscribers.join() as wakeups:
        await anext(wakeups)
        for symbols in (MSFT, np.empty(0, np.uint32)):
            subscribers.wake(TABLE, symbols)
            await anext(wakeups)


async def test_changes_between_two_steps_are_one():
    subscribers = Subscribers()
    with subscribers.join("AAPL") as wakeups:
        await anext(wakeups)
        for _ in range(3):
            subscribers.wake(TABLE, AAPL)
        await anext(wakeups)
        following = step(wakeups)
        await settled()
        assert not following.done()
        following.cancel()


@pytest.mark.parametrize("symbol", ["", "AAPL"])
async def test_closing_ends_current_and_later_readers(symbol):
    subscribers = Subscribers()
    with subscribers.join(symbol) as wakeups:
        await anext(wakeups)
        following = step(wakeups)
        await settled()
        subscribers.close()
        with pytest.raises(StopAsyncIteration):
            await following
    with subscribers.join(symbol) as wakeups:
        assert [seen async for seen in wakeups] == []


async def test_readers_are_removed_however_they_leave():
    subscribers = Subscribers()

    async def read(symbol):
        with subscribers.join(symbol) as wakeups:
            async for _ in wakeups:
                pass

    readers = [asyncio.create_task(read(symbol)) for symbol in ("", "AAPL", "AAPL", "MSFT")]
    await settled()
    assert len(subscribers) == 4
    readers[1].cancel()
    await settled()
    assert len(subscribers) == 3
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    assert len(subscribers) == 0
    with pytest.raises(ValueError, match="lost"), subscribers.join("AAPL"):
        raise ValueError("lost")
    assert len(subscribers) == 0
