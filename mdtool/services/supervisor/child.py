"""One child process, kept running: started, heard, started again, stopped."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Mapping
from typing import BinaryIO, Final

from mdtool.core.backoff import delays
from mdtool.core.errors import EXIT_OK, EXIT_STARTUP, EXIT_USAGE, StartupError, UsageError
from mdtool.core.lifecycle import LIFELINE_FD, READY_FD
from mdtool.services.supervisor.programs import Program
from mdtool.services.supervisor.relay import LineSplitter, Style, write_line

log = logging.getLogger(__name__)

STEADY_S: Final = 10.0
"""A child that ran this long has recovered: when it dies, the backoff begins anew."""
_CHUNK_BYTES: Final = 1 << 16
_COMPLAINT: Final = "mdtool: "
"""What mdtool's own last words begin with."""


class Child:
    """Keeps one program running until `stop`.

    Parameters
    ----------
    program : Program
        What to run.
    style : callable
        How its lines look on stderr.
    lifeline : int
        The read end of the pipe that ties it to this process.
    after : asyncio.Event or None
        What it waits for before its first start.
    """

    def __init__(
        self, program: Program, style: Style, lifeline: int, after: asyncio.Event | None = None
    ) -> None:
        self.program = program
        self.addresses: Mapping[str, str] = {}
        """Where it listens, once it is ready."""
        self.ready = asyncio.Event()
        """Whether it has been ready, or has nothing more to be ready for."""
        self._style = style
        self._lifeline = lifeline
        self._after = after
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._complaint = ""

    @property
    def process_id(self) -> int | None:
        """The process that runs at this moment."""
        return None if self._process is None else self._process.pid

    async def run(self) -> None:
        """Run the program, again whenever it dies, until `stop` or a source's own end.

        Raises
        ------
        StartupError, UsageError
            When the program says that it cannot start, though it never ran, or never can.
        """
        if self._after is not None:
            await self._after.wait()
        waits = delays(0.1, 5.0)
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            status = await self._run_once()
            if self._stopping or self._is_final(status):
                return
            if loop.time() - began >= STEADY_S:
                waits = delays(0.1, 5.0)
            delay_s = next(waits)
            log.warning(
                "%s %s; starting it again in %.1f s", self.program.name, ended(status), delay_s
            )
            await asyncio.sleep(delay_s)

    async def stop(self, running: asyncio.Task[None], timeout_s: float) -> None:
        """Ask the program to end, and end it by force after `timeout_s`.

        `running` is the task that `run` runs in; it is over when this returns.
        """
        self._stopping = True
        if self._process is None:
            running.cancel()
        else:
            self._signal(signal.SIGTERM)
        await asyncio.wait({running}, timeout=timeout_s)
        if not running.done():
            log.error("%s: not stopped in time, killed", self.program.name)
            self._signal(signal.SIGKILL)
            await asyncio.wait({running})

    async def _run_once(self) -> int:
        """Run the program to its end and return its exit status, negative for a signal."""
        ready_fd, ready_write = os.pipe()
        with os.fdopen(ready_fd, "rb") as ready:
            try:
                process = await self._spawn(ready_write)
            finally:
                os.close(ready_write)
            self._process = process
            log.info("%s: started as process %d", self.program.name, process.pid)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._hear_ready(ready))
                    tasks.create_task(self._relay(process))
                return await process.wait()
            finally:
                self._process = None

    async def _spawn(self, ready_fd: int) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *self.program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(ready_fd, self._lifeline),
                # Ctrl-C in a terminal reaches a whole process group; children are stopped in turn.
                process_group=0,
                env={
                    **os.environ,
                    **self.program.environment,
                    READY_FD: str(ready_fd),
                    LIFELINE_FD: str(self._lifeline),
                },
            )
        except OSError as error:
            name = self.program.name
            raise StartupError(f"{name} could not start: {error.strerror}") from error

    async def _hear_ready(self, pipe: BinaryIO) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            line = await reader.readline()
        finally:
            transport.close()
        if not line:
            return  # it ended, or has no way to say so
        self.addresses = json.loads(line)["addresses"]
        if self.ready.is_set():
            log.info("%s: running again", self.program.name)
        self.ready.set()

    async def _relay(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        lines = LineSplitter()
        while data := await process.stdout.read(_CHUNK_BYTES):
            self._show(lines.feed(data))
        self._show(lines.finish())

    def _show(self, lines: list[str]) -> None:
        for line in lines:
            if line.startswith(_COMPLAINT):
                self._complaint = line.removeprefix(_COMPLAINT)
            write_line(self._style(line))

    def _is_final(self, status: int) -> bool:
        """Tell whether the program is not to be started again; raise when it never could."""
        name = self.program.name
        # What ran before could start: what it needs, a bus or a store, is away for a while.
        if status == EXIT_STARTUP and not self.ready.is_set():
            raise StartupError(f"{name} could not start: {self._complaint or ended(status)}")
        if status == EXIT_USAGE:
            raise UsageError(f"{name} could not start: {self._complaint or ended(status)}")
        if not self.program.is_source or status < 0:
            return False
        self.ready.set()
        log.log(logging.INFO if status == EXIT_OK else logging.ERROR, "%s %s", name, ended(status))
        return True

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)


def ended(status: int) -> str:
    """Return how a process ended, in words, from its exit status."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return "has ended" if status == EXIT_OK else f"failed with exit status {status}"
