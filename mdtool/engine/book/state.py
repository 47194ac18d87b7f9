"""The state of many order books, grown as records need it, and changed by the kernel alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from mdtool.core.batch import Batch
from mdtool.core.dtypes import MBO, MBP1, MBP10
from mdtool.core.instruments import with_room
from mdtool.core.records import Records
from mdtool.engine.book import kernel as k

Depth = Literal[1, 10]

FIRST_ROWS: Final = 1024
EMIT_ROWS: Final = 8192
_NO_OUTPUT: Final = np.empty((0, 6 + 4), np.int64)
_NOTHING_MADE: Final = np.empty(0, np.uint32)


class Books:
    """L3 order books of every instrument of the MBO records that are applied to it.

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
            rows=np.zeros(16, np.int64),
            sizes=np.zeros(k.Z_WIDTH, np.int64),
        )
        self.state.sizes[[k.Z_FREE_ORDER, k.Z_FREE_LEVEL]] = k.NONE

    def apply(self, batch: Batch) -> None:
        """Apply MBO records, in their order.

        Parameters
        ----------
        batch : Batch
            Of MBO records of any instruments, interleaved as they arrived.
        """
        self._make_room(batch)
        done = 0
        while done < len(batch):
            done = self._run(batch, done, _NO_OUTPUT, _NOTHING_MADE)

    def mark_partial(self) -> None:
        """Mark every book partial until it is cleared: records of its stream were lost."""
        self.state.books[: len(self), k.B_UNKNOWN_SIDES] = k.BOTH_SIDES

    def events(self, batch: Batch, depth: Depth = 10) -> Iterator[Batch]:
        """Apply MBO records and yield the depth records that they make.

        Parameters
        ----------
        batch : Batch
            Of MBO records.
        depth : {1, 10}
            How many levels a record shows, and how near the top a change must be to give one.

        Yields
        ------
        Batch
            Of MBP1 or MBP10, at most `EMIT_ROWS` at once, fresh arrays. Records are applied as the
            results are taken; an iteration that is broken off leaves the rest unapplied.
        """
        dtype = MBP10 if depth == 10 else MBP1
        self._make_room(batch)
        done = 0
        while done < len(batch):
            n_rows = min(EMIT_ROWS, len(batch) - done)
            out = np.empty((n_rows, dtype.itemsize // 8), np.int64)
            made = np.empty(n_rows, np.uint32)
            self.state.sizes[k.Z_EMITTED] = 0
            done = self._run(batch, done, out, made)
            if emitted := int(self.state.sizes[k.Z_EMITTED]):
                records = out[:emitted].reshape(-1).view(dtype)
                yield Batch(records, batch.instruments, made[:emitted])

    def states(self, batch: Batch, depth: int) -> Iterator[k.Words]:
        """Apply MBO records and yield what the book of each looks like after it.

        Parameters
        ----------
        batch : Batch
            Of MBO records.
        depth : int
            How many levels of a side are shown, from 1.

        Yields
        ------
        int64[m, 6 + 4 * depth + STATE_WORDS]
            A row for each record, at most `EMIT_ROWS` at once, fresh arrays: the record and the
            levels as 64-bit words of an MBP layout, and what the kernel says of `STATE_WORDS`.
            Records are applied as the results are taken.
        """
        self._make_room(batch)
        done = 0
        while done < len(batch):
            n_rows = min(EMIT_ROWS, len(batch) - done)
            out = np.empty((n_rows, 6 + 4 * depth + k.STATE_WORDS), np.int64)
            self.state.sizes[k.Z_EMITTED] = 0
            done = self._run(batch, done, out, np.empty(n_rows, np.uint32))
            if emitted := int(self.state.sizes[k.Z_EMITTED]):
                yield out[:emitted]

    def copy(self) -> Books:
        """Return a copy of the books, which changes independently."""
        copied = Books()
        copied.state = k.State(*(array.copy() for array in self.state))
        return copied

    def __len__(self) -> int:
        """Return how many books there are."""
        return int(self.state.sizes[k.Z_BOOKS])

    def instruments(self) -> npt.NDArray[np.int64]:
        """Return the index of each book's instrument, in the order of their first records."""
        return self.state.books[: len(self), k.B_INSTRUMENT].copy()

    def row_of(self, instrument: int) -> int:
        """Return the row of an instrument's book in `state.books`.

        Raises
        ------
        KeyError
            When none of its records was applied yet.
        """
        row = int(self.state.rows[instrument]) - 1 if instrument < len(self.state.rows) else -1
        if row < 0:
            raise KeyError(instrument)
        return row

    def _make_room(self, batch: Batch) -> None:
        """Make room for the instruments of a batch."""
        rows = with_room(self.state.rows, batch.instrument, 0)
        self.state = self.state._replace(rows=rows)

    def _run(self, batch: Batch, first: int, out: k.Words, made: k.Indices) -> int:
        """Apply records until all are, or `out` is full, or something had to grow."""
        status = np.zeros(1, np.int64)
        words, instrument = words_of(batch.records), batch.instrument
        done = int(k.apply(words, instrument, first, self.state, out, made, status))
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
        return state._replace(books=_doubled(state.books), sides=_doubled(state.sides))
    return state


def words_of(records: Records) -> k.Words:
    """Return MBO records as the 64-bit words that the kernel reads, without a copy if they can be.

    They are always read-only, as what files hold is: for other arrays numba would compile again.
    """
    if records.dtype != MBO:
        raise TypeError(f"MBO records are expected, not {records.dtype}")
    words = np.require(records, requirements="C").view(np.int64).reshape(-1, k.MBO_WORDS)
    words = np.require(words, requirements="A")
    words.flags.writeable = False
    return words


def _doubled(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return a copy with room for twice as many rows."""
    grown = np.empty((2 * len(rows), *rows.shape[1:]), np.int64)
    grown[: len(rows)] = rows
    return grown
