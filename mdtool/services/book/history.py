"""The records that were processed last, and the books that they began from."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Final

import numpy as np

from mdtool.core.dtypes import MBO
from mdtool.core.records import Records
from mdtool.engine.book.state import Books

_BLOCKS: Final = 2
_GATHERED: Final = 4_096
"""Arrays of fewer records are copied together, for what else they keep alive is more than they."""


class _Block:
    """Records that follow each other, and the books before the first of them."""

    __slots__ = ("_begins", "_gathering", "_pieces", "begin", "books", "filled")

    def __init__(self, begin: int, books: Books) -> None:
        self.begin = begin
        self.books = books
        self.filled = 0
        self._pieces: list[Records] = []
        self._begins: list[int] = []
        self._gathering = np.empty(0, MBO)

    @property
    def end(self) -> int:
        """The number of the record behind the last one."""
        return self.begin + self.filled

    def append(self, records: Records) -> None:
        if len(records) >= _GATHERED:
            self._add(records)
            return
        last = len(self._pieces[-1]) if self._pieces and self._is_gathering() else 0
        if last == 0 or last + len(records) > _GATHERED:
            last = 0
            self._gathering = np.empty(_GATHERED, MBO)
            self._add(self._gathering[:0])
        self._gathering[last : last + len(records)] = records
        self._pieces[-1] = self._gathering[: last + len(records)]
        self.filled += len(records)

    def read(self, number: int, n: int) -> Records:
        at = bisect_right(self._begins, number) - 1
        if at < 0:
            return self._gathering[:0]
        begin = number - self._begins[at]
        return self._pieces[at][begin : begin + n]

    def _add(self, piece: Records) -> None:
        self._pieces.append(piece)
        self._begins.append(self.end)
        self.filled += len(piece)

    def _is_gathering(self) -> bool:
        return self._pieces[-1].base is self._gathering


class History:
    """Keeps the last records in two blocks: when both are full, the older one goes.

    Records are counted from 0, in the order in which they were processed.

    Parameters
    ----------
    size : int
        How many records there is room for.
    """

    def __init__(self, size: int) -> None:
        self._block_size = size // _BLOCKS
        self._blocks = deque([_Block(0, Books())], maxlen=_BLOCKS)

    @property
    def first(self) -> int:
        """The number of the first record that is kept."""
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
        """Make room; `books` are as they stand behind the last record, and belong to the history.

        The oldest block is forgotten if there were two.
        """
        self._blocks.append(_Block(self.end, books))

    def append(self, records: Records) -> None:
        """Keep records, no more than there is room for. They are not to change."""
        self._blocks[-1].append(records)

    def books(self) -> Books:
        """Return books of the caller's own, as they were before the first record that is kept."""
        return self._blocks[0].books.copy()

    def read(self, number: int, n: int) -> Records:
        """Return at most `n` records from `number` on, none where there are none yet.

        They stay as they are also when they are forgotten here.
        """
        block = next((block for block in self._blocks if number < block.end), self._blocks[-1])
        return block.read(number, n)
