"""A recording read in a thread, a little ahead of whoever takes from it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from mdtool.adapters.dbn_source import RecordSource
from mdtool.core.records import Records
from mdtool.core.threads import AsyncReadAhead
from mdtool.wire.dbn_session import OWN_RTYPES

_ARRAYS_AHEAD: Final = 1


@contextlib.asynccontextmanager
async def reading(source: RecordSource) -> AsyncIterator[AsyncIterator[Records]]:
    """Give the records of a source, which is closed with the block.

    What a live stream says about its own connection is left out: a session says that of itself.
    The iterator raises what the source raises, behind everything before it.
    """
    data = (array for array in source if array["rtype"][0] not in OWN_RTYPES)
    ahead = AsyncReadAhead(data, _ARRAYS_AHEAD)
    try:
        yield ahead
    finally:
        # Where the block was left early, the thread is still at work on the source.
        await ahead.close()
        source.close()


class ForwardReader:
    """Reads a stream at positions that only rise.

    Parameters
    ----------
    arrays : asynchronous iterator of structured arrays
        The stream, from its first record on.
    """

    def __init__(self, arrays: AsyncIterator[Records]) -> None:
        self._arrays = arrays
        self._array: Records | None = None
        self._begin = 0

    async def read(self, position: int) -> Records:
        """Return records from a position on, which is not before the last one asked for.

        Raises
        ------
        StopAsyncIteration
            When the stream ends before that.
        """
        while self._array is None or position >= self._begin + len(self._array):
            self._begin += 0 if self._array is None else len(self._array)
            self._array = await anext(self._arrays)
        return self._array[position - self._begin :]
