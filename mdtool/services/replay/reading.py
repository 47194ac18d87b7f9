"""A recording read in a thread, one array ahead of whoever takes from it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from mdtool.adapters.dbn_source import RecordSource
from mdtool.core.records import Records
from mdtool.wire.dbn_session import OWN_RTYPES


@contextlib.asynccontextmanager
async def reading(source: RecordSource) -> AsyncIterator[AsyncIterator[Records]]:
    """Give the records of a source, which is closed with the block.

    What a live stream says about its own connection is left out: a session says that of itself.
    The iterator raises what the source raises, behind everything before it.
    """
    arrays = iter(source)
    ahead = _take(arrays)

    async def taken() -> AsyncIterator[Records]:
        nonlocal ahead
        while (records := await asyncio.shield(ahead)) is not None:
            ahead = _take(arrays)
            yield records

    try:
        yield taken()
    finally:
        # Where the block was left early, the thread is still at work on the source.
        await asyncio.wait({ahead})
        if not ahead.cancelled():
            ahead.exception()  # nobody wants to know it any more
        source.close()


class Passage:
    """A way through a stream that goes forward only.

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


def _take(arrays: Iterator[Records]) -> asyncio.Future[Records | None]:
    return asyncio.ensure_future(asyncio.to_thread(_next_of_stream, arrays))


def _next_of_stream(arrays: Iterator[Records]) -> Records | None:
    return next((array for array in arrays if array["rtype"][0] not in OWN_RTYPES), None)
