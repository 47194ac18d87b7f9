"""The runs of a sender, of which one at most is under way."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging

from mdtool.adapters.recording import Recording
from mdtool.core.errors import InputError, UsageError
from mdtool.services.replay.run import Pace, Run
from mdtool.wire.dbn_session import Resume

log = logging.getLogger(__name__)


class AlreadyStreamingError(UsageError):
    """A run is under way, and a second one was to be started."""


class NotHereError(InputError):
    """A receiver wants to go on with the stream of another recording."""


class Runs:
    """Starts runs over a recording, and knows the last one.

    Parameters
    ----------
    recording : Recording
    pace : Pace
        Of runs for which nothing else is said.
    backlog_bytes : int
        As of `Run`.
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
        """Whether a run is under way."""
        return self._is_starting or (self.last is not None and not self.last.is_over)

    async def start(self, speed: float | None = None, begin: int = 0) -> Run:
        """Start a run, at another speed if one is given, with `begin` records behind it.

        Raises
        ------
        AlreadyStreamingError
            When one is under way.
        InputError
            When the recording cannot be read.
        """
        if self.is_streaming:
            raise AlreadyStreamingError("is streaming already")
        pace = self._pace if speed is None else dataclasses.replace(self._pace, speed=speed)
        self._is_starting = True
        try:
            run = await asyncio.to_thread(Run.of, self.recording, pace, begin, self._backlog_bytes)
        finally:
            self._is_starting = False
        self.last = run
        self._tasks.create_task(run.play())
        self._has_begun.set()
        log.info("streaming %s at speed %g from record %d", run.identity, pace.speed, begin)
        return run

    async def latest(self) -> Run:
        """Return the last run; wait for the first one."""
        while self.last is None:
            await self._has_begun.wait()
        return self.last

    async def under_way(self) -> Run:
        """Return the run that is under way; wait for one."""
        while self.last is None or self.last.is_over:
            self._has_begun.clear()
            await self._has_begun.wait()
        return self.last

    async def of(self, wanted: Resume) -> Run:
        """Return the run with which a receiver can go on.

        A sender that has not streamed yet, as after a restart, begins where the receiver is.

        Raises
        ------
        NotHereError
            When this is another recording.
        InputError
            When it cannot be read.
        """
        if self.last is None:
            self._require(wanted, await asyncio.to_thread(self.recording.identity))
            with contextlib.suppress(AlreadyStreamingError):  # another receiver was faster
                await self.start(begin=wanted.position)
        run = await self.latest()
        self._require(wanted, run.identity)
        return run

    def _require(self, wanted: Resume, identity: str) -> None:
        if identity != wanted.stream:
            raise NotHereError(f"stream {wanted.stream} is not here; this one is {identity}")
