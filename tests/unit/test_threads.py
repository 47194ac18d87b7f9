import asyncio
import threading

import pytest

from mdtool.core.read_ahead import ReadAhead
from mdtool.core.threads import AsyncReadAhead, WorkerThread, run_in_thread


def test_everything_comes_in_order():
    assert list(ReadAhead(iter(range(1000)), depth=3)) == [*range(1000)]


def test_an_end_stays_an_end():
    ahead = ReadAhead(iter([1]), depth=1)
    assert [*ahead] == [1]
    assert [*ahead] == []


def test_an_error_of_the_iterator_follows_its_items():
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


async def test_items_for_a_loop_are_not_made_far_ahead():
    made = []

    def source():
        for item in range(100):
            made.append(item)
            yield item

    async for item in AsyncReadAhead(source(), depth=2):
        await asyncio.sleep(0)
        assert len(made) <= item + 5


async def test_a_loop_gets_an_error_after_the_items_and_a_repeated_end():
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


async def test_a_worker_runs_calls_in_order_in_one_thread():
    threads, made = set(), []

    def call(number, offset=0):
        threads.add(threading.get_ident())
        made.append(number)
        return number + offset

    async with WorkerThread("worker") as worker:
        calls = [asyncio.ensure_future(worker.run(call, n, offset=10)) for n in range(20)]
        assert await asyncio.gather(*calls) == [*range(10, 30)]
    assert made == [*range(20)]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_an_error_of_a_call_is_raised_and_the_next_call_runs():
    async with WorkerThread("worker") as worker:
        for error in (ValueError("broken"), SystemExit(3)):
            with pytest.raises(type(error)) as raised:
                await worker.run(_raise, error)
            assert raised.value is error
        assert await worker.run(int, "7") == 7


def _raise(error):
    raise error


async def test_a_cancelled_call_that_waits_is_not_made_and_one_that_runs_is_completed():
    begun, may_end, made = threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        may_end.wait()
        made.append("slow")

    async with WorkerThread("worker") as worker:
        running = asyncio.ensure_future(worker.run(slow))
        waiting = asyncio.ensure_future(worker.run(made.append, "waiting"))
        await asyncio.to_thread(begun.wait)
        for call in (running, waiting):
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert made == []
        may_end.set()
    assert made == ["slow"]


async def test_the_end_of_a_worker_waits_for_the_call_that_runs():
    begun, may_end = threading.Event(), threading.Event()

    def slow():
        begun.set()
        may_end.wait()

    worker = await WorkerThread("worker").__aenter__()
    call = asyncio.ensure_future(worker.run(slow))
    await asyncio.to_thread(begun.wait)
    closing = asyncio.ensure_future(worker.__aexit__(None, None, None))
    await asyncio.sleep(0)
    assert not closing.done()
    with pytest.raises(RuntimeError, match="worker: the worker thread has ended"):
        await worker.run(int)
    may_end.set()
    await closing
    await call


async def test_work_in_a_thread_is_stopped_when_it_is_cancelled_and_waited_for():
    begun, stopping, has_ended = threading.Event(), threading.Event(), False

    def work():
        nonlocal has_ended
        begun.set()
        stopping.wait()
        has_ended = True

    task = asyncio.ensure_future(run_in_thread("work", work, stopping.set))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert has_ended


async def test_an_error_of_work_in_a_thread_is_raised():
    with pytest.raises(ZeroDivisionError):
        await run_in_thread("work", lambda: _raise(ZeroDivisionError()), lambda: None)
