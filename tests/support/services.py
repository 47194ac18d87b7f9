"""Services that run until a block ends, in the test's loop or as processes; ports; and logs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mdtool.core.lifecycle import READY_FD, Service, first_error, stop
from mdtool.core.tcp import ReservedPort
from tests.support.processes import ChildProcess

MDTOOL = str(Path(sys.executable).with_name("mdtool"))


class Running(NamedTuple):
    """A service in the test's own loop: its addresses, and the task that it runs in."""

    addresses: Mapping[str, str]
    task: asyncio.Task[None]


@contextlib.asynccontextmanager
async def running(service: Service, *, drains: bool = False):
    """Run a service until the block ends, and yield it once it is ready; it may drain then.

    Raises why it did not start, or why it has ended within the block.
    """
    started = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(service.run(started.set_result))
    try:
        await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            raise first_error(task.exception())
        yield Running(started.result(), task)
    finally:
        if drains:
            stop(task)
        else:
            task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()


@dataclass
class Process:
    """A service as a process, and its address, the first of several."""

    process: subprocess.Popen
    address: str

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal; return the exit status, and what was logged on stderr."""
        self.process.send_signal(number)
        errors = self.process.communicate()[1].decode()
        return self.process.returncode, errors


@contextlib.contextmanager
def service(*arguments: object, under: tuple[str, ...] = (), environment=os.environ, **options):
    """Run `mdtool` as a service, and yield it once it is ready; `under` is a command around it."""
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd) as ready:
        child = ChildProcess(
            [*under, MDTOOL, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(write_fd,),
            env={**environment, READY_FD: str(write_fd)},
            **options,
        )
        os.close(write_fd)
        with child:
            try:
                line = ready.readline()
                assert line, child.communicate()[1].decode()
                yield Process(child, next(iter(json.loads(line)["addresses"].values()), ""))
            finally:
                child.kill()


def port_for(owner: object) -> int:
    """A port that is reserved for `owner`, which may listen there or not, until its end."""
    holder = ReservedPort("127.0.0.1")
    weakref.finalize(owner, holder.close)
    return holder.port


class Log(logging.Handler):
    """The lines that a logger writes, in any thread, which can be waited for in the test's loop."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._is_new = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the test is over
                self._loop.call_soon_threadsafe(self._is_new.set)

    async def heard(self, text: str) -> None:
        """Wait until a line has this text; the lines up to then are forgotten."""
        await self._until(lambda: any(text in line for line in self.lines))
        self.lines.clear()

    async def has(self, count: int) -> None:
        """Wait for so many lines."""
        await self._until(lambda: len(self.lines) >= count)

    async def _until(self, condition: Callable[[], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        while True:
            self._is_new.clear()
            if condition():
                return
            await self._is_new.wait()


@contextlib.contextmanager
def logged(name: str, least: int = logging.INFO) -> Iterator[Log]:
    """The log of a logger and those below it, from a level on, within the block."""
    log, logger = Log(), logging.getLogger(name)
    level = logger.level
    logger.setLevel(least)
    logger.addHandler(log)
    try:
        yield log
    finally:
        logger.removeHandler(log)
        logger.setLevel(level)
