"""Work that blocks, off the event loop: worker threads, and iterators that read ahead.

A single short call is `asyncio.to_thread`'s. Calls that share something, such as a connection, go
to one `WorkerThread`; a loop that runs as long as a service does is `run_in_thread`'s; an iterator
that blocks is read by an `AsyncReadAhead`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from queue import SimpleQueue
from typing import Any, Generic, ParamSpec, Self, TypeVar

from mdtool.core.read_ahead import Ended, Runner

T = TypeVar("T")
P = ParamSpec("P")


class WorkerThread:
    """A thread that runs functions in the order of their calls, for the loop that enters it.

    An async context manager: its end waits for the calls before it, and ends the thread. The thread
    does not keep the process from ending.

    Parameters
    ----------
    name : str
        The name of the thread, which errors show.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[_Call[Any] | None] = SimpleQueue()
        self._is_closed = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        context = contextvars.copy_context()  # which says whose work this is
        threading.Thread(
            target=context.run, args=(self._run,), name=self._name, daemon=True
        ).start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._is_closed = True
        self._calls.put(None)
        await self._ended

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns, or raise what it raises.

        When cancelled, a call that waits is not made; one that is running runs on, and its result
        is dropped.

        Raises
        ------
        RuntimeError
            After the end of the context.
        """
        if self._is_closed:
            raise RuntimeError(f"{self._name}: the worker thread has ended")
        result: asyncio.Future[T] = self._loop.create_future()
        self._calls.put(_Call(lambda: function(*args, **kwargs), result))
        return await result

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            if not call.result.done():
                self._make(call)
        self._notify(_settle, self._ended, None, None)

    def _make(self, call: _Call[T]) -> None:
        # Extensions in C may raise what no `except` catches.
        error: BaseException | None = RuntimeError(f"{self._name}: ended by a foreign exception")
        value = None
        try:
            value = call.function()
            error = None
        except BaseException as raised:  # noqa: BLE001 - it is raised by `run`
            error = raised
        finally:
            self._notify(_settle, call.result, value, error)

    def _notify(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function, *arguments)


class _Call(Generic[T]):
    """A function to call, and the future of its result."""

    __slots__ = ("function", "result")

    def __init__(self, function: Callable[[], T], result: asyncio.Future[T]) -> None:
        self.function = function
        self.result = result


def _settle(future: asyncio.Future[Any], value: object, error: BaseException | None) -> None:
    """Complete a future, in its loop, unless it was cancelled."""
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


async def run_in_thread(name: str, work: Callable[[], None], stop: Callable[[], None]) -> None:
    """Run `work` in a thread of its own until it ends; when cancelled, stop it and wait.

    Parameters
    ----------
    name : str
        The name of the thread.
    work : callable
        What it raises is raised here.
    stop : callable
        Makes `work` end soon; it may be called at any time, and more than once.
    """
    async with WorkerThread(name) as worker:
        try:
            await worker.run(work)
        finally:
            stop()


class AsyncReadAhead(Runner[T], AsyncIterator[T]):
    """Like `ReadAhead`, for the event loop that creates it: the iterator may block, the loop not.

    The thread does not keep the process from ending.

    Parameters
    ----------
    items, depth
        As of `ReadAhead`.
    """

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._made: asyncio.Queue[T | Ended] = asyncio.Queue()
        super().__init__(items, depth)

    async def __anext__(self) -> T:
        made = await self._made.get()
        if isinstance(made, Ended):
            self._made.put_nowait(made)
            raise made.error or StopAsyncIteration
        self._room.release()
        return made

    def abandon(self) -> None:
        """Stop the iterator after the item that it is making, which may take forever."""
        self._stop()

    async def close(self) -> None:
        """Stop the iterator after the item that it is making, and wait for that."""
        self._stop()
        await asyncio.to_thread(self._thread.join)

    def _pass_on(self, item: T | Ended) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody consumes
            self._loop.call_soon_threadsafe(self._made.put_nowait, item)
