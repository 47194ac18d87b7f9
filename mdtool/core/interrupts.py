"""What ends a command early: Ctrl-C, or a signal that terminates it, each as KeyboardInterrupt."""

from __future__ import annotations

import atexit
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, NoReturn

from mdtool.core.errors import EXIT_INTERRUPTED

_TERMINATING: Final = (signal.SIGTERM, signal.SIGHUP)
_SIGNALED: Final = 128
"""What shells add to the number of the signal that ended a process."""


class _Termination:
    """The signal that terminates this process."""

    number: int | None = None
    is_outcome = False


_termination: Final = _Termination()


def catch_termination() -> None:
    """Make SIGTERM and SIGHUP raise KeyboardInterrupt, where nobody ignores or handles them.

    To be called at the start of a process: what is registered for its exit after that is done
    before the process ends by the signal.
    """
    for number in _TERMINATING:
        if signal.getsignal(number) is signal.SIG_DFL:  # else nohup, say, has it ignored
            signal.signal(number, _terminate)
    atexit.register(_end)


def outcome(status: int) -> int:
    """Return the exit status of a command; one that a signal interrupted ends by that signal."""
    number = _termination.number
    if status != EXIT_INTERRUPTED or number is None:
        return status
    _termination.is_outcome = True
    return _SIGNALED + number


def release() -> None:
    """Have a further Ctrl-C end the process at once and in silence: its command has ended."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def handlers() -> dict[int, Callable[[int, FrameType | None], Any]]:
    """Return the signals that raise KeyboardInterrupt now, and how."""
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, *_TERMINATING)}
    return {
        number: handler
        for number, handler in found.items()
        if callable(handler) and handler in {signal.default_int_handler, _terminate}
    }


@contextlib.contextmanager
def uninterrupted(end: Callable[[], object] | None = None) -> Iterator[None]:
    """Delay interrupts until the block ends, then raise KeyboardInterrupt.

    A second Ctrl-C raises it at once. Signals that terminate are delayed however many come, as a
    terminal that closes sends several. For the main thread.

    Parameters
    ----------
    end : callable, optional
        Called at the first interrupt, wherever the block is then: has the block end soon.
    """
    requested: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        requested.append(number)
        if end is not None and len(requested) == 1:
            end()
        if number == signal.SIGINT and len(requested) > 1:
            raise KeyboardInterrupt

    before = handlers()
    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if requested:
        before[requested[0]](requested[0], None)


class Blocking:
    """What blocks this process's event loop, and how a stop ends it."""

    is_stopping = False
    _ends: Final[set[Callable[[], object]]] = set()

    @classmethod
    @contextlib.contextmanager
    def block(cls, end: Callable[[], object]) -> Iterator[None]:
        """Have a stop that is requested within the block call `end`, from any thread."""
        cls._ends.add(end)
        try:
            if cls.is_stopping:
                end()
            yield
        finally:
            cls._ends.discard(end)

    @classmethod
    def stop(cls) -> None:
        """End what blocks now, and what will."""
        cls.is_stopping = True
        for end in list(cls._ends):
            end()


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    _termination.number = number
    raise KeyboardInterrupt


def _end() -> None:
    """End the process by the signal, if that is its outcome."""
    number = _termination.number
    if _termination.is_outcome and number is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
