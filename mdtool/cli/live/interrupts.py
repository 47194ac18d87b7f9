"""Signals that end or suspend a full-screen view, noted until the view can act on them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Self

from mdtool.core.errors import EXIT_INTERRUPTED, EXIT_OK

_GRACE_S: Final = 5
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Interrupts:
    """Takes signals for the length of its `with` block, and puts back what took them before.

    A second one that ends the view does so at once, whatever the view is waiting for. So does
    time, where a view cannot end, for its terminal takes nothing any more.

    Parameters
    ----------
    give_up : callable
        Called before the process ends at once.

    Attributes
    ----------
    status : int or None
        The exit status with which to end, None for not yet.
    is_suspended : bool
        Whether the view is to give the terminal back and stop, as for Ctrl-Z.
    """

    def __init__(self, give_up: Callable[[], None]) -> None:
        self.status: int | None = None
        self.is_suspended = False
        self._give_up = give_up
        self._before: dict[int, Any] = {}

    def stop(self) -> None:
        """Stop this process until it is continued."""
        self.is_suspended = False
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._suspend)

    def __enter__(self) -> Self:
        for number in _ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup goes on ignoring its own
                self._before[number] = signal.signal(number, self._end)
        self._before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._suspend)
        self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._time_out)
        return self

    def __exit__(self, *exc_info: object) -> None:
        signal.alarm(0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        if self.status is not None:
            self._give_up()
            os._exit(self.status)
        self.status = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_OK
        signal.alarm(_GRACE_S)

    def _time_out(self, _number: int, _frame: FrameType | None) -> None:
        os._exit(EXIT_OK if self.status is None else self.status)

    def _suspend(self, _number: int, _frame: FrameType | None) -> None:
        self.is_suspended = True
