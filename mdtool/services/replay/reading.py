"""What receivers are sent from: the backlog of the latest records, and the recording itself."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final, NamedTuple

from mdtool.adapters.dbn_source import RecordSource
from mdtool.core.batch import Batch
from mdtool.core.records import Records
from mdtool.core.threads import AsyncReadAhead
from mdtool.engine.derived import Made
from mdtool.wire.dbn_session import passed_on

_ARRAYS_AHEAD: Final = 1

Passed = Callable[[Records], Records]


class Part(NamedTuple):
    """Consecutive records of a stream, their latest index timestamp, and what was made of them."""

    records: Records
    latest_ns: int
    made: Sequence[Made] = ()


class Backlog:
    """The latest arrays of a stream, up to a limit, each with what was made of it.

    Parameters
    ----------
    limit_bytes : int
        Above it the oldest arrays are dropped; the last one stays, whatever its size.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._parts: list[Part] = []
        self._begins: list[int] = []
        self._bytes = 0
        self._end = 0

    def append(self, part: Part) -> None:
        """Add the next records of the stream."""
        self._begins.append(self._end)
        self._parts.append(part)
        self._end += len(part.records)
        self._bytes += _bytes_of(part)
        n_old = 0
        while self._bytes > self._limit_bytes and n_old < len(self._parts) - 1:
            self._bytes -= _bytes_of(self._parts[n_old])
            n_old += 1
        del self._parts[:n_old], self._begins[:n_old]

    def read(self, position: int) -> Records | None:
        """Return at least one record from a position on, None where that record was dropped.

        The position is before the end of the stream.
        """
        at = bisect_right(self._begins, position) - 1
        if at < 0:
            return None
        return self._parts[at].records[position - self._begins[at] :]

    def part(self, position: int) -> Part | None:
        """Return the array that begins at a position, None where none does that is still there."""
        at = bisect_right(self._begins, position) - 1
        return self._parts[at] if at >= 0 and self._begins[at] == position else None

    def begin_within(self, position: int, end: int) -> int:
        """Return the last place after a position, up to `end`, where an array begins; else `end`.

        What is read up to there is continued by `part`.
        """
        at = bisect_right(self._begins, end) - 1
        return self._begins[at] if at >= 0 and self._begins[at] > position else end


def _bytes_of(part: Part) -> int:
    return part.records.nbytes + sum(each.records.nbytes for each in part.made)


@contextlib.asynccontextmanager
async def reading(
    source: RecordSource, passed: Passed = passed_on, *, is_resolved: bool = True
) -> AsyncIterator[AsyncIterator[Batch]]:
    """Yield an iterator over the records of a source, read ahead in a thread.

    The source is closed at the end of the block. Of what a live stream sends about its own
    connection, the warnings are passed on: a session sends its own. The iterator raises what the
    source raises, after all records before the error.

    Parameters
    ----------
    source : RecordSource
    passed : callable
        Returns what is passed on of records of one rtype, perhaps none of them.
    is_resolved : bool
        Whether the thread resolves records to instruments, which is a third of its work.
    """
    ahead = AsyncReadAhead(_passed_on(source, passed, is_resolved), _ARRAYS_AHEAD)
    try:
        yield ahead
    finally:
        # Where the block was left early, the thread still reads from the source; from a pipe whose
        # writer is silent it does so for as long as the process lives.
        if source.size_bytes is None:
            ahead.abandon()
        else:
            await ahead.close()
        source.close()


def _passed_on(source: RecordSource, passed: Passed, is_resolved: bool) -> Iterator[Batch]:
    for batch in source:
        records = passed(batch.records)
        if records is batch.records:
            if is_resolved:
                _ = batch.instrument
            yield batch
        elif len(records):
            yield Batch.of(records)


class ForwardReader:
    """Reads a stream at positions that never decrease.

    Parameters
    ----------
    batches : asynchronous iterator of Batch
        The stream, from its first record on.
    """

    def __init__(self, batches: AsyncIterator[Batch]) -> None:
        self._batches = batches
        self._batch: Batch | None = None
        self._begin = 0

    async def read(self, position: int) -> Batch:
        """Return records from a position on, which is not before the previous one.

        Raises
        ------
        StopAsyncIteration
            When the stream ends before the position.
        """
        while self._batch is None or position >= self._begin + len(self._batch):
            self._begin += 0 if self._batch is None else len(self._batch)
            self._batch = None
            self._batch = await anext(self._batches)
        return self._batch[position - self._begin :]
