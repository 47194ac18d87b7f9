"""Consolidated depth: one ladder of a symbol for all publishers, after each change."""

from __future__ import annotations

import numpy as np

from mdtool.core.batch import Batch
from mdtool.core.instruments import Instruments
from mdtool.core.records import as_words
from mdtool.core.units import UNDEF_PRICE
from mdtool.engine.book.consolidate_kernel import NONE, join
from mdtool.engine.book.state import Depth


class Consolidation:
    """Joins the depth records of the books of a symbol at all publishers.

    The best levels of all are among the best of each, so that the records of the single books
    suffice.

    Parameters
    ----------
    instruments : Instruments
        Those of the books, one for each publisher.
    depth : {1, 10}
        How many levels a record shows.
    """

    def __init__(self, instruments: Instruments, depth: Depth) -> None:
        self._instruments = instruments
        empty = np.tile(np.array([UNDEF_PRICE, UNDEF_PRICE, 0, 0], np.int64), depth)
        self._empty = empty
        self._latest = np.empty((0, len(empty)), np.int64)
        self._shown = self._latest.copy()
        self._first_of = np.empty(0, np.int64)
        self._next_of = np.empty(0, np.int64)

    def update(self, batch: Batch) -> Batch:
        """Take depth records of single books; return those of the consolidated ones.

        Parameters
        ----------
        batch : Batch
            Of MBP1 or MBP10, as `Books.events` yields them.

        Returns
        -------
        Batch
            Records of publisher 0, perhaps none: each trade, and each change of the best levels;
            `depth` is the first level that changed.
        """
        instrument = batch.instrument
        self._make_room()
        words = as_words(batch.records).reshape(len(batch), -1)
        out = np.empty(words.shape, np.int64)
        made = np.empty(len(batch), np.uint32)
        n_made = join(
            words,
            instrument,
            self._first_of,
            self._next_of,
            self._latest,
            self._shown,
            np.zeros(len(self._first_of), np.int64),
            np.empty(len(self._empty), np.int64),
            out,
            made,
        )
        records = out[:n_made].reshape(-1).view(batch.records.dtype)
        return Batch(records, batch.instruments, made[:n_made])

    def _make_room(self) -> None:
        """Learn which instruments are of one symbol."""
        first_of = self._instruments.first_of_symbol
        if first_of is self._first_of:
            return
        self._first_of = first_of
        self._next_of = np.full(len(first_of), NONE)
        last: dict[int, int] = {}
        for index, first in enumerate(first_of.tolist()):
            if first in last:
                self._next_of[last[first]] = index
            last[first] = index
        n_new = len(first_of) - len(self._latest)
        if n_new > 0:
            rows = np.tile(self._empty, (n_new, 1))
            self._latest = np.concatenate([self._latest, rows])
            self._shown = np.concatenate([self._shown, rows])
