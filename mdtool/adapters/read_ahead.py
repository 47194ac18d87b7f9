"""Iterators run ahead of whoever takes from them, each in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class _Runner(Generic[T]):
    """Runs an iterator in a thread, which hands over what is made and then how it ended."""

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._items = items
        self._room = threading.Semaphore(depth)
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def _hand_over(self, made: T | _Ended) -> None:
        raise NotImplementedError

    def _stop(self) -> None:
        """Have the thread end after the item that it is making."""
        self._is_closed = True
        self._room.release()

    def _run(self) -> None:
        try:
            for item in self._items:
                self._room.acquire()
                if self._is_closed:
                    return
                self._hand_over(item)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            self._hand_over(_Ended(error))
        else:
            self._hand_over(_Ended(None))


class ReadAhead(_Runner[T], Iterator[T]):
    """Yields what an iterator yields, some of it made before it is asked for.

    What the iterator raises is raised here, once all before it has been taken. It pays where both
    sides spend their time outside of Python: one decompressing, say, and the other in kernels.

    Parameters
    ----------
    items : iterator
        Runs in the thread; nothing else may touch what it uses before `close`.
    depth : int
        How many items it may be ahead.
    """

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._made: SimpleQueue[T | _Ended] = SimpleQueue()
        super().__init__(items, depth)

    def __next__(self) -> T:
        made = self._made.get()
        if isinstance(made, _Ended):
            self._made.put(made)
            raise made.error or StopIteration
        self._room.release()
        return made

    def close(self) -> None:
        """Stop the iterator after the item that it is making, and wait for that."""
        self._stop()
        self._thread.join()

    def _hand_over(self, made: T | _Ended) -> None:
        self._made.put(made)


class AsyncReadAhead(_Runner[T], AsyncIterator[T]):
    """As `ReadAhead`, for the event loop in which it is made: an iterator may block, that may not.

    The thread does not keep the process from ending.

    Parameters
    ----------
    items, depth
        As of `ReadAhead`.
    """

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._made: asyncio.Queue[T | _Ended] = asyncio.Queue()
        super().__init__(items, depth)

    async def __anext__(self) -> T:
        made = await self._made.get()
        if isinstance(made, _Ended):
            self._made.put_nowait(made)
            raise made.error or StopAsyncIteration
        self._room.release()
        return made

    async def close(self) -> None:
        """Stop the iterator after the item that it is making, and wait for that."""
        self._stop()
        await asyncio.to_thread(self._thread.join)

    def _hand_over(self, made: T | _Ended) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody takes it
            self._loop.call_soon_threadsafe(self._made.put_nowait, made)


class _Ended:
    """How an iterator ended: it raised this, None where it was through."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
