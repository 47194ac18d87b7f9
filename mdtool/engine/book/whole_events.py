"""Records held back until the event that they belong to has ended, so that books are seen whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.core.dtypes import MBO
from mdtool.core.records import Records
from mdtool.engine.book.event_kernel import mark_open
from mdtool.engine.book.state import words_of

MAX_OPEN_RECORDS: Final = 1 << 20
"""What is held back at most: the longest events are snapshots, of some ten thousand orders."""


class WholeEvents:
    """Passes on the records of events that have ended.

    An event is of one instrument at one publisher and ends with a record flagged F_LAST. Between
    its records a book may look crossed. An instrument's records stay in order; those of different
    instruments may overtake each other, which makes no difference to their books.

    Attributes
    ----------
    held : array of MBO
        Records of events that have not ended yet.
    forced : int
        How many records were passed on before their event had ended, because more than
        `MAX_OPEN_RECORDS` were held: their stream does not flag the ends of events.
    """

    def __init__(self, held: Records | None = None) -> None:
        self.held = np.empty(0, MBO) if held is None else held
        self.forced = 0

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
        ended = np.zeros(2 << (len(records) + len(self.held)).bit_length(), np.int64)
        later, later_open = _split(records, ended)
        earlier, earlier_open = _split(self.held, ended)
        self.held = np.concatenate([earlier_open, later_open])
        for whole in (earlier, later):
            if len(whole):
                yield whole
        if len(self.held) > MAX_OPEN_RECORDS:
            forced, self.held = self.held, np.empty(0, MBO)
            self.forced += len(forced)
            yield forced


def _split(records: Records, ended: npt.NDArray[np.int64]) -> tuple[Records, Records]:
    """Return the records of whole events and those of others, both in order.

    `ended` is the kernel's table of the books of which an event ends after these records.
    """
    marks = np.empty(len(records), np.bool_)
    n_open = int(mark_open(words_of(records), ended, marks))
    n_whole = len(records) - n_open
    if marks[n_whole:].all():
        return records[:n_whole], records[n_whole:]
    return records[~marks], records[marks]
