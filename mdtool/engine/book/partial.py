"""Which books of a stream were ever partial, as they come to be."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mdtool.engine.book import kernel as k
from mdtool.engine.book.state import BookKey, Books


class PartialBook(NamedTuple):
    """A book that lacks orders from before its stream began, and its last record's ts_recv."""

    key: BookKey
    ts_recv: int


class PartialBooks:
    """Tells of each partial book once.

    Attributes
    ----------
    count : int
        How many there were.
    """

    def __init__(self) -> None:
        self.count = 0
        self._was_told = np.empty(0, np.bool_)

    def look(self, books: Books) -> list[PartialBook]:
        """Return those that are partial now and were not told of, in the order they were met."""
        rows = books.state.books[: len(books)]
        told = np.zeros(len(rows), np.bool_)
        told[: len(self._was_told)] = self._was_told
        is_partial = rows[:, k.B_UNKNOWN_SIDES] != 0
        new = np.flatnonzero(is_partial & ~told).tolist()
        self._was_told = told | is_partial
        self.count += len(new)
        return [PartialBook(books.key_at(row), int(rows[row, k.B_TS_RECV])) for row in new]
