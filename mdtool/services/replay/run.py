"""One run over a recording: how far it has come, and what the books are there."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from mdtool.adapters.dbn_source import RecordSource
from mdtool.adapters.recording import Recording
from mdtool.core.dtypes import MBO, RTYPE_SYMBOL_MAPPING
from mdtool.core.errors import InputError
from mdtool.core.rates import Rates
from mdtool.core.records import Records, index_timestamps, pacing_timestamps
from mdtool.core.units import NS_PER_S
from mdtool.engine.book.mbo_snapshot import mbo_snapshot
from mdtool.engine.book.state import Books
from mdtool.engine.pacing import Pacer, Timestamps
from mdtool.services.replay.reading import reading
from mdtool.services.replay.recent import Recent

log = logging.getLogger(__name__)

LEAD_RECORDS: Final = 1 << 17
"""How far a run goes ahead of its fastest receiver where nothing else holds it back."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast records are replayed, and by which of their times.

    Attributes
    ----------
    speed : float
        1 is real time, 10 ten times that. At 0 a run goes as fast as its fastest receiver, and
        waits for the first one.
    clock : str
        `ts_recv` or `ts_event`.
    """

    speed: float
    clock: str = "ts_recv"


class Run:
    """Goes through a recording at a pace.

    Receivers go no further than the run has come. Those that are a little behind share what it
    has reached last; one that is further behind reads the recording by itself.

    Parameters
    ----------
    recording : Recording
    source : RecordSource
        The recording, opened. It is closed when `play` ends.
    identity : str
        Of the recording.
    pace : Pace
    begin : int
        How many records are reached at once: the run goes on from there.
    backlog_bytes : int
        How much of what was reached last is kept.

    Attributes
    ----------
    position : int
        How many records have been reached.
    recent : Recent
        The last of them.
    books : Books
        What they all make.
    latest_ns : int
        The index timestamp of the last of them, where that is above 0.
    rates : Rates
        Of the position.
    is_over : bool
        Whether the run has ended; `error` says why, if before the recording's end.
    """

    def __init__(
        self,
        recording: Recording,
        source: RecordSource,
        identity: str,
        pace: Pace,
        begin: int,
        backlog_bytes: int,
    ) -> None:
        self.identity = identity
        self.metadata = source.metadata
        self.pace = pace
        self.position = 0
        self.recent = Recent(backlog_bytes)
        self.books = Books()
        self.latest_ns = 0
        self.rates = Rates()
        self.is_over = False
        self.error: str | None = None
        self._recording = recording
        self._source = source
        self._begin = begin
        self._pacer = Pacer(pace.speed)
        self._wanted = 0
        self._is_wanted = asyncio.Event()
        self._has_moved = asyncio.Event()
        self._mappings: dict[int, Records] = {}

    @classmethod
    def of(cls, recording: Recording, pace: Pace, begin: int, backlog_bytes: int) -> Run:
        """Open the recording.

        Raises
        ------
        UsageError, InputError
            As `Recording.open`.
        """
        identity = recording.identity()
        return cls(recording, recording.open(), identity, pace, begin, backlog_bytes)

    def close(self) -> None:
        """Let go of the recording; the run is not to be played."""
        self._source.close()

    def reopen(self) -> RecordSource:
        """Begin to read the recording once more, from its first record on.

        Raises
        ------
        InputError
            When it is not any more what the run began with.
        """
        if self._recording.identity() != self.identity:
            raise InputError("the files have changed since streaming began")
        return self._recording.open()

    async def play(self) -> None:
        """Go through the recording; the run is over then."""
        try:
            async with reading(self._source) as arrays:
                async for records in arrays:
                    await self._play(records)
        except InputError as error:
            self.error = str(error)
            log.error("%s", error)  # noqa: TRY400 - a file that is cut is no fault of ours
        self.is_over = True
        self._has_moved.set()

    async def reached(self, position: int) -> int:
        """Wait until so many records are reached or the run is over; return how many are."""
        self.want(position)
        while self.position < position and not self.is_over:
            await self._has_moved.wait()
        return self.position

    def want(self, position: int) -> None:
        """Let a run at no pace of its own come so far, and a little further."""
        if position + LEAD_RECORDS > self._wanted:
            self._wanted = position + LEAD_RECORDS
            self._is_wanted.set()

    def snapshot(self) -> list[Records]:
        """Return what somebody who joins here has to know: symbols, and every resting order."""
        return [*self._mappings.values(), mbo_snapshot(self.books)]

    async def _play(self, records: Records) -> None:
        times_ns = pacing_timestamps(records, self.pace.clock)
        done = 0
        while done < len(records):
            due = await self._due(times_ns[done:])
            self._reach(records[done : done + due])
            done += due
            await asyncio.sleep(0)

    async def _due(self, times_ns: Timestamps) -> int:
        """Wait until one of the next records is due; return how many are."""
        while True:
            if self.position < self._begin:
                return min(self._begin - self.position, len(times_ns))
            if self.pace.speed == 0:
                if self._wanted > self.position:
                    return min(self._wanted - self.position, len(times_ns))
                self._is_wanted.clear()
                await self._is_wanted.wait()
            else:
                now_ns = time.monotonic_ns()
                if due := self._pacer.due(times_ns, now_ns):
                    return due
                await asyncio.sleep(self._pacer.wait_ns(int(times_ns[0]), now_ns) / NS_PER_S)

    def _reach(self, records: Records) -> None:
        if records.dtype == MBO:
            self.books.apply(records)
        elif records["rtype"][0] == RTYPE_SYMBOL_MAPPING:
            for at in range(len(records)):
                self._mappings[int(records["instrument_id"][at])] = records[at : at + 1].copy()
        self.position += len(records)
        self.rates.update(time.monotonic_ns(), self.position)
        self.latest_ns = int(np.max(index_timestamps(records)))
        self.recent.append(records)
        self._has_moved.set()
        self._has_moved = asyncio.Event()
