"""What receivers are sent from: the backlog of the latest records, and the recording itself."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator
from typing import Final

from mdtool.adapters.dbn_source import RecordSource
from mdtool.core.batch import Batch
from mdtool.core.records import Records
from mdtool.core.threads import AsyncReadAhead
from mdtool.wire.dbn_session import passed_on

_ARRAYS_AHEAD: Final = 1


class Backlog:
    """The latest arrays of a stream, up to a limit.

    Parameters
    ----------
    limit_bytes : int
        Above it the oldest arrays are dropped; the last one stays, whatever its size.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._arrays: list[Records] = []
        self._begins: list[int] = []
        self._bytes = 0
        self._end = 0

    def append(self, records: Records) -> None:
        """Add the next records of the stream."""
        self._begins.append(self._end)
        self._arrays.append(records)
        self._end += len(records)
        self._bytes += records.nbytes
        n_old = 0
        while self._bytes > self._limit_bytes and n_old < len(self._arrays) - 1:
            self._bytes -= self._arrays[n_old].nbytes
            n_old += 1
        del self._arrays[:n_old], self._begins[:n_old]

    def read(self, position: int) -> Records | None:
        """Return at least one record from a position on, None where that record was dropped.

        The position is before the end of the stream.
        """
        at = bisect_right(self._begins, position) - 1
        if at < 0:
            return None
        return self._arrays[at][position - self._begins[at] :]


@contextlib.asynccontextmanager
async def reading(source: RecordSource) -> AsyncIterator[AsyncIterator[Batch]]:
    """Yield an iterator over the records of a source, read ahead in a thread.

    The source is closed at the end of the block. Of what a live stream sends about its own
    connection, the warnings are passed on: a session sends its own. The iterator raises what the
    source raises, after all records before the error.
    """
    ahead = AsyncReadAhead(_passed_on(source), _ARRAYS_AHEAD)
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


def _passed_on(source: RecordSource) -> Iterator[Batch]:
    for batch in source:
        records = passed_on(batch.records)
        if records is batch.records:
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
        self._array: Records | None = None
        self._begin = 0

    async def read(self, position: int) -> Records:
        """Return records from a position on, which is not before the previous one.

        Raises
        ------
        StopAsyncIteration
            When the stream ends before the position.
        """
        while self._array is None or position >= self._begin + len(self._array):
            self._begin += 0 if self._array is None else len(self._array)
            self._array = (await anext(self._batches)).records
        return self._array[position - self._begin :]
