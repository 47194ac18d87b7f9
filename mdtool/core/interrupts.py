"""Ctrl-C, delayed until a step is complete."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay a first SIGINT until the block ends, then raise KeyboardInterrupt.

    A second one raises it at once. For the main thread.
    """
    is_requested = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_requested
        if is_requested:
            raise KeyboardInterrupt
        is_requested = True

    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # stays ignored, as in a shell's background
        yield
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if is_requested:
        raise KeyboardInterrupt
