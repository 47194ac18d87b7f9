"""A watchdog over work that blocks in foreign code, where a call may wait for ever."""

from __future__ import annotations

import logging
import os
import threading
from typing import Final, Self

from mdtool.core.errors import EXIT_FAILED

log = logging.getLogger(__name__)

SILENCE_S: Final = 300.0
"""Longer than kernels take to be compiled, and than clients wait by themselves, several times."""
_LOOKS: Final = 60


class Watchdog:
    """Ends the process, with status 1, when nothing is noted for too long. A context manager.

    A thread that waits in foreign code cannot be ended, and holds what it has: only a new process
    begins anew. Time in which the process was stopped (SIGSTOP) does not count.

    Parameters
    ----------
    name : str
        Who is silent then, for people.
    silence_s : float
        For how long, about.
    """

    def __init__(self, name: str, silence_s: float = SILENCE_S) -> None:
        self._name = name
        self._silence_s = silence_s
        self._is_alive = threading.Event()
        self._over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()

    def note(self) -> None:
        """Note that the work goes on. Any thread may call it, as often as it likes."""
        self._is_alive.set()

    def _watch(self) -> None:
        silent = 0
        while not self._over.wait(self._silence_s / _LOOKS):
            silent = 0 if self._is_alive.is_set() else silent + 1
            self._is_alive.clear()
            if silent >= _LOOKS:
                log.error(
                    "%s: a call has not come back for %g s, ended by force; it goes on where it "
                    "was when started again",
                    self._name,
                    self._silence_s,
                )
                logging.shutdown()
                os._exit(EXIT_FAILED)
