"""A child process: started, observed, restarted when it ends, stopped."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Mapping
from typing import BinaryIO, Final

from mdtool.core.backoff import delays
from mdtool.core.descriptors import is_shortage
from mdtool.core.errors import EXIT_OK, EXIT_STARTUP, EXIT_USAGE, StartupError, UsageError
from mdtool.core.lifecycle import LIFELINE_FD, READY_FD
from mdtool.core.logs import SUPERVISED
from mdtool.services.supervisor.output import LineSplitter, Style, write_line
from mdtool.services.supervisor.programs import Program

log = logging.getLogger(__name__)

STEADY_S: Final = 10.0
"""A child that ran this long has recovered: the backoff is reset."""
_CHUNK_BYTES: Final = 1 << 16
_ERROR_PREFIX: Final = "mdtool: "
"""The beginning of mdtool's own error lines."""


class Child:
    """Keeps one program running until `stop`.

    Parameters
    ----------
    program : Program
    style : callable
        Formats its lines for stderr.
    lifeline : int
        The read end of a pipe that closes when this process ends.
    after : asyncio.Event, optional
        The event to wait for before the first start.
    """

    def __init__(
        self, program: Program, style: Style, lifeline: int, after: asyncio.Event | None = None
    ) -> None:
        self.program = program
        self.addresses: Mapping[str, str] = {}
        """Its addresses, once it is ready."""
        self.ready = asyncio.Event()
        """Set once it is ready, or has ended for good."""
        self._style = style
        self._lifeline = lifeline
        self._after = after
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._is_serving = False
        self._error = ""

    @property
    def addresses_of_services(self) -> dict[str, dict[str, str]]:
        """Its addresses by protocol, of each of its services."""
        if not self.program.services:
            return {self.program.name: dict(self.addresses)}
        found: dict[str, dict[str, str]] = {}
        for key, address in self.addresses.items():
            name, _, protocol = key.partition(" ")
            found.setdefault(name, {})[protocol] = address
        return found

    @property
    def process_id(self) -> int | None:
        """The id of the process that runs now."""
        return None if self._process is None else self._process.pid

    async def run(self) -> None:
        """Run the program, again whenever it ends, until `stop` or the end of a source.

        Raises
        ------
        StartupError, UsageError
            When the program reports that it cannot start, and never was ready.
        """
        if self._after is not None:
            await self._after.wait()
        waits = delays(0.1, 5.0)
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                status = await self._run_once()
                how = ended(status)
                if self._stopping or self._is_final(status):
                    return
            except OSError as error:
                if not (is_shortage(error) and self.ready.is_set()):
                    reason = f"{self.program.name} could not start: {error.strerror}"
                    raise StartupError(reason) from error
                how = f"could not be started ({error.strerror})"
            if loop.time() - began >= STEADY_S:
                waits = delays(0.1, 5.0)
            delay_s = next(waits)
            log.warning("%s %s; starting it again in %.1f s", self.program.name, how, delay_s)
            await asyncio.sleep(delay_s)

    async def stop(self, running: asyncio.Task[None], timeout_s: float) -> None:
        """Terminate the program, and kill it after `timeout_s`.

        `running` is the task of `run`; it is done when this returns.
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

    def read_again(self) -> None:
        """Have the program's services read their files again; one that starts reads them anyway."""
        if self._is_serving and not self._stopping and not self.program.is_source:
            self._signal(signal.SIGHUP)

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
                    tasks.create_task(self._read_ready(ready))
                    tasks.create_task(self._relay(process))
                return await process.wait()
            finally:
                self._is_serving = False
                self._process = None

    async def _spawn(self, ready_fd: int) -> asyncio.subprocess.Process:
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
                SUPERVISED: "" if self.program.services else self.program.group,
            },
        )

    async def _read_ready(self, pipe: BinaryIO) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            line = await reader.readline()
        finally:
            transport.close()
        if not line:
            return  # it ended, or does not report that it is ready
        self.addresses = json.loads(line)["addresses"]
        self._is_serving = True
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
            if line.startswith(_ERROR_PREFIX):
                self._error = line.removeprefix(_ERROR_PREFIX)
            else:
                write_line(self._style(line))

    def _is_final(self, status: int) -> bool:
        """Return whether the program is not started again; raise when it could never start."""
        name = self.program.name
        # One that was ready before can start: its bus or store is unavailable for a while.
        if status == EXIT_STARTUP and not self.ready.is_set():
            raise StartupError(self._reason(status))
        if status == EXIT_USAGE:
            raise UsageError(self._reason(status))
        if self._error:  # of what could never start, the supervisor reports it
            write_line(self._style(_ERROR_PREFIX + self._error))
            self._error = ""
        if not self.program.is_source or status < 0:
            return False
        self.ready.set()
        log.log(logging.INFO if status == EXIT_OK else logging.ERROR, "%s %s", name, ended(status))
        return True

    def _reason(self, status: int) -> str:
        if self.program.services and self._error:
            return self._error  # which names the service
        return f"{self.program.name} could not start: {self._error or ended(status)}"

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)


def ended(status: int) -> str:
    """Return how a process ended, in words, from its exit status."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return "has ended" if status == EXIT_OK else f"failed with exit status {status}"
