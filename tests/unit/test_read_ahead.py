import asyncio
import threading

import pytest

from mdtool.adapters.read_ahead import AsyncReadAhead, ReadAhead


def test_everything_comes_in_order():
    assert list(ReadAhead(iter(range(1000)), depth=3)) == [*range(1000)]


def test_an_end_stays_an_end():
    ahead = ReadAhead(iter([1]), depth=1)
    assert [*ahead] == [1]
    assert [*ahead] == []


def test_what_the_iterator_raises_comes_after_what_it_yielded():
    def broken():
        yield 1
        yield 2
        raise ValueError("broken")

    ahead = ReadAhead(broken(), depth=5)
    assert [next(ahead), next(ahead)] == [1, 2]
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            next(ahead)


def test_it_is_no_further_ahead_than_it_may_be():
    made = []
    reached = threading.Event()

    def items():
        for item in range(100):
            made.append(item)
            if item == 3:
                reached.set()
            yield item

    ahead = ReadAhead(items(), depth=3)
    assert reached.wait(60), "three are made, and one waits for room"
    assert next(ahead) == 0
    assert len(made) <= 5
    ahead.close()


def test_closing_stops_the_iterator_and_waits_for_it():
    ended = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            ended.set()

    ahead = ReadAhead(items(), depth=2)
    next(ahead)
    ahead.close()
    del ahead
    assert ended.wait(60)


async def test_a_blocking_iterator_is_read_in_another_thread():
    asked = threading.Event()

    def source():
        yield 1
        asked.wait()
        yield 2

    taken = []
    async for item in AsyncReadAhead(source(), depth=2):
        taken.append(item)
        asked.set()
    assert taken == [1, 2]


async def test_what_a_loop_takes_is_not_made_far_ahead():
    made = []

    def source():
        for item in range(100):
            made.append(item)
            yield item

    async for item in AsyncReadAhead(source(), depth=2):
        await asyncio.sleep(0)
        assert len(made) <= item + 5


async def test_a_loop_gets_an_error_behind_what_was_yielded_and_an_end_again():
    def broken():
        yield 1
        raise ZeroDivisionError

    ahead = AsyncReadAhead(broken(), depth=2)
    assert await anext(ahead) == 1
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await anext(ahead)
    through = AsyncReadAhead(iter(()), depth=1)
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await anext(through)


async def test_closing_in_a_loop_waits_for_the_item_that_is_being_made():
    begun, may_end = threading.Event(), threading.Event()
    is_made = False

    def source():
        nonlocal is_made
        begun.set()
        may_end.wait()
        is_made = True
        yield 0

    ahead = AsyncReadAhead(source(), depth=1)
    await asyncio.to_thread(begun.wait)
    closing = asyncio.ensure_future(ahead.close())
    await asyncio.sleep(0)
    assert not closing.done()
    may_end.set()
    await closing
    assert is_made
