"""A process that can open no file descriptor, and the pauses of its listeners."""

from __future__ import annotations

import asyncio
import contextlib
import resource

from mdtool.core.descriptors import shortage
from tests.support.waiting import bounded

_STANDARD = 3
"""Descriptors below this one stay open for as long as the process runs."""


@contextlib.contextmanager
def no_descriptor_left():
    """Let the process open no descriptor within the block, whatever is closed meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_STANDARD, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def paused_again(pauses: int) -> None:
    """Wait until listeners have paused twice more."""
    async with bounded():
        while shortage.pauses < pauses + 2:  # noqa: ASYNC110 - counts have no event
            await asyncio.sleep(0.01)
