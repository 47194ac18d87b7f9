"""The duties of a container's first process, beside what it runs.

The kernel discards a signal that process 1 has no handler for, even SIGTERM, and makes it the
parent of orphans, which remain as zombies until it waits for them. So the command runs in a child,
where signals mean what they mean everywhere, and process 1 passes them on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Final

_OWN: Final = {
    *(signal.SIGKILL, signal.SIGSTOP),  # which nobody can wait for
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGABRT),
    *(signal.SIGTTIN, signal.SIGTTOU),
}
"""Signals that are not passed on."""


def continue_in_child() -> None:
    """Return in a child. The caller passes signals on to it, reaps orphans, and ends as it does."""
    passed = signal.valid_signals() - _OWN
    before = signal.pthread_sigmask(signal.SIG_BLOCK, passed)
    child = os.fork()
    if child:
        os._exit(_attend(child, passed))
    _take_terminal()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _take_terminal() -> None:
    """Have a terminal's Ctrl-C reach this process group alone, so that it is not passed on too."""
    os.setpgid(0, 0)
    with contextlib.suppress(OSError):  # no terminal
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            os.tcsetpgrp(sys.__stdin__.fileno() if sys.__stdin__ else 0, os.getpgrp())
        finally:
            signal.signal(signal.SIGTTOU, before)


def _attend(child: int, passed: set[signal.Signals]) -> int:
    """Return the exit status of the child, once it has ended."""
    while True:
        number = signal.sigwait(passed)
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
            continue
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == child:
                    status = os.waitstatus_to_exitcode(ended[1])
                    return status if status >= 0 else 128 - status
