"""The input of a live gateway: one stream of each dataset, played for all of its sessions."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

from mdtool.adapters.dbn_files import Recording
from mdtool.adapters.dbn_rebase import Rebase, RebasedRecording
from mdtool.core.batch import Batch
from mdtool.core.errors import UsageError
from mdtool.core.records import Records, index_timestamps
from mdtool.engine.derived import Derived, Made
from mdtool.services.live_gateway.config import (
    CLOSE,
    FILES_SPEED,
    LOOP,
    STDIN_SPEED,
    LiveGatewayConfig,
)
from mdtool.services.live_gateway.definitions import defined_names
from mdtool.services.live_gateway.directory import Directory
from mdtool.services.live_gateway.fanout import Fanout
from mdtool.services.live_gateway.inputs import Input
from mdtool.services.replay.reading import Part, Passed, reading
from mdtool.services.replay.runs import Pace, Run
from mdtool.wire.dbn_session import passed_on


class Needs(NamedTuple):
    """What a session needs to be made.

    Attributes
    ----------
    schemas : frozenset of str
        Those that it follows.
    has_books : bool
        Whether it needs order books besides, for a snapshot.
    replayed : frozenset of str
        The schemas of which it is sent what came before. Of these it needs whole intervals.
    """

    schemas: frozenset[str] = frozenset()
    has_books: bool = False
    replayed: frozenset[str] = frozenset()

    def are_met(self, derived: Derived) -> bool:
        """Return whether they can be made of what follows."""
        needs_all = self.has_books or derived.needs_whole(self.schemas)
        return (derived.is_whole or not needs_all) and not derived.lacks_samples(self.replayed)


_NOTHING: Final = Needs()


class Playback:
    """The stream of one dataset: it begins when the first session starts, and may begin again.

    Parameters
    ----------
    played : Input
    config : LiveGatewayConfig
    tasks : asyncio.TaskGroup
        Owns the runs.
    from_ns : int, optional
        When it begins, in the input's own times. What is before can be replayed.
    """

    def __init__(
        self,
        played: Input,
        config: LiveGatewayConfig,
        tasks: asyncio.TaskGroup,
        from_ns: int | None = None,
    ) -> None:
        self._input = played
        self._from_ns = from_ns
        self._speed = _speed_of(played, config)
        self._config = config
        self._tasks = tasks
        self._sessions = 0
        self._starting = asyncio.Lock()
        self._pass: Pass | None = None
        self._has_begun = asyncio.Event()

    @contextlib.asynccontextmanager
    async def joined(self, session: Hashable, needs: Needs) -> AsyncIterator[Pass]:
        """Yield the pass in progress, which begins here if there is none.

        One that is over begins again, unless a session is still reading it. Every pass that begins
        within the block makes what the session follows from its first record on.

        Parameters
        ----------
        session : hashable
        needs : Needs
            Those of the session.

        Raises
        ------
        InputError
            When the input cannot be read.
        """
        async with self._starting:
            latest = self._pass
            is_stale = latest is not None and latest.run.is_over and not self._sessions
            can_repeat = self._input.can_repeat
            if latest is None or (is_stale and self._config.at_end == CLOSE and can_repeat):
                latest = await self._begin(self._from_ns, session, needs)
            self._sessions += 1
        try:
            yield latest
        finally:
            self._sessions -= 1
            async with self._starting:  # a pass that begins meanwhile takes over who follows
                if self._pass is not None:
                    self._pass.unfollow(session)

    async def after(self, ended: Pass) -> Pass | None:
        """Return the pass that follows one: after a seek, or in a loop; None where there is none.

        Input without records is not looped.
        """
        async with self._starting:
            if self._pass is not ended:
                return self._pass
            if self._config.at_end != LOOP or not ended.run.position:
                return None
            return await self._begin(self._from_ns)

    async def another(self, ended: Pass) -> None:
        """Wait until another pass than one is current."""
        while self._pass is ended:
            self._has_begun.clear()
            await self._has_begun.wait()

    @property
    def run(self) -> Run | None:
        """The run in progress, or the last one; None before the first session has started."""
        return None if self._pass is None else self._pass.run

    @property
    def speed(self) -> float:
        """The speed of playback."""
        return self._speed

    @property
    def is_waiting(self) -> bool:
        """Whether playback waits for a session: for the first, or to read what is unpaced."""
        run = self.run
        return run is None or not (self._sessions or run.pace.speed or run.is_over)

    def without_folders(self, text: str) -> str:
        """As `Recording.without_folders`."""
        return self._input.recording.without_folders(text)

    def set_speed(self, speed: float) -> None:
        """Continue at another speed."""
        self._speed = speed
        if self.run is not None:
            self.run.set_speed(speed)

    async def seek(self, to_ns: int) -> None:
        """Continue at another time, in the input's own times, with all sessions.

        Raises
        ------
        UsageError
            When the input is standard input.
        InputError
            When it cannot be read.
        """
        if not self._input.can_repeat:
            raise UsageError("seek: standard input is read once; give files")
        async with self._starting:
            before = self._pass
            if before is None:
                self._from_ns = to_ns
                return
            was_paused = before.run.is_paused
            before.run.stop()
            current = await self._begin(to_ns)
            if was_paused:
                current.run.pause()

    async def _begin(
        self, from_ns: int | None, session: Hashable = None, needs: Needs = _NOTHING
    ) -> Pass:
        """Begin a pass at a time, by default its first record; it is current at once.

        It makes what the sessions of the pass before follow, and what one more session needs.
        """
        before = self.run
        is_whole = before is not None and before.derived.is_whole
        opened = await asyncio.to_thread(
            Pass.of, self._input, self._config, from_ns, needs, is_whole
        )
        run = opened.run
        followed = run.derived if before is None else before.derived
        run.derived.succeed(followed, session, needs.schemas)
        run.set_speed(self._speed)
        self._tasks.create_task(run.play())
        await run.live()
        self._pass = dataclasses.replace(opened, begin=run.position)
        self._has_begun.set()
        return self._pass


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """One pass over the stream of a dataset.

    Attributes
    ----------
    run : Run
    fanout : Fanout
        Of its sessions.
    directory : Directory
        Of its headers and its definitions alone.
    played : Input
    derive : callable
        Returns what makes the schemas that the input has not.
    from_ns : int or None
        When it begins, in the times that are sent; None for its first record.
    rebase : Rebase or None
        How times are moved.
    begin : int
        The position of its first record that is live.
    passed : callable
        What is played of a recorded session's messages about itself.
    """

    run: Run
    fanout: Fanout
    directory: Directory
    played: Input
    derive: Callable[[], Derived]
    from_ns: int | None = None
    rebase: Rebase | None = None
    begin: int = 0
    passed: Passed = passed_on
    _deriving: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def of(
        cls,
        played: Input,
        config: LiveGatewayConfig,
        from_ns: int | None = None,
        needs: Needs = _NOTHING,
        is_whole: bool = False,
    ) -> Self:
        """Open the input, as `Playback._begin`; `is_whole` has books and bars kept in any case.

        Raises
        ------
        InputError
            When it cannot be read.
        """

        def derive(*, is_whole: bool = True) -> Derived:
            return Derived(played.schemas, has_books=config.snapshots, is_whole=is_whole)

        derived = derive(is_whole=is_whole or not played.can_repeat)
        if not needs.are_met(derived):
            derived = derive()
        recording: Recording | RebasedRecording = played.recording
        rebase = None
        if config.rebase is not None:
            rebase = Rebase(from_ns)
            rebase.begin(None)
            recording = RebasedRecording(played.recording, rebase)
            from_ns = None if from_ns is None else from_ns + (rebase.offset_ns or 0)
        passed = _unchanged if config.bare else passed_on
        run = Run(
            recording,
            Pace(_speed_of(played, config)),
            0,
            config.backlog_bytes,
            live_ns=from_ns,
            derived=derived,
            passed=passed,
        )
        defined = [] if played.definitions is None else defined_names(played.definitions)
        directory = Directory(run.metadata, defined)
        fanout = Fanout(run)
        return cls(run, fanout, directory, played, derive, from_ns, rebase, passed=passed)

    @property
    def file(self) -> str | None:
        """The file that it is all of, unchanged; None where there is no such file."""
        return self.played.file if self.rebase is None else None

    @property
    def begin_ns(self) -> int:
        """The time of its first record."""
        if self.run.begin_ns is not None:
            return self.run.begin_ns
        return self.run.metadata.start + self.offset_ns

    @property
    def offset_ns(self) -> int:
        """How far times were moved, by which symbols hold for days."""
        return 0 if self.rebase is None else self.rebase.offset_ns or 0

    async def follow(self, follower: Hashable, needs: Needs) -> None:
        """Have made from now on what a session needs.

        No books, bars and samples are kept of files before a session needs them: then they are
        made of the records up to the position, read once more.

        Raises
        ------
        InputError
            When the input cannot be read again.
        """
        run = self.run
        async with self._deriving:
            if self.played.can_repeat and not needs.are_met(run.derived):
                await run.derive(self.derive(), follower, needs.schemas)
                if run.is_over:
                    run.close_derived()
            else:
                run.derived.follow(follower, needs.schemas)

    def unfollow(self, follower: Hashable) -> None:
        """Make nothing for a session any more."""
        self.run.derived.follow(follower, ())

    def directory_at(self, position: int) -> Directory:
        """Return the symbols as they are at the first record, or at the run's position."""
        directory = self.directory.copy()
        for mapping in self.run.mappings if position else ():
            directory.learn(mapping)
        return directory


