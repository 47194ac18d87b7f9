"""A process without file descriptors, and the pauses of its listeners."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource

from mdtool.core.descriptors import shortage


@contextlib.contextmanager
def no_descriptor_left():
    """Leave the process one descriptor within the block, for the client of a test."""
    gc.collect()  # What earlier tests left would give descriptors back within the block.
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(opened) + 16, before[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.dup(opened[0]))
        os.close(opened.pop())
        yield
    finally:
        for each in opened:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def paused_again(pauses: int) -> None:
    """Wait until listeners have paused twice more."""
    while shortage.pauses < pauses + 2:  # noqa: ASYNC110 - what is waited for is a count
        await asyncio.sleep(0.01)
