"""How far a command has come, on stderr, where people look at that and wait."""

from __future__ import annotations

import sys
import termios
import time
from typing import Final, Self

_FIRST_AFTER_S: Final = 1.0
_EVERY_S: Final = 0.2
_ERASE_LINE: Final = "\r\x1b[K"


def _is_taken() -> bool:
    """Tell whether a program further down the pipe, a pager say, has the whole terminal.

    It then reads keys one by one, and what others write would stand in the midst of it.
    """
    try:
        local_modes: int = termios.tcgetattr(sys.stderr)[3]
    except (OSError, termios.error):
        return False
    return not local_modes & termios.ICANON


class Progress:
    """One line that is rewritten, from a second on, and erased at the end.

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
        self._is_shown = sys.stderr.isatty() and not is_quiet
        self._began_s = time.monotonic()
        self._next_s = self._began_s + _FIRST_AFTER_S
        self._is_dirty = False

    def show(self, count: int, bytes_read: int = 0) -> None:
        """Show how many there are by now and how much was read, if it is time to."""
        if not self._is_shown:
            return
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _EVERY_S
        if _is_taken():
            return
        rate = count / (now_s - self._began_s)
        line = f"{count:,} {self._what}, {rate:,.0f}/s"
        if self._size_bytes:
            line = f"{bytes_read / self._size_bytes:4.0%}  {line}"
        self._is_dirty = True
        print(_ERASE_LINE + line, end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def clear(self) -> None:
        """Erase the line, for something else to be printed in its place."""
        if self._is_dirty:
            print(_ERASE_LINE, end="", file=sys.stderr, flush=True)
            self._is_dirty = False

    def __exit__(self, *exc_info: object) -> None:
        self.clear()


class StatusLine:
    """One line of text on a terminal that is rewritten, and erased at the end."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._is_dirty = False

    def show(self, text: str) -> None:
        """Show a text in place of the one before."""
        if self._is_shown and not _is_taken():
            self._is_dirty = True
            print(_ERASE_LINE + text, end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._is_dirty:
            print(_ERASE_LINE, end="", file=sys.stderr, flush=True)
