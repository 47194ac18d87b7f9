"""Runs over a recording: how far each has come, and the order books at that point."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Container, Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from mdtool.adapters.dbn_files import Recording
from mdtool.adapters.dbn_rebase import RebasedRecording
from mdtool.adapters.dbn_source import RecordSource
from mdtool.core.batch import Batch
from mdtool.core.dtypes import MBO, RTYPE_SYMBOL_MAPPING
from mdtool.core.errors import InputError, UsageError
from mdtool.core.rates import Rates
from mdtool.core.records import Records, index_timestamps, pacing_timestamps
from mdtool.core.stream_warnings import warnings_in
from mdtool.core.units import NS_PER_S, UNDEF_TIMESTAMP
from mdtool.engine.book.snapshot import mbo_snapshot
from mdtool.engine.book.state import Books
from mdtool.engine.derived import Derived, Made
from mdtool.engine.pacing import Pacer, Timestamps
from mdtool.services.replay.reading import Backlog, ForwardReader, Part, Passed, reading
from mdtool.wire.dbn_mappings import MappingRepeater
from mdtool.wire.dbn_metadata import without_ts_out
from mdtool.wire.dbn_session import Resume, passed_on

log = logging.getLogger(__name__)

LEAD_RECORDS: Final = 1 << 17
"""How far an unpaced run is ahead of its fastest receiver."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast records are replayed, and by which of their timestamps.

    Attributes
    ----------
    speed : float
        1 is real time, 10 ten times that. At 0 a run is as fast as its fastest receiver, and waits
        for the first one.
    clock : str
        `ts_recv` or `ts_event`.
    """

    speed: float
    clock: str = "ts_recv"


class Run:
    """One pass over a recording at a pace.

    Receivers are sent no record that the run has not reached. Receivers that are a little behind
    share the backlog; one that is further behind reads the recording by itself.

    Parameters
    ----------
    recording : Recording or RebasedRecording
        It is opened here.
    pace : Pace
    begin : int
        How many records are reached at once, without pacing.
    backlog_bytes : int
        The limit of the backlog.
    live_ns : int, optional
        Records before that time are reached at once, and then the run waits for `live`.
    derived : Derived, optional
        What is made of the recording besides its books, for the backlog.
    passed : callable
        As of `reading`.

    Attributes
    ----------
    identity : str
        The identity of the recording.
    position : int
        How many records have been reached.
    backlog : Backlog
        The latest of these.
    derived : Derived
        What is made of all of these, order books above all.
    closing : sequence of Made
        What the end of the recording leaves open, once the run is over.
    latest_ns : int
        The index timestamp of the last of these, if above 0.
    rates : Rates
        The rate of the position.
    warnings : Counter of str
        How many warnings of each kind the recording has up to there.
    is_over : bool
        Whether the run has ended.
    is_paused : bool
        Whether it waits until it is resumed.
    is_stopped : bool
        Whether it was stopped before the end of the recording.
    error : str or None
        Why it has ended before the end of the recording.
    begin_ns : int or None
        The index timestamp of the first record, if that is known.

    Raises
    ------
    UsageError, InputError
        As `Recording.open`.
    """

    def __init__(
        self,
        recording: Recording | RebasedRecording,
        pace: Pace,
        begin: int,
        backlog_bytes: int,
        live_ns: int | None = None,
        derived: Derived | None = None,
        passed: Passed = passed_on,
    ) -> None:
        self.identity = recording.identity()
        self.pace = pace
        self.position = 0
        self.backlog = Backlog(backlog_bytes)
        self.derived = Derived() if derived is None else derived
        self.closing: Sequence[Made] = ()
        self.latest_ns = 0
        self.rates = Rates()
        self.warnings: Counter[str] = Counter()
        self.is_over = False
        self.is_paused = False
        self.is_stopped = False
        self.error: str | None = None
        self._recording = recording
        self._passed = passed
        self._source = recording.open()
        self.metadata = without_ts_out(self._source.metadata)
        self.begin_ns = self._source.begin_ns
        self._begin = begin
        self._live_ns = live_ns
        self._is_live = asyncio.Event()
        self._pacer = Pacer(pace.speed)
        self._requested = 0
        self._is_requested = asyncio.Event()
        self._has_moved = asyncio.Event()
        self._has_changed = asyncio.Event()
        self._followers: list[Callable[[], None]] = []
        self._reader: _Reader | None = None
        self._is_held = False
        self._mappings: dict[int, Records] = {}

    @property
    def mappings(self) -> Sequence[Records]:
        """The latest symbol mapping record of each id before the position."""
        return list(self._mappings.values())

    @property
    def books(self) -> Books:
        """The order books after all records up to the position."""
        return self.derived.books

    def warm_up(self) -> None:
        """Compile the kernels of order books, before records are due."""
        self.books.apply(Batch.of(np.zeros(1, MBO)))
        self.snapshot()

    def close(self) -> None:
        """Close the recording without playing it."""
        self._source.close()

    def reopen(self) -> RecordSource:
        """Open the recording once more, at its first record.

        Raises
        ------
        InputError
            When the files have changed since the run began.
        """
        self.check_unchanged()
        return self._recording.open()

    def check_unchanged(self) -> None:
        """Raise InputError when the files have changed since the run began."""
        if self._recording.identity() != self.identity:
            raise InputError("the files have changed since streaming began")

    async def play(self) -> None:
        """Replay the recording to its end, and close it."""
        self._reader = await _Reader.of(self._source, self._passed, self.derived)
        try:
            while not self.is_stopped:
                reader = self._reader
                batch = await reader.next(self.position)
                if batch is not None and reader is self._reader:
                    await self._play(batch, reader)
                if reader is not self._reader:
                    await reader.close()
                elif batch is None:
                    self.close_derived()
                    break
        except InputError as error:
            self.error = str(error)
            log.error("%s", error)  # noqa: TRY400 - a truncated file needs no traceback
        finally:
            await self._reader.close()
        self.is_over = True
        self._is_live.set()
        self._move()

    def close_derived(self) -> None:
        """Make what the end of the recording leaves open."""
        self.closing = self.derived.close()

    async def derive(self, derived: Derived, follower: Hashable, schemas: Collection[str]) -> None:
        """Have `derived` make what is made, once it has read the recording up to the position.

        The run continues meanwhile, but for the last records.

        Parameters
        ----------
        derived : Derived
            That of a recording of which nothing was read.
        follower : hashable
            Who follows more from now on.
        schemas : collection of str
            What it follows.

        Raises
        ------
        InputError
            When the recording cannot be read again.
        """
        source = await asyncio.to_thread(self.reopen)
        derived.succeed(self.derived, follower, schemas)
        reader = await _Reader.of(source, self._passed, derived)
        try:
            await self._catch_up(derived, reader)
        except BaseException:
            await reader.close()
            raise
        finally:
            self._is_held = False
            self._change(self.pace.speed)
        derived.succeed(self.derived, follower, schemas)
        self.derived, self._source = derived, source
        if self.is_over:
            await reader.close()
        else:
            self._reader = reader

    async def live(self) -> None:
        """Wait until all records before `live_ns` are reached, and let the run continue."""
        if self._live_ns is not None:
            await self._is_live.wait()
            self.resume()

    async def _catch_up(self, derived: Derived, reader: _Reader) -> None:
        """Read up to the position, which does not move at the end."""
        position, first = 0, self.position
        while position < self.position:
            self._is_held = position >= first
            batch = await reader.next(position)
            if batch is None:
                raise InputError(f"{self.identity}: is shorter than before")
            part = batch[: self.position - position]
            await asyncio.to_thread(derived.update, part)
            position += len(part)

    @property
    def progress(self) -> float | None:
        """How much of the recording's time has passed, from 0 to 1; None where it is not known."""
        if self.is_over and not self.is_stopped and self.error is None:
            return 1.0
        begin_ns, end_ns = self.metadata.start, self.metadata.end
        if end_ns is None or end_ns <= begin_ns or end_ns == UNDEF_TIMESTAMP:
            return None
        return min(max((self.latest_ns - begin_ns) / (end_ns - begin_ns), 0.0), 1.0)

    def pause(self) -> None:
        """Wait, until the run is resumed or stopped."""
        self.is_paused = True
        self._change(self.pace.speed)

    def resume(self) -> None:
        """Continue where the run was paused."""
        if self.is_paused:
            self._pacer = Pacer(self.pace.speed)  # not to catch up with the time of the pause
            self.is_paused = False
        self._change(self.pace.speed)

    def set_speed(self, speed: float) -> None:
        """Continue at another speed."""
        self._change(speed)

    def stop(self) -> None:
        """End the run here, as at the end of the recording."""
        self.is_stopped = True
        self._change(self.pace.speed)

    def _change(self, speed: float) -> None:
        if speed != self.pace.speed:
            self.pace = dataclasses.replace(self.pace, speed=speed)
            now_ns = time.monotonic_ns()
            reached_ns = self._pacer.reached_ns(now_ns)
            self._pacer = Pacer(speed)
            if reached_ns is not None:
                self._pacer.start(reached_ns, now_ns)
        self._has_changed.set()
        self._is_requested.set()

    async def reached(self, position: int) -> int:
        """Wait until a position is reached or the run is over; return the run's position."""
        self.request(position)
        while self.position < position and not self.is_over:
            await self._has_moved.wait()
        return self.position

    def snapshot(self, ids: Container[int] | None = None) -> list[Records]:
        """Return what a receiver that joins here needs: symbol mappings and resting orders.

        These are the orders of the instruments with some ids, by default of all.
        """
        repeater = MappingRepeater(self.metadata)
        mappings = [Batch.of(mapping) for mapping in self._mappings.values()]
        orders = mbo_snapshot(self.books, self._source.instruments, ids)
        parts = [part.records for batch in (*mappings, orders) for part in repeater.feed(batch)]
        # Books of what an id meant before were named for the snapshot alone.
        return [*parts, *(self._mappings[number] for number in repeater.repeated)]

    def follow(self, moved: Callable[[], None]) -> None:
        """Have a function called whenever the run has moved, or is over."""
        self._followers.append(moved)

    def request(self, position: int) -> None:
        """Let an unpaced run go up to a position, and `LEAD_RECORDS` further."""
        if position + LEAD_RECORDS > self._requested:
            self._requested = position + LEAD_RECORDS
            self._is_requested.set()

    async def _play(self, batch: Batch, reader: _Reader) -> None:
        """Reach the records of a batch when they are due, as long as its reader is in use."""
        times_ns = pacing_timestamps(batch.records, self.pace.clock)
        done = 0
        while done < len(batch):
            due = await self._due(times_ns[done:])
            if self.is_stopped or reader is not self._reader:
                return
            self._reach(batch[done : done + due])
            done += due
            await asyncio.sleep(0)

    async def _due(self, times_ns: Timestamps) -> int:
        """Wait until at least one of the next records is due; return how many are."""
        while not self.is_stopped:
            if self._live_ns is not None and not self._is_live.is_set():
                late = np.flatnonzero(times_ns >= self._live_ns)
                if before := int(late[0]) if len(late) else len(times_ns):
                    return before
                self.pause()
                self._is_live.set()
            elif self.position < self._begin:
                return min(self._begin - self.position, len(times_ns))
            if self.is_paused or self._is_held:
                await self._changed(None)
            elif self.pace.speed == 0:
                if self._requested > self.position:
                    return min(self._requested - self.position, len(times_ns))
                self._is_requested.clear()
                await self._is_requested.wait()
            else:
                now_ns = time.monotonic_ns()
                if due := self._pacer.due(times_ns, now_ns):
                    return due
                wait_ns = self._pacer.wait_ns(int(times_ns[0]), now_ns)
                await self._changed(wait_ns / NS_PER_S)
        return 0

    async def _changed(self, within_s: float | None) -> None:
        """Wait until the run is paused, resumed, stopped or given a speed, at most so long."""
        self._has_changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._has_changed.wait()

    def _reach(self, batch: Batch) -> None:
        records = batch.records
        made = self.derived.update(batch)
        if records["rtype"][0] == RTYPE_SYMBOL_MAPPING:
            for at in range(len(records)):
                self._mappings[int(records["instrument_id"][at])] = records[at : at + 1].copy()
        elif warnings := warnings_in(records):
            self.warnings.update(warning.kind for warning in warnings)
        self.position += len(records)
        self.rates.update(time.monotonic_ns(), self.position)
        self.latest_ns = int(index_timestamps(records).max())
        self.backlog.append(Part(records, self.latest_ns, made))
        self._move()

    def _move(self) -> None:
        """Wake everybody who waits for another position."""
        self._has_moved.set()
        self._has_moved = asyncio.Event()
        for moved in self._followers:
            moved()


