"""The file descriptors of a process: their limit, and what happens when none is left."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import time
from dataclasses import dataclass
from typing import Final

log = logging.getLogger(__name__)

PAUSE_S: Final = 1.0
"""How long nothing is accepted after a failure for lack of descriptors or memory."""
_RESERVED: Final = 32
"""Descriptors left for what is no input: outputs, sockets, kernels."""
_QUIET_S: Final = 60.0
"""How long a shortage is not reported again."""
_SHORTAGES: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN}
)


def raise_file_limit() -> None:
    """Raise the limit of open files and connections to what the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS reports a limit that it does not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def room_for(files: int) -> bool:
    """Return whether so many files can be open at once beside what a process needs.

    The limit is raised if that requires it.
    """
    if not _has_room(files):
        raise_file_limit()
    return _has_room(files)


def _has_room(files: int) -> bool:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit == resource.RLIM_INFINITY or files <= limit - _RESERVED


def is_shortage(error: OSError) -> bool:
    """Return whether a call failed for lack of descriptors or memory, and may succeed later."""
    return error.errno in _SHORTAGES


@dataclass(slots=True)
class Shortage:
    """Connections that waited to be accepted, for lack of descriptors.

    Attributes
    ----------
    pauses : int
        How often a listener paused.
    """

    pauses: int = 0
    _reported_s: float = float("-inf")

    def note(self, listener: str, error: OSError) -> None:
        """Count a pause of a listener, and report it, once a minute at most."""
        self.pauses += 1
        now_s = time.monotonic()
        if now_s - self._reported_s < _QUIET_S:
            return
        self._reported_s = now_s
        advice = ""
        if error.errno == errno.EMFILE:
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            advice = f" (the limit is {limit:,}); raise it with ulimit -n"
        log.warning("%s: connections wait: %s%s", listener, os.strerror(error.errno or 0), advice)


shortage: Final = Shortage()
"""The shortage of this process, whose listeners share its descriptors."""


def check(listener: str) -> None:
    """Note a shortage where no descriptor can be opened, for a listener that hides its own."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if is_shortage(error):
            shortage.note(listener, error)
