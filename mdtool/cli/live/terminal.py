"""The terminal taken for a full-screen view, and given back as it was whatever happens."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from typing import Any, Final, Self

from mdtool.core.errors import UsageError

_ENTER: Final = b"\x1b[?1049h\x1b[?25l\x1b[?7l"
"""The other screen, no cursor, no wrapping at the right margin."""
_LEAVE: Final = b"\x1b[0m\x1b[?2026l\x1b[?7h\x1b[?25h\x1b[?1049l"
_READ_BYTES: Final = 1024
_LFLAG, _IFLAG, _CC = 3, 0, 6
_DUMB: Final = frozenset({"dumb", "unknown"})
_GUARD: Final = """
trap '' INT QUIT TERM HUP TSTP TTIN TTOU
read -r said
[ "$said" ] || { stty "$1" <&1; printf %b "$2"; }
"""
"""A shell that waits for a line, and when there comes none gives the terminal back itself."""


class TerminalGoneError(Exception):
    """Nobody looks any more: the terminal was closed."""


class Terminal:
    """A terminal that keys are read from and a screen is written to.

    Its `with` block is the time for which it is taken. A process that ends within, even one that
    is killed or crashes in native code, gives it back: a small shell sees to that.

    Parameters
    ----------
    keys_fd, screen_fd : int
        Both of one terminal.
    """

    def __init__(self, keys_fd: int, screen_fd: int) -> None:
        self._keys_fd = keys_fd
        self._screen_fd = screen_fd
        self._before: list[Any] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def size(self) -> tuple[int, int]:
        """Return how many columns and lines there are now.

        Raises
        ------
        TerminalGoneError
            As `write` and `read`, when it was closed.
        """
        with _told_apart():
            return os.get_terminal_size(self._screen_fd)

    def write(self, data: bytes) -> None:
        """Write all of the bytes to the screen."""
        with _told_apart():
            while data:
                data = data[os.write(self._screen_fd, data) :]

    def read(self, timeout_s: float) -> bytes:
        """Return what was typed, nothing when that is nothing within the time."""
        if not select.select([self._keys_fd], [], [], timeout_s)[0]:
            return b""
        with _told_apart():
            data = os.read(self._keys_fd, _READ_BYTES)
        if not data:
            raise TerminalGoneError
        return data

    def enter(self) -> None:
        """Take it: the other screen, keys one by one and without an echo."""
        before = termios.tcgetattr(self._keys_fd)
        self._guard = _start_guard(self._screen_fd)
        self._before = before
        raw = termios.tcgetattr(self._keys_fd)
        raw[_LFLAG] &= ~(termios.ECHO | termios.ICANON)
        raw[_IFLAG] &= ~termios.IXON
        raw[_CC][termios.VMIN], raw[_CC][termios.VTIME] = 1, 0
        termios.tcsetattr(self._keys_fd, termios.TCSADRAIN, raw)
        self.write(_ENTER)

    def leave(self) -> None:
        """Give it back as it was before `enter`, once; one that is gone is nobody's any more."""
        before, self._before = self._before, None
        if before is None:
            return
        with contextlib.suppress(TerminalGoneError):
            self.write(_LEAVE)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._keys_fd, termios.TCSAFLUSH, before)
        if self._guard is not None:
            with contextlib.suppress(OSError):
                self._guard.communicate(b"done\n")
            self._guard = None

    def __enter__(self) -> Self:
        try:
            self.enter()
        except BaseException:
            self.leave()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.leave()


def is_dumb() -> bool:
    """Tell whether the terminal, if there is one, cannot move its cursor."""
    return os.environ.get("TERM", "dumb") in _DUMB


@contextlib.contextmanager
def open_terminal(what: str = "--live") -> Iterator[Terminal]:
    """Open the terminal of this process, not yet taken, for `what` to be shown on it.

    Keys come from standard input where that is a terminal, else, where it is data, from
    `/dev/tty`.

    Raises
    ------
    UsageError
        When standard output is no terminal or a dumb one, or there is none to read keys from.
    """
    if not sys.stdout.isatty():
        raise UsageError(f"{what} wants a terminal to draw on; standard output is none")
    if is_dumb():
        raise UsageError(f"{what} wants a terminal that can move its cursor; TERM says it cannot")
    with contextlib.ExitStack() as opened:
        keys_fd = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        if keys_fd is None:
            try:
                keys_fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
            except OSError as error:
                raise UsageError(f"{what}: no terminal to read keys from ({error})") from error
            opened.callback(os.close, keys_fd)
        yield Terminal(keys_fd, sys.stdout.fileno())


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TerminalGoneError from error


def _start_guard(terminal_fd: int) -> subprocess.Popen[bytes] | None:
    """Start the shell that gives the terminal back when this process ends without doing so.

    Where there is none, or no `stty`, there is no guard.
    """
    try:
        saved = subprocess.run(
            ["stty", "-g"],  # noqa: S607
            stdin=terminal_fd,
            stdout=subprocess.PIPE,
            check=True,
        )
        return subprocess.Popen(
            ["sh", "-c", _GUARD, "mdtool", saved.stdout.decode().strip(), _escaped(_LEAVE)],  # noqa: S607
            stdin=subprocess.PIPE,
            stdout=terminal_fd,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def _escaped(data: bytes) -> str:
    """Return bytes as `printf %b` reads them."""
    return "".join(f"\\0{byte:03o}" for byte in data)
