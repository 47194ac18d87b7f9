"""A feed's lines on standard output, as they come."""

from __future__ import annotations

import asyncio
import logging
import select
import sys
from typing import NoReturn

from mdtool.adapters.vwap_feed import VwapFeedClient

log = logging.getLogger(__name__)


def print_lines(feed: VwapFeedClient) -> NoReturn:
    """Print lines until the reader of standard output closes it, which raises BrokenPipeError."""
    asyncio.run(feed.follow(_Printer(feed.address)))


class _Printer:
    def __init__(self, address: str) -> None:
        self._address = address
        self._said = ""

    def connected(self) -> None:
        self._said = ""

    def received(self, lines: list[bytes]) -> None:
        sys.stdout.buffer.writelines(line + b"\n" for line in lines)
        sys.stdout.buffer.flush()

    def lost(self, reason: str, _delay_s: float, _attempts: int) -> None:
        if _is_deserted(sys.stdout.fileno()):
            raise BrokenPipeError
        if reason != self._said:
            self._said = reason
            log.warning("%s: %s; trying again", self._address, reason)


def _is_deserted(fd: int) -> bool:
    """Tell whether whoever read a pipe has gone, without writing to it."""
    poller = select.poll()
    poller.register(fd, 0)
    return bool(poller.poll(0))
