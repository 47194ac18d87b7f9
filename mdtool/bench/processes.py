"""Servers as processes of their own, for as long as a measurement takes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping

from mdtool.core.errors import StartupError
from mdtool.core.lifecycle import LIFELINE_FD, READY_FD


@contextlib.asynccontextmanager
async def service(name: str, *options: str) -> AsyncIterator[str]:
    """Run the service `mdtool NAME` on a free port; give its address once it is ready.

    Raises
    ------
    StartupError
        When it ends without having been ready.
    """
    command = ("mdtool", "--log-level", "warning", name, "--port", "0", *options)
    async with server(*command) as address:
        yield address


@contextlib.asynccontextmanager
async def server(module: str, *arguments: str) -> AsyncIterator[str]:
    """Run a Python module that listens on one address; give that.

    Raises
    ------
    StartupError
        When it ends without having been ready.
    """
    async with addresses(module, *arguments) as found:
        (address,) = found.values()
        yield address


@contextlib.asynccontextmanager
async def addresses(module: str, *arguments: str) -> AsyncIterator[Mapping[str, str]]:
    """Run a Python module that says where it listens as services do; give its addresses.

    Raises
    ------
    StartupError
        When it ends without having been ready.
    """
    async with process(module, *arguments) as (_, found):
        yield found


@contextlib.asynccontextmanager
async def process(
    module: str, *arguments: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Mapping[str, str]]]:
    """Run a Python module as `addresses` does; give the process too, which may be killed.

    Raises
    ------
    StartupError
        When it ends without having been ready.
    """
    ready_fd, says_ready_fd = os.pipe()
    lifeline_fd, holds_lifeline_fd = os.pipe()
    with os.fdopen(ready_fd) as ready, os.fdopen(holds_lifeline_fd, "wb"):
        try:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", module, *arguments),
                stdin=asyncio.subprocess.DEVNULL,
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
