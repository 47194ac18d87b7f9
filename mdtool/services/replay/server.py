"""The sender service: a port on which it streams DBN, and HTTP that starts it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import numpy as np

from mdtool.adapters.recording import Recording
from mdtool.core.addresses import cannot_listen
from mdtool.core.dtypes import MBO
from mdtool.core.errors import InputError, StartupError
from mdtool.core.lifecycle import Started
from mdtool.core.limits import raise_file_limit
from mdtool.services.http.listening import listening
from mdtool.services.replay.config import SenderConfig
from mdtool.services.replay.handlers import SenderHandlers
from mdtool.services.replay.run import Pace, Run
from mdtool.services.replay.runs import Runs
from mdtool.services.replay.session import Session
from mdtool.services.tcp import address_of

_STOP_GRACE_S: Final = 0.2
"""How long requests may go on once the service stops."""


class ReplaySender:
    """Replays a recording to whoever connects, once it is told to.

    Parameters
    ----------
    config : SenderConfig
        Where it listens, and what bounds its receivers.
    recording : Recording
        What it replays.
    pace : Pace
        How fast, where a start says nothing else.
    """

    name = "replay-dbn"

    def __init__(self, config: SenderConfig, recording: Recording, pace: Pace) -> None:
        self._config = config
        self._recording = recording
        self._pace = pace
        self._sessions: dict[Session, None] = {}

    async def run(self, started: Started) -> None:
        """Serve until cancelled; receivers are cut off then, and can resume.

        Raises
        ------
        StartupError
            When an address cannot be listened on, or the recording cannot be read.
        """
        raise_file_limit()
        await asyncio.to_thread(self._probe)
        host, port = self._config.host, self._config.port
        async with asyncio.TaskGroup() as tasks:
            runs = Runs(self._recording, self._pace, self._config.backlog_bytes, tasks)
            app = SenderHandlers(runs, self._sessions).application()
            async with (
                listening(app, host, port, _STOP_GRACE_S) as http_address,
                self._streaming(runs, tasks) as data_address,
            ):
                started({"http": http_address, "dbn": data_address})
                await asyncio.get_running_loop().create_future()

    def _probe(self) -> None:
        """Find out before the start what no start could read, and compile kernels."""
        try:
            run = Run.of(self._recording, self._pace, 0, self._config.backlog_bytes)
        except InputError as error:
            raise StartupError(str(error)) from error
        run.close()
        run.books.apply(np.zeros(1, MBO))
        run.snapshot()

    @contextlib.asynccontextmanager
    async def _streaming(self, runs: Runs, tasks: asyncio.TaskGroup) -> AsyncIterator[str]:
        """Listen for receivers within the block; give the real address."""

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.create_task(self._serve(runs, reader, writer))

        host, port = self._config.host, self._config.data_port
        try:
            server = await asyncio.start_server(connected, host, port)
        except (OSError, UnicodeError) as error:
            raise cannot_listen(error, host, port, "--data-port") from error
        try:
            yield address_of(server)
        finally:
            server.close()

    async def _serve(
        self, runs: Runs, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        greeting_s = self._config.greeting_ms / 1_000
        session = Session(runs, reader, writer, greeting_s)
        if len(self._sessions) >= self._config.max_receivers:
            await session.refuse(f"{self._config.max_receivers} receivers are connected")
            return
        self._sessions[session] = None
        try:
            await session.serve()
        finally:
            del self._sessions[session]
