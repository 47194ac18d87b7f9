"""mdtool's commands and services as processes: run to their end, or for as long as a bench."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from statistics import median

from mdtool.core.errors import MdtoolError, StartupError
from mdtool.core.lifecycle import LIFELINE_FD, READY_FD


def run_command(*arguments: object) -> None:
    """Run `mdtool` and discard its output and its log.

    Raises
    ------
    MdtoolError
        When it fails.
    """
    command = [sys.executable, "-m", "mdtool", "--log-level", "error", *map(str, arguments)]
    ended = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    if ended.returncode:
        raise MdtoolError(f"{' '.join(command[2:])}: {ended.stderr.strip()}")


def wall_times_s(rounds: int, *ways: Callable[[], object]) -> list[float]:
    """Return the median seconds that each of some functions takes; they are called in turns."""
    taken_s: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, times_s in zip(ways, taken_s, strict=True):
            began_s = time.perf_counter()
            way()
            times_s.append(time.perf_counter() - began_s)
    return [median(times_s) for times_s in taken_s]


def cpu_s(run: Callable[[], object]) -> float:
    """Return the CPU time that a call takes, here and in the processes that it waits for."""
    before_s = _used_s()
    run()
    return _used_s() - before_s


def _used_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@contextlib.asynccontextmanager
async def service(name: str, *options: str) -> AsyncIterator[str]:
    """Run the service `mdtool NAME` on a free port; yield its address once it is ready.

    Raises
    ------
    StartupError
        When it ends before it is ready.
    """
    command = ("mdtool", "--log-level", "warning", name, "--port", "0", *options)
    async with server(*command) as address:
        yield address


@contextlib.asynccontextmanager
async def server(module: str, *arguments: str) -> AsyncIterator[str]:
    """Run a Python module that listens on one address; yield that address.

    Raises
    ------
    StartupError
        When it ends before it is ready.
    """
    async with addresses(module, *arguments) as found:
        (address,) = found.values()
        yield address


@contextlib.asynccontextmanager
async def addresses(module: str, *arguments: str) -> AsyncIterator[Mapping[str, str]]:
    """Run a Python module that reports its addresses as services do; yield them.

    Raises
    ------
    StartupError
        When it ends before it is ready.
    """
    async with process(module, *arguments) as (_, found):
        yield found


@contextlib.asynccontextmanager
async def process(
    module: str, *arguments: str, is_quiet: bool = False
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Mapping[str, str]]]:
    """Run a Python module as `addresses` does; yield the process too, which may be killed.

    Its output is discarded if it `is_quiet`.

    Raises
    ------
    StartupError
        When it ends before it is ready.
    """
    ready_fd, says_ready_fd = os.pipe()
    lifeline_fd, holds_lifeline_fd = os.pipe()
    with os.fdopen(ready_fd) as ready, os.fdopen(holds_lifeline_fd, "wb"):
        try:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", module, *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL if is_quiet else None,
                pass_fds=(says_ready_fd, lifeline_fd),
                env={**os.environ, READY_FD: str(says_ready_fd), LIFELINE_FD: str(lifeline_fd)},
            )
        finally:
            os.close(says_ready_fd)
            os.close(lifeline_fd)
        try:
            line = await asyncio.to_thread(ready.readline)
            if not line:
                command = " ".join((module, *arguments))
                raise StartupError(f"{command}: ended with status {await child.wait()}")
            yield child, json.loads(line)["addresses"]
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
            await child.wait()


@contextlib.asynccontextmanager
async def stack(
    *options: str,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Mapping[str, str]]]:
    """Run `mdtool serve all` on free ports, as `process` does.

    Addresses are by the service and the protocol: `gateway http`.
    """
    ports = [f"--{name}-port=0" for name in ("serve-tcp", "aggregate", "vwap", "gateway")]
    command = ("mdtool", "--log-level", "error", "serve", "all", "-J", *ports, *options)
    async with process(*command, is_quiet=True) as running:
        yield running
