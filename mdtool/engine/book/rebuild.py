"""Books rebuilt from whole events: records are buffered until their event has ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from mdtool.core.batch import Batch
from mdtool.core.dtypes import MBO
from mdtool.core.instruments import with_room
from mdtool.core.stream_warnings import warnings_in
from mdtool.engine.book.state import Books, words_of
from mdtool.engine.book.stream_kernel import mark_open

MAX_OPEN_RECORDS: Final = 1 << 20
"""The most records buffered: the longest events are snapshots, of some ten thousand orders."""

Split = tuple[Batch, Batch]
"""Records of events that have ended, and of others."""


class WholeEvents:
    """Yields the records of events that have ended.

    An event is of one instrument and ends with a record flagged F_LAST. Between
    its records a book may look crossed. An instrument's records stay in order; those of different
    instruments may overtake each other, which makes no difference to their books.

    Parameters
    ----------
    held, latest_ns : optional
        As the attributes, of a stream that is resumed.

    Attributes
    ----------
    held : Batch
        Records of events that have not ended yet, perhaps none.
    forced : int
        How many records were yielded before their event had ended, because more than
        `MAX_OPEN_RECORDS` were held: their stream does not flag the ends of events.
    """

    def __init__(self, held: Batch | None = None, latest_ns: int = 0) -> None:
        self.held = Batch.empty(MBO) if held is None else held
        self.forced = 0
        self._ended_in = np.empty(0, np.int64)
        self._latest = np.array([latest_ns])
        self._rounds = 0

    @property
    def latest_ns(self) -> int:
        """The latest ts_recv of all records, 0 before the first."""
        return int(self._latest[0])

    def feed(self, batch: Batch) -> Iterator[Batch]:
        """Take a stream's next records; yield those, held ones too, whose events have ended.

        Parameters
        ----------
        batch : Batch
            Of MBO records.

        Yields
        ------
        Batch
            At most two, neither of them empty.
        """
        self._rounds += 1
        later, later_open = self._split(batch)
        earlier, earlier_open = self._split(self.held)
        self.held = Batch.joined([earlier_open, later_open])
        for whole in (earlier, later):
            if len(whole):
                yield whole
        if len(self.held) > MAX_OPEN_RECORDS:
            forced, self.held = self.held, Batch.empty(MBO)
            self.forced += len(forced)
            yield forced

    def release(self) -> Batch:
        """Return the held records, which are held no longer: their events may never end."""
        held, self.held = self.held, Batch.empty(MBO)
        return held

    def _split(self, batch: Batch) -> Split:
        """Return the records of events that end in a batch, or in one split before in the round."""
        self._ended_in = with_room(self._ended_in, batch.instrument, 0)
        marks = np.empty(len(batch), np.bool_)
        n_open = mark_open(
            words_of(batch.records),
            batch.instrument,
            self._ended_in,
            self._rounds,
            self._latest,
            marks,
        )
        n_whole = len(batch) - n_open
        if marks[n_whole:].all():
            return batch[:n_whole], batch[n_whole:]
        return batch[~marks], batch[marks]


class Rebuild:
    """The books of a stream as they are between its events.

    Parameters
    ----------
    books : Books, optional
        The state of a stream that is resumed, with `held` and `latest_ns`; by default a stream
        begins.

    Attributes
    ----------
    books : Books
    events : WholeEvents
        Holds the records of events that have not ended: they are in no book yet.
    """

    def __init__(
        self, books: Books | None = None, held: Batch | None = None, latest_ns: int = 0
    ) -> None:
        self.books = Books() if books is None else books
        self.events = WholeEvents(held, latest_ns)

    @property
    def latest_ns(self) -> int:
        """The latest index timestamp of all records, 0 before the first."""
        return self.events.latest_ns

    def update(self, batch: Batch) -> None:
        """Take the stream's next MBO or control records, perhaps none.

        Where a warning says that records were lost, events that have not ended are applied as far
        as they came, and every book is partial until it is cleared.
        """
        if batch.records.dtype == MBO:
            for whole in self.events.feed(batch):
                self.books.apply(whole)
        elif warnings_in(batch.records):
            held = self.events.release()
            if len(held):
                self.books.apply(held)
            self.books.mark_partial()
