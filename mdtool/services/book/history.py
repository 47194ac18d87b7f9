"""The latest records of a stream, the books before them, and the readers that they wait for."""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from mdtool.core.batch import Batch
from mdtool.core.dtypes import MBO
from mdtool.engine.book.state import Books

CHUNK_RECORDS: Final = 1 << 15
"""The most records that are processed at once: the room that the history keeps free."""
_BLOCKS: Final = 2
_GATHERED: Final = 4_096
"""Shorter arrays are copied together: a view of a few records keeps all of its buffer alive."""
_LEAST_CHECK_S: Final = 0.01


class _Block:
    """Consecutive records, and the books before the first of them."""

    __slots__ = ("_begins", "_gathered", "_gathering", "_pieces", "begin", "books", "filled")

    def __init__(self, begin: int, books: Books) -> None:
        self.begin = begin
        self.books = books
        self.filled = 0
        self._pieces: list[Batch] = []
        self._begins: list[int] = []
        self._gathering = np.empty(0, MBO)
        self._gathered = np.empty(0, np.uint32)
        """The instruments of what is gathered."""

    @property
    def end(self) -> int:
        """The number of the record after the last one."""
        return self.begin + self.filled

    def append(self, batch: Batch) -> None:
        if len(batch) >= _GATHERED:
            self._add(batch)
            return
        last = len(self._pieces[-1]) if self._pieces and self._is_gathering() else 0
        if last == 0 or last + len(batch) > _GATHERED:
            last = 0
            self._gathering = np.empty(_GATHERED, MBO)
            self._gathered = np.empty(_GATHERED, np.uint32)
            self._add(Batch(self._gathering[:0], batch.instruments, self._gathered[:0]))
        end = last + len(batch)
        self._gathering[last:end] = batch.records
        self._gathered[last:end] = batch.instrument
        self._pieces[-1] = Batch(self._gathering[:end], batch.instruments, self._gathered[:end])
        self.filled += len(batch)

    def read(self, number: int, n: int) -> Batch:
        at = bisect_right(self._begins, number) - 1
        if at < 0:
            return Batch.empty(MBO)
        begin = number - self._begins[at]
        return self._pieces[at][begin : begin + n]

    def _add(self, piece: Batch) -> None:
        self._pieces.append(piece)
        self._begins.append(self.end)
        self.filled += len(piece)

    def _is_gathering(self) -> bool:
        return self._pieces[-1].records.base is self._gathering


class History:
    """Keeps the latest records in two blocks: when both are full, the older one is dropped.

    Records are counted from 0, in the order in which they were processed.

    Parameters
    ----------
    size : int
        How many records there is room for.
    """

    def __init__(self, size: int) -> None:
        self._block_size = size // _BLOCKS
        self._blocks = deque([_Block(0, Books())], maxlen=_BLOCKS)
        self._losses: list[int] = []
        """The numbers of the records before which others were lost."""

    @property
    def first(self) -> int:
        """The number of the oldest record in the history."""
        return self._blocks[0].begin

    @property
    def end(self) -> int:
        """How many records there were in all."""
        return self._blocks[-1].end

    @property
    def room(self) -> int:
        """How many records can be appended before `open_block`."""
        return self._block_size - self._blocks[-1].filled

    @property
    def next_first(self) -> int:
        """What `first` is after the next `open_block`."""
        return self._blocks[0].end if len(self._blocks) == _BLOCKS else self.first

    def open_block(self, books: Books) -> None:
        """Make room; `books` are those after the last record, and belong to the history.

        The older of two blocks is dropped.
        """
        self._blocks.append(_Block(self.end, books))
        self._losses = [number for number in self._losses if number >= self.first]

    def append(self, batch: Batch) -> None:
        """Append records, no more than there is room for. They must not change."""
        self._blocks[-1].append(batch)

    def note_loss(self) -> None:
        """Note that the stream has lost records after the last one."""
        self._losses.append(self.end)

    def has_lost_before(self, number: int) -> bool:
        """Return whether the stream has lost records just before one in the history."""
        return number in self._losses

    def books(self) -> Books:
        """Return a copy of the books before the oldest record in the history."""
        return self._blocks[0].books.copy()

    def read(self, number: int, n: int) -> Batch:
        """Return at most `n` records from `number` on, none where there are none yet.

        They stay valid when they are dropped here. Where the stream has lost records, the next ones
        are those of another call.
        """
        n = min([n, *(loss - number for loss in self._losses if loss > number)])
        block = next((block for block in self._blocks if number < block.end), self._blocks[-1])
        return block.read(number, n)


@dataclass(slots=True, eq=False)
class Cursor:
    """A reader's place in a history.

    Attributes
    ----------
    number : int
        The number of the record that it reads next.
    missed : int
        Records that were dropped before it read them.
    writing_since_s : float or None
        When it was sent what it has not read yet, on the loop's clock.
    """

    number: int = 0
    missed: int = 0
    writing_since_s: float | None = None


class Backpressure:
    """Blocks processing while its next records would make a reader miss some.

    A reader that has not read for `patience_s` does not block processing.

    Parameters
    ----------
    history : History
    patience_s : float
    """

    def __init__(self, history: History, patience_s: float) -> None:
        self._history = history
        self._patience_s = patience_s
        self._cursors: set[Cursor] = set()
        self._resume: Callable[[], None] | None = None
        self._next_check: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def joined(self, cursor: Cursor) -> Iterator[None]:
        """Let a reader block processing within the block."""
        self._cursors.add(cursor)
        try:
            yield
        finally:
            self._cursors.discard(cursor)
            self.moved()

    def is_blocking(self) -> bool:
        """Return whether the next records would make a reader miss some."""
        history = self._history
        if history.room >= CHUNK_RECORDS:
            return False
        now_s = asyncio.get_running_loop().time()
        return any(
            cursor.number < history.next_first and self._is_reading(cursor, now_s)
            for cursor in self._cursors
        )

    def when_free(self, resume: Callable[[], None]) -> None:
        """Call `resume` once, when no reader blocks processing any more."""
        self._resume = resume
        self._check()

    def moved(self) -> None:
        """Take note that a reader has read something, or left."""
        if self._resume is not None and not self.is_blocking():
            resume, self._resume = self._resume, None
            resume()

    def _is_reading(self, cursor: Cursor, now_s: float) -> bool:
        since_s = cursor.writing_since_s
        return since_s is None or now_s - since_s < self._patience_s

    def _check(self) -> None:
        """Check now and then whether the readers that block have stopped reading."""
        if self._next_check is not None:
            self._next_check.cancel()
        self.moved()
        if self._resume is not None:
            loop = asyncio.get_running_loop()
            self._next_check = loop.call_later(self._patience_s / 4 + _LEAST_CHECK_S, self._check)
