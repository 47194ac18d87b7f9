"""Records held back until the event that they belong to has ended, so that books are seen whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from mdtool.core.dtypes import MBO
from mdtool.core.records import Records
from mdtool.engine.book.event_kernel import FULL, MAX_GENERATION, mark_open
from mdtool.engine.book.state import words_of

MAX_OPEN_RECORDS: Final = 1 << 20
"""What is held back at most: the longest events are snapshots, of some ten thousand orders."""
_FIRST_ROWS: Final = 1 << 10

Split = tuple[Records, Records]
"""Records of events that have ended, and of others."""


class WholeEvents:
    """Passes on the records of events that have ended.

    An event is of one instrument at one publisher and ends with a record flagged F_LAST. Between
    its records a book may look crossed. An instrument's records stay in order; those of different
    instruments may overtake each other, which makes no difference to their books.

    Parameters
    ----------
    held, latest_ns : optional
        As the attributes, of a stream that is taken up again.

    Attributes
    ----------
    held : array of MBO
        Records of events that have not ended yet.
    forced : int
        How many records were passed on before their event had ended, because more than
        `MAX_OPEN_RECORDS` were held: their stream does not flag the ends of events.
    """

    def __init__(self, held: Records | None = None, latest_ns: int = 0) -> None:
        self.held = np.empty(0, MBO) if held is None else held
        self.forced = 0
        self._table = np.zeros(_FIRST_ROWS, np.int64)
        self._generation = 0
        self._latest = np.array([latest_ns])

    @property
    def latest_ns(self) -> int:
        """The latest ts_recv of all records, 0 before the first."""
        return int(self._latest[0])

    def feed(self, records: Records) -> Iterator[Records]:
        """Take the next records of a stream; yield those, held ones too, whose events have ended.

        Parameters
        ----------
        records : MBO[n]

        Yields
        ------
        MBO[m]
            At most two arrays, neither of them empty.
        """
        split = None
        while split is None:
            split = self._split(records)
        (earlier, earlier_open), (later, later_open) = split
        self.held = np.concatenate([earlier_open, later_open])
        for whole in (earlier, later):
            if len(whole):
                yield whole
        if len(self.held) > MAX_OPEN_RECORDS:
            forced, self.held = self.held, np.empty(0, MBO)
            self.forced += len(forced)
            yield forced

    def _split(self, records: Records) -> tuple[Split, Split] | None:
        """Return what is held and what has come, each as the records of whole events and others.

        None when the table was too small: it has been doubled.
        """
        if self._generation == MAX_GENERATION:
            self._table[:] = 0
            self._generation = 0
        self._generation += 1
        ended = np.zeros(1, np.int64)
        splits = []
        for part in (records, self.held):
            marks = np.empty(len(part), np.bool_)
            n_open = mark_open(
                words_of(part), self._table, self._generation, ended, self._latest, marks
            )
            if n_open == FULL:
                self._table = np.zeros(2 * len(self._table), np.int64)
                return None
            n_whole = len(part) - n_open
            is_tail = bool(marks[n_whole:].all())
            splits.append(
                (part[:n_whole], part[n_whole:]) if is_tail else (part[~marks], part[marks])
            )
        return splits[1], splits[0]