class _Reader:
    """The recording as it is read once, with the thread that reads ahead.

    Parameters
    ----------
    batches : ForwardReader
    stack : contextlib.AsyncExitStack
        Ends the thread.
    """

    def __init__(self, batches: ForwardReader, stack: contextlib.AsyncExitStack) -> None:
        self._batches = batches
        self._stack = stack

    @classmethod
    async def of(cls, source: RecordSource, passed: Passed, derived: Derived) -> _Reader:
        """Begin to read a source, which is closed with the reader."""
        stack = contextlib.AsyncExitStack()
        batches = reading(source, passed, is_resolved=derived.is_whole)
        return cls(ForwardReader(await stack.enter_async_context(batches)), stack)

    async def next(self, position: int) -> Batch | None:
        """Return records from a position on, as `ForwardReader.read`; None at the end."""
        try:
            return await self._batches.read(position)
        except StopAsyncIteration:
            return None

    async def close(self) -> None:
        """End the thread, and close the source."""
        await self._stack.aclose()


class AlreadyStreamingError(UsageError):
    """A run cannot be started while another one is in progress."""


class NotStreamingError(UsageError):
    """There is no run to pause, resume, stop or give another speed."""


class OtherStreamError(InputError):
    """A receiver cannot resume the stream of another recording."""


