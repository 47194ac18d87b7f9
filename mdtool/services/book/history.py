"""The records that were processed last, and the books that they began from."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

from mdtool.core.dtypes import MBO
from mdtool.core.records import Records
from mdtool.engine.book.state import Books

_BLOCKS: Final = 2


class _Block:
    """Records that follow each other, and the books before the first of them."""

    __slots__ = ("begin", "books", "filled", "records")

    def __init__(self, begin: int, size: int, books: Books) -> None:
        self.begin = begin
        self.books = books
        self.records = np.empty(size, MBO)
        self.filled = 0

    @property
    def end(self) -> int:
        """The number of the record behind the last one."""
        return self.begin + self.filled


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
        self._blocks = deque([_Block(0, self._block_size, Books())], maxlen=_BLOCKS)

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
        self._blocks.append(_Block(self.end, self._block_size, books))

    def append(self, records: Records) -> None:
        """Keep records, no more than there is room for."""
        block = self._blocks[-1]
        block.records[block.filled : block.filled + len(records)] = records
        block.filled += len(records)

    def books(self) -> Books:
        """Return books of the caller's own, as they were before the first record that is kept."""
        return self._blocks[0].books.copy()

    def read(self, number: int, n: int) -> Records:
        """Return at most `n` records from `number` on, none where there are none yet.

        They stay as they are also when they are forgotten here.
        """
        block = next((block for block in self._blocks if number < block.end), self._blocks[-1])
        begin = number - block.begin
        return block.records[begin : min(begin + n, block.filled)]
