"""Records that are due, sent in one pass to all sessions that are at the live point."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

import numpy as np

from mdtool.core.dtypes import RTYPE_SYMBOL_MAPPING, RTYPE_SYSTEM
from mdtool.core.records import CLOCKS, Records, index_timestamps, timestamps
from mdtool.services.live_gateway.output import Form, encoded
from mdtool.services.live_gateway.subscriptions import Ids
from mdtool.services.replay.reading import Part
from mdtool.services.replay.runs import Run

_MAX_RECORDS: Final = 4_096
"""Sessions choose from larger arrays by themselves: they take turns then."""
_OF_SESSIONS: Final = frozenset({RTYPE_SYMBOL_MAPPING, RTYPE_SYSTEM})
"""What changes what a session gets, or is for all of them."""


class Encoded(NamedTuple):
    """Bytes of records, and how many records these are."""

    data: bytes | memoryview
    n_records: int


class DueArray:
    """Records of one schema that are due, encoded once for all who get the same of them.

    Parameters
    ----------
    records : structured array, shape (n,)
    schema : str or None
        That for which they were made; None for records of the input.
    end_ns : int or None
        Where they are those of an interval: its end, exclusive.
    """

    def __init__(self, records: Records, schema: str | None, end_ns: int | None) -> None:
        self.schema = schema
        self.rtype = int(records["rtype"][0])
        self.end_ns = end_ns
        self._records = records
        self._instruments = records["instrument_id"].tolist()
        self._ids = frozenset(self._instruments)
        self._encoded: dict[tuple[frozenset[int], Form], Encoded] = {}

    def of(self, ids: Ids, form: Form) -> Encoded:
        """Return the records of some instruments in a form."""
        chosen = self._ids if ids is None else self._ids & ids
        found = self._encoded.get((chosen, form))
        if found is None:
            found = self._encoded[chosen, form] = self._encode(chosen, form)
        return found

    def _encode(self, chosen: frozenset[int], form: Form) -> Encoded:
        records = self._records
        if len(chosen) < len(self._ids):
            records = records[np.array([each in chosen for each in self._instruments])]
        return Encoded(encoded(records, form) if len(records) else b"", len(records))


class Due:
    """What has become due at one moment: records of the input, and what was made of them.

    Parameters
    ----------
    part : Part
    begin : int
        Its position.

    Attributes
    ----------
    first_ns, latest_ns : int
        The earliest and the latest index timestamp of the records of the input.
    arrays : list of DueArray
    """

    def __init__(self, part: Part, begin: int) -> None:
        self.begin = begin
        self.end = begin + len(part.records)
        self.first_ns = int(index_timestamps(part.records).min())
        self.latest_ns = part.latest_ns
        self.arrays = [DueArray(part.records, None, None)]
        self.arrays += [DueArray(each.records, each.schema, each.end_ns) for each in part.made]
        self._part = part

    @functools.cached_property
    def earliest_ns(self) -> int:
        """The earliest time, by any clock, of all records."""
        arrays = [self._part.records, *(each.records for each in self._part.made)]
        return min(int(timestamps(each, clock).min()) for each in arrays for clock in CLOCKS)


class Receiver(Protocol):
    """A session, as far as records reach it."""

    def forward(self, due: Due) -> bool:
        """Send what the session gets; return False where it must see to that by itself."""

    def wake(self) -> None:
        """Have the session see by itself what is to be done."""


class Fanout:
    """Sends what a run reaches to sessions that have everything before.

    A session that is behind, or has more to do than to send records, is woken instead.

    Parameters
    ----------
    run : Run
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._receivers: dict[Receiver, None] = {}
        self._position = 0
        run.follow(self._moved)

    @contextlib.contextmanager
    def joined(self, receiver: Receiver) -> Iterator[None]:
        """Within the block, send to a session, or wake it, when the run has moved or is over."""
        self._receivers[receiver] = None
        try:
            yield
        finally:
            del self._receivers[receiver]

    def _moved(self) -> None:
        due = self._due()
        for receiver in [*self._receivers]:
            if due is None or not receiver.forward(due):
                receiver.wake()

    def _due(self) -> Due | None:
        """Return what the run has reached since the last call, None where sessions see to it.

        Without a pace sessions read as fast as they can, each at its own.
        """
        run = self._run
        begin, self._position = self._position, run.position
        n_records = self._position - begin
        if not run.pace.speed or run.is_over or not 0 < n_records <= _MAX_RECORDS:
            return None
        part = run.backlog.part(begin)
        if part is None or int(part.records["rtype"][0]) in _OF_SESSIONS:
            return None
        return Due(part, begin)
