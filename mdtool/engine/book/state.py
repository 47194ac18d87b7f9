"""The state of many order books, grown as records need it, and changed by the kernel alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mdtool.core.dtypes import MBO, MBP1, MBP10
from mdtool.core.hash_kernel import move_rows
from mdtool.core.records import Records
from mdtool.engine.book import kernel as k

Depth = Literal[1, 10]

FIRST_ROWS: Final = 1024
EMIT_ROWS: Final = 8192
_NO_OUTPUT: Final = np.empty((0, 6 + 4), np.int64)


class BookKey(NamedTuple):
    """What a book is of: an instrument at a publisher (an exchange's feed)."""

    publisher_id: int
    instrument_id: int


class Books:
    """L3 order books of every instrument that the MBO records given to it speak of.

    Orders, levels and books have no fixed limit. Anomalies are counted, never raised.
    """

    def __init__(self) -> None:
        self.state = k.State(
            orders=np.empty((FIRST_ROWS, 8), np.int64),
            levels=np.empty((FIRST_ROWS, 8), np.int64),
            sides=np.empty((32, 3), np.int64),
            keys=np.empty(4 * FIRST_ROWS, np.int64),
            places=np.empty(4 * FIRST_ROWS, np.int64),
            ids=np.zeros((2 * FIRST_ROWS, 2), np.int64),
            books=np.empty((16, k.B_WIDTH), np.int64),
            finder=np.zeros((32, 2), np.int64),
            sizes=np.zeros(k.Z_WIDTH, np.int64),
        )
        self.state.sizes[[k.Z_FREE_ORDER, k.Z_FREE_LEVEL]] = k.NONE

    def apply(self, records: Records) -> None:
        """Apply MBO records, in their order.

        Parameters
        ----------
        records : MBO[n]
            Of any instruments and publishers, interleaved as they came.
        """
        words = words_of(records)
        done = 0
        while done < len(words):
            done = self._run(words, done, _NO_OUTPUT)

    def events(self, records: Records, depth: Depth = 10) -> Iterator[Records]:
        """Apply MBO records and yield the depth records that they make.

        Parameters
        ----------
        records : MBO[n]
        depth : {1, 10}
            How many levels a record shows, and how near the top a change must be to give one.

        Yields
        ------
        MBP1[m] or MBP10[m]
            At most `EMIT_ROWS` at once, fresh arrays. Records are applied as the results are
            taken; an iteration broken off leaves the rest of `records` unapplied.
        """
        dtype = MBP10 if depth == 10 else MBP1
        words = words_of(records)
        done = 0
        while done < len(words):
            out = np.empty((min(EMIT_ROWS, len(words) - done), dtype.itemsize // 8), np.int64)
            self.state.sizes[k.Z_EMITTED] = 0
            done = self._run(words, done, out)
            if emitted := int(self.state.sizes[k.Z_EMITTED]):
                yield out[:emitted].reshape(-1).view(dtype)

    def states(self, records: Records, depth: int) -> Iterator[k.Words]:
        """Apply MBO records and yield what the book of each looks like after it.

        Parameters
        ----------
        records : MBO[n]
        depth : int
            How many levels of a side are shown, from 1.

        Yields
        ------
        int64[m, 6 + 4 * depth + STATE_WORDS]
            A row for each record, at most `EMIT_ROWS` at once, fresh arrays: the record and the
            levels as 64-bit words of an MBP layout, and what the kernel says of `STATE_WORDS`.
            Records are applied as the results are taken.
        """
        words = words_of(records)
        done = 0
        while done < len(words):
            n_rows = min(EMIT_ROWS, len(words) - done)
            out = np.empty((n_rows, 6 + 4 * depth + k.STATE_WORDS), np.int64)
            self.state.sizes[k.Z_EMITTED] = 0
            done = self._run(words, done, out)
            if emitted := int(self.state.sizes[k.Z_EMITTED]):
                yield out[:emitted]

    def copy(self) -> Books:
        """Return books that stand where these do, and go their own way from there."""
        copied = Books()
        copied.state = k.State(*(array.copy() for array in self.state))
        return copied

    def __len__(self) -> int:
        """Return how many books there are."""
        return int(self.state.sizes[k.Z_BOOKS])

    def key_at(self, row: int) -> BookKey:
        """Return the key of the book in a row of `state.books`."""
        packed = int(self.state.books[row, k.B_KEY])
        return BookKey(packed & 0xFFFF, packed >> 16)

    def book_keys(self) -> list[BookKey]:
        """Return the key of every book, in the order in which they were first met."""
        return [self.key_at(row) for row in range(len(self))]

    def row_of(self, key: BookKey) -> int:
        """Return the row of a book in `state.books`.

        Raises
        ------
        KeyError
            When no record of `key` was applied yet.
        """
        packed = key.instrument_id << 16 | key.publisher_id
        rows = np.flatnonzero(self.state.books[: self.state.sizes[k.Z_BOOKS], k.B_KEY] == packed)
        if not len(rows):
            raise KeyError(key)
        return int(rows[0])

    def _run(self, words: k.Words, first: int, out: k.Words) -> int:
        """Apply records until all are, or `out` is full, or something had to grow."""
        status = np.zeros(1, np.int64)
        done = int(k.apply(words, first, self.state, out, status))
        self.state = _grown(self.state, int(status[0]))
        return done


def _grown(state: k.State, full: int) -> k.State:
    """Return the state with twice the room for what the kernel had none for."""
    if full == k.FULL_ORDERS:
        orders = _doubled(state.orders)
        ids = np.zeros((2 * len(orders), 2), np.int64)
        k.rehash_orders(state.ids, ids, orders)
        return state._replace(orders=orders, ids=ids)
    if full == k.FULL_LEVELS:
        return state._replace(levels=_doubled(state.levels))
    if full == k.FULL_POOL:
        return state._replace(keys=_doubled(state.keys), places=_doubled(state.places))
    if full == k.FULL_BOOKS:
        books = _doubled(state.books)
        finder = np.zeros((2 * len(books), 2), np.int64)
        move_rows(state.finder, finder)
        return state._replace(books=books, sides=_doubled(state.sides), finder=finder)
    return state


def words_of(records: Records) -> k.Words:
    """Return MBO records as the 64-bit words that the kernel reads, without a copy if they can be.

    They are always read-only, as what files hold is: for other arrays numba would compile again.
    """
    if records.dtype != MBO:
        raise TypeError(f"MBO records are wanted, not {records.dtype}")
    words = np.require(records, requirements="C").view(np.int64).reshape(-1, k.MBO_WORDS)
    words = np.require(words, requirements="A")
    words.flags.writeable = False
    return words


def _doubled(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return a copy with room for twice as many rows."""
    grown = np.empty((2 * len(rows), *rows.shape[1:]), np.int64)
    grown[: len(rows)] = rows
    return grown
