"""Iterators that run ahead of their consumer in a thread.

Apart from what needs an event loop: commands that read a file do not import asyncio.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class Runner(Generic[T]):
    """Runs an iterator in a thread, which passes on each item and then how it ended."""

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._items = items
        self._room = threading.Semaphore(depth)
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def _pass_on(self, item: T | Ended) -> None:
        raise NotImplementedError

    def _stop(self) -> None:
        """End the thread after the item that the iterator is making."""
        self._is_closed = True
        self._room.release()

    def _run(self) -> None:
        try:
            for item in self._items:
                self._room.acquire()
                if self._is_closed:
                    break
                self._pass_on(item)
            if self._is_closed and isinstance(self._items, Generator):
                self._items.close()
        except BaseException as error:  # noqa: BLE001 - it is raised to the consumer
            self._pass_on(Ended(error))
        else:
            self._pass_on(Ended(None))


class ReadAhead(Runner[T], Iterator[T]):
    """Yields the items of an iterator that runs ahead in a thread.

    What the iterator raises is raised here, after the items before it. It pays where both sides
    spend their time outside of Python: one decompressing, say, and the other in kernels.

    Parameters
    ----------
    items : iterator
        Runs in the thread; nothing else may use its state before `close` returns.
    depth : int
        How many items it may be ahead.
    """

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._made: SimpleQueue[T | Ended] = SimpleQueue()
        super().__init__(items, depth)

    def __next__(self) -> T:
        made = self._made.get()
        if isinstance(made, Ended):
            self._made.put(made)
            raise made.error or StopIteration
        self._room.release()
        return made

    def close(self) -> None:
        """Stop the iterator after the item that it is making, and wait for that."""
        self._stop()
        self._thread.join()

    def _pass_on(self, item: T | Ended) -> None:
        self._made.put(item)


class Ended:
    """How an iterator ended: with this error, or None after its last item."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
