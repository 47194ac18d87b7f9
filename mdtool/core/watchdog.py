"""A watchdog over calls into foreign code, which may block for ever."""

from __future__ import annotations

import logging
import os
import threading
from typing import Final, Self

from mdtool.core.errors import EXIT_FAILED

log = logging.getLogger(__name__)

SILENCE_S: Final = 300.0
"""Several times as long as kernels take to compile, and as timeouts of clients."""
_CHECKS: Final = 60


class Watchdog:
    """Ends the process, with status 1, when there is no progress for too long. A context manager.

    A thread that blocks in foreign code cannot be ended, and holds its resources: only a new
    process releases them. Time in which the process was stopped (SIGSTOP) does not count.

    Parameters
    ----------
    name : str
        The name of the work, for the log.
    silence_s : float
        The longest time without progress, about.
    """

    def __init__(self, name: str, silence_s: float = SILENCE_S) -> None:
        self._name = name
        self._silence_s = silence_s
        self._has_progressed = threading.Event()
        self._over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()

    def note(self) -> None:
        """Record progress. Any thread may call it, at any rate."""
        self._has_progressed.set()

    def _watch(self) -> None:
        silent = 0
        while not self._over.wait(self._silence_s / _CHECKS):
            silent = 0 if self._has_progressed.is_set() else silent + 1
            self._has_progressed.clear()
            if silent >= _CHECKS:
                log.error(
                    "%s: a call has not returned for %g s, ended by force; it resumes where it was "
                    "when started again",
                    self._name,
                    self._silence_s,
                )
                logging.shutdown()
                os._exit(EXIT_FAILED)
