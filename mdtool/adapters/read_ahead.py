"""An iterator run ahead of whoever takes from it, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class ReadAhead(Iterator[T]):
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
        self._items = items
        self._room = threading.Semaphore(depth)
        self._made: SimpleQueue[T | _Ended] = SimpleQueue()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def __next__(self) -> T:
        made = self._made.get()
        if isinstance(made, _Ended):
            self._made.put(made)
            raise made.error
        self._room.release()
        return made

    def close(self) -> None:
        """Stop the iterator after the item that it is making, and wait for that."""
        self._is_closed = True
        self._room.release()
        self._thread.join()

    def _run(self) -> None:
        try:
            for item in self._items:
                self._room.acquire()
                if self._is_closed:
                    return
                self._made.put(item)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            self._made.put(_Ended(error))
        else:
            self._made.put(_Ended(StopIteration()))


class _Ended:
    """How an iterator ended: it raised this, StopIteration where it was through."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error