def _speed_of(played: Input, config: LiveGatewayConfig) -> float:
    """Return the speed at which playback begins."""
    if config.speed is not None:
        return config.speed
    return FILES_SPEED if played.can_repeat else STDIN_SPEED


def _unchanged(records: Records) -> Records:
    return records


class Rereader:
    """The input of a pass, read once more by a session that needs what has left the backlog.

    Parameters
    ----------
    current : Pass
    stack : contextlib.AsyncExitStack
        Closes it.
    """

    def __init__(self, current: Pass, stack: contextlib.AsyncExitStack) -> None:
        self._pass = current
        self._stack = stack
        self._batches: AsyncIterator[Batch]
        self._derived: Derived | None = None
        self._batch: Batch | None = None
        self._begin = 0
        self._made_to = 0

    async def read(self, position: int, end: int, schemas: frozenset[str]) -> Part:
        """Return records from a position on, which is not before the previous one, up to `end`.

        Parameters
        ----------
        position, end : int
        schemas : frozenset of str
            What is to be made of them. The first call for any reads from the first record again.

        Raises
        ------
        InputError
            When the input cannot be read again.
        """
        has_more = bool(schemas & self._pass.run.derived.schemas)
        lacks = has_more if self._derived is None else self._derived.lacks_samples(schemas)
        if self._batch is None or lacks:
            await self._open(has_more)
        if self._derived is not None:
            self._derived.follow(self, schemas)
        batch = self._batch
        while batch is None or position >= self._begin + len(batch):
            if batch is not None:
                await self._make(batch, self._begin + len(batch))
                self._begin += len(batch)
            batch = self._batch = await anext(self._batches)
        await self._make(batch, position)
        end = min(end, self._begin + len(batch))
        made = await self._make(batch, end)
        records = batch.records[position - self._begin : end - self._begin]
        return Part(records, int(index_timestamps(records).max()), made)

    async def _open(self, has_more: bool) -> None:
        source = await asyncio.to_thread(self._pass.run.reopen)
        self._batches = await self._stack.enter_async_context(
            reading(source, self._pass.passed, is_resolved=has_more)
        )
        self._derived = self._pass.derive() if has_more else None
        self._batch, self._begin, self._made_to = None, 0, 0

    async def _make(self, batch: Batch, end: int) -> Sequence[Made]:
        """Return what is made of the records from where the last call ended up to a position."""
        begin, self._made_to = self._made_to, max(end, self._made_to)
        if self._derived is None or begin == self._made_to:
            return ()
        part = batch[begin - self._begin : self._made_to - self._begin]
        return await asyncio.to_thread(self._derived.update, part)
