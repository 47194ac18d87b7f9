"""How far a command has come: one line on stderr that is rewritten and, at the end, erased."""

from __future__ import annotations

import sys
import termios
import time
from typing import Final, Self

_FIRST_AFTER_S: Final = 1.0
_EVERY_S: Final = 0.2
_ERASE_LINE: Final = "\r\x1b[K"


class StatusLine:
    """A line of text, shown where stderr is a terminal.

    Parameters
    ----------
    is_quiet : bool
        Whether to show nothing even on a terminal.
    """

    def __init__(self, is_quiet: bool = False) -> None:
        self.is_shown = sys.stderr.isatty() and not is_quiet
        self._is_dirty = False

    def show(self, text: str) -> None:
        """Show a text in place of the one before."""
        if self.is_shown and not _is_taken():
            self._is_dirty = True
            print(_ERASE_LINE + text, end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Erase the line, so that something else can be printed in its place."""
        if self._is_dirty:
            self._is_dirty = False
            print(_ERASE_LINE, end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.clear()


class Progress:
    """A count, a rate and, where the size is known, a percentage; shown after a second of work.

    Parameters
    ----------
    what : str
        What is counted, in the plural: `records`.
    size_bytes : int, optional
        How much there is to read, for a percentage.
    is_quiet : bool
        Whether to show nothing even on a terminal.
    """

    def __init__(self, what: str, size_bytes: int | None = None, is_quiet: bool = False) -> None:
        self._what = what
        self._size_bytes = size_bytes
        self._line = StatusLine(is_quiet)
        self._began_s = time.monotonic()
        self._next_s = self._began_s + _FIRST_AFTER_S
        self.clear = self._line.clear

    def show(self, count: int, bytes_read: int = 0) -> None:
        """Show how many there are by now and how much was read, at most every 0.2 s."""
        if not self._line.is_shown:
            return
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _EVERY_S
        text = f"{count:,} {self._what}, {count / (now_s - self._began_s):,.0f}/s"
        if self._size_bytes:
            text = f"{bytes_read / self._size_bytes:4.0%}  {text}"
        self._line.show(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.clear()


def _is_taken() -> bool:
    """Return whether a program further down the pipe, such as a pager, owns the terminal.

    It then reads keys one by one, and would show what others write in the middle of its text.
    """
    try:
        local_modes: int = termios.tcgetattr(sys.stderr)[3]
    except (OSError, termios.error):
        return False
    return not local_modes & termios.ICANON