class Runs:
    """The runs of a sender, one at a time.

    Parameters
    ----------
    recording : Recording
    pace : Pace
        The default of each run.
    backlog_bytes : int
        The limit of a run's backlog.
    tasks : asyncio.TaskGroup
        Owns the runs.

    Attributes
    ----------
    last : Run or None
        The run that was started last, over or not.
    """

    def __init__(
        self, recording: Recording, pace: Pace, backlog_bytes: int, tasks: asyncio.TaskGroup
    ) -> None:
        self.last: Run | None = None
        self.recording = recording
        self._pace = pace
        self._backlog_bytes = backlog_bytes
        self._tasks = tasks
        self._is_starting = False
        self._has_begun = asyncio.Event()

    @property
    def is_streaming(self) -> bool:
        """Whether a run is in progress."""
        return self._is_starting or (self.last is not None and not self.last.is_over)

    async def start(self, speed: float | None = None, begin: int = 0) -> Run:
        """Start a run, at the default speed or another, with `begin` records reached at once.

        Raises
        ------
        AlreadyStreamingError
            When one is in progress.
        InputError
            When the recording cannot be read.
        """
        if self.is_streaming:
            raise AlreadyStreamingError("is streaming already")
        pace = self._pace if speed is None else dataclasses.replace(self._pace, speed=speed)
        self._is_starting = True
        try:
            run = await asyncio.to_thread(Run, self.recording, pace, begin, self._backlog_bytes)
        finally:
            self._is_starting = False
        self.last = run
        self._tasks.create_task(run.play())
        self._has_begun.set()
        log.info("streaming %s at speed %g from record %d", run.identity, pace.speed, begin)
        return run

    def current(self) -> Run:
        """Return the run that is in progress.

        Raises
        ------
        NotStreamingError
            When there is none.
        """
        if self.last is None or self.last.is_over:
            raise NotStreamingError("is not streaming")
        return self.last

    async def latest(self) -> Run:
        """Return the last run; wait for the first one."""
        while self.last is None:
            await self._has_begun.wait()
        return self.last

    async def in_progress(self) -> Run:
        """Return the run that is in progress; wait for one."""
        while self.last is None or self.last.is_over:
            self._has_begun.clear()
            await self._has_begun.wait()
        return self.last

    async def resumable(self, request: Resume) -> Run:
        """Return the run with which a receiver can resume.

        A sender that has not streamed yet, as after a restart, starts one at the receiver's
        position.

        Raises
        ------
        OtherStreamError
            When the receiver has another recording's stream.
        InputError
            When the recording cannot be read.
        """
        if self.last is None:
            _check_identity(request, await asyncio.to_thread(self.recording.identity))
            with contextlib.suppress(AlreadyStreamingError):  # another receiver was faster
                await self.start(begin=request.position)
        run = await self.latest()
        _check_identity(request, run.identity)
        return run


def _check_identity(request: Resume, identity: str) -> None:
    if identity != request.stream:
        raise OtherStreamError(f"stream {request.stream} is not here; this one is {identity}")
