"""The input of a live gateway: one stream of each dataset, played for all of its sessions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from mdtool.adapters.byte_source import STDIN
from mdtool.adapters.dbn_files import Recording, dbn_files, open_source
from mdtool.adapters.dbn_select import Selection, selected
from mdtool.adapters.dbn_source import RecordSource
from mdtool.core.errors import InputError, UsageError
from mdtool.services.live_gateway.config import CLOSE, LOOP, LiveGatewayConfig
from mdtool.services.live_gateway.directory import Directory
from mdtool.services.replay.runs import Pace, Run


@dataclass(frozen=True, slots=True)
class PipedInput(Recording):
    """Standard input, which is read once, as it arrives.

    Attributes
    ----------
    source : RecordSource
        It, whose header was read.
    """

    source: list[RecordSource] = field(default_factory=list)

    def open(self) -> RecordSource:
        """Return the input.

        Raises
        ------
        InputError
            When it was read already.
        """
        if not self.source:
            raise InputError("stdin: can be read only once; give files")
        return selected(self.source.pop(), self.selection)

    def identity(self) -> str:
        """Return a name: it is like no other stream."""
        return STDIN


def recordings(paths: Sequence[str], selection: Selection | None) -> dict[str, Recording]:
    """Return the input by dataset. Of standard input, the header is read here.

    Raises
    ------
    UsageError, InputError
        When there is no such file, it is not DBN, or standard input is not the only one.
    """
    if STDIN in paths:
        if len(paths) > 1:
            raise UsageError("give files, or - alone: standard input is not merged with files")
        source = open_source(STDIN)
        piped = PipedInput((STDIN,), selection=selection, source=[source])
        return {source.metadata.dataset: piped}
    of: dict[str, list[str]] = {}
    for path in dbn_files(paths):
        with open_source(path, is_one_of_many=True) as source:
            of.setdefault(source.metadata.dataset, []).append(path)
    return {dataset: Recording(tuple(files), selection=selection) for dataset, files in of.items()}


class Playback:
    """The stream of one dataset: it begins when the first session starts, and may begin again.

    Parameters
    ----------
    recording : Recording
    config : LiveGatewayConfig
    tasks : asyncio.TaskGroup
        Owns the runs.
    """

    def __init__(
        self, recording: Recording, config: LiveGatewayConfig, tasks: asyncio.TaskGroup
    ) -> None:
        self._recording = recording
        self._config = config
        self._tasks = tasks
        self._sessions = 0
        self._starting = asyncio.Lock()
        self._pass: Pass | None = None

    @contextlib.asynccontextmanager
    async def joined(self) -> AsyncIterator[Pass]:
        """Yield the pass in progress, which begins here if there is none.

        One that is over begins again, unless a session is still reading it.

        Raises
        ------
        InputError
            When the input cannot be read.
        """
        async with self._starting:
            latest = self._pass
            is_stale = latest is not None and latest.run.is_over and not self._sessions
            can_repeat = not isinstance(self._recording, PipedInput)
            if latest is None or (is_stale and self._config.at_end == CLOSE and can_repeat):
                latest = await self._begin()
            self._sessions += 1
        try:
            yield latest
        finally:
            self._sessions -= 1

    async def after(self, ended: Pass) -> Pass | None:
        """Return the pass that follows one in a loop, None where there is none.

        Input without records is not looped.
        """
        if self._config.at_end != LOOP or not ended.run.position:
            return None
        async with self._starting:
            return await self._begin() if self._pass is ended else self._pass

    async def _begin(self) -> Pass:
        config = self._config
        pace = Pace(config.speed)
        run = await asyncio.to_thread(
            Run,
            self._recording,
            pace,
            0,
            config.backlog_bytes,
            has_books=config.snapshots,
        )
        self._tasks.create_task(run.play())
        self._pass = Pass(run, Directory(run.metadata))
        return self._pass


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """One pass over the stream of a dataset.

    Attributes
    ----------
    run : Run
    directory : Directory
        Of its header alone.
    """

    run: Run
    directory: Directory

    @property
    def schema(self) -> str | None:
        """The only schema of its records, None where there may be several."""
        schema = self.run.metadata.schema
        return None if schema is None else str(schema)

    @property
    def begin_ns(self) -> int:
        """The time of its first record."""
        return self.run.metadata.start if self.run.begin_ns is None else self.run.begin_ns

    def directory_at(self, position: int) -> Directory:
        """Return the symbols as they are at the first record, or at the run's position."""
        directory = self.directory.copy()
        for mapping in self.run.mappings if position else ():
            directory.learn(mapping)
        return directory
