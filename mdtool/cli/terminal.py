"""The terminal of a full-screen view: taken and given back, its keys, signals and messages."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import signal
import subprocess
import sys
import termios
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, Self, TextIO, cast

from mdtool.core.errors import EXIT_INTERRUPTED, EXIT_OK, UsageError

MESSAGES_KEPT: Final = 100
_ENTER: Final = b"\x1b[?1049h\x1b[?25l\x1b[?7l"
"""The alternate screen, no cursor, no wrapping at the right margin."""
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
_ESCAPE: Final = 0x1B
_INTRODUCERS: Final = b"[O"
_PARAMETERS: Final = range(0x20, 0x40)
_GRACE_S: Final = 5
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class TerminalGoneError(Exception):
    """The terminal was closed."""


class Terminal:
    """A terminal: keys are read from it, and a screen is written to it.

    It is in full-screen mode within its `with` block. A small shell restores it when the process
    ends within the block, even when it is killed or crashes in native code.

    Parameters
    ----------
    keys_fd, screen_fd : int
        Descriptors of the same terminal.
    """

    def __init__(self, keys_fd: int, screen_fd: int) -> None:
        self._keys_fd = keys_fd
        self._screen_fd = screen_fd
        self._before: list[Any] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def size(self) -> tuple[int, int]:
        """Return the current number of columns and lines.

        Raises
        ------
        TerminalGoneError
            When it was closed; `write` and `read` raise it too.
        """
        with _closed_when_failing():
            return os.get_terminal_size(self._screen_fd)

    def write(self, data: bytes) -> None:
        """Write all of the bytes to the screen."""
        with _closed_when_failing():
            while data:
                data = data[os.write(self._screen_fd, data) :]

    def read(self, timeout_s: float) -> bytes:
        """Return what was typed, nothing when nothing was within the time."""
        if not select.select([self._keys_fd], [], [], timeout_s)[0]:
            return b""
        with _closed_when_failing():
            data = os.read(self._keys_fd, _READ_BYTES)
        if not data:
            raise TerminalGoneError
        return data

    def enter(self) -> None:
        """Switch to full-screen mode: the alternate screen, keys one by one and without an echo."""
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
        """Restore the mode before `enter`, once, unless the terminal is closed."""
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
    """Return whether the terminal, if there is one, cannot move its cursor."""
    return os.environ.get("TERM", "dumb") in _DUMB


@contextlib.contextmanager
def open_terminal(what: str = "--live") -> Iterator[Terminal]:
    """Open the terminal of this process for `what`, not yet in full-screen mode.

    Keys come from standard input if that is a terminal, else from `/dev/tty`.

    Raises
    ------
    UsageError
        When standard output is not a terminal or a dumb one, or no terminal has keys to read.
    """
    if not sys.stdout.isatty():
        raise UsageError(f"{what} requires a terminal to draw on; standard output is not one")
    if is_dumb():
        raise UsageError(
            f"{what} requires a terminal that can move its cursor; TERM names one that cannot"
        )
    with contextlib.ExitStack() as opened:
        keys_fd = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        if keys_fd is None:
            try:
                keys_fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
            except OSError as error:
                raise UsageError(f"{what}: no terminal to read keys from ({error})") from error
            opened.callback(os.close, keys_fd)
        yield Terminal(keys_fd, sys.stdout.fileno())


class KeySplitter:
    """Splits the bytes of a terminal into keys: letters and sequences, whatever the chunks."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the keys that these bytes complete."""
        data = self._rest + data
        keys = []
        at = 0
        while at < len(data):
            end = _end(data, at)
            if end is None:
                break
            # In application mode cursor keys have O instead of [.
            keys.append(data[at:end].replace(b"\x1bO", b"\x1b["))
            at = end
        self._rest = data[at:]
        return keys

    def flush(self) -> list[bytes]:
        """Return an unfinished key, after a pause: the escape key, for instance."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


class Interrupts:
    """Handles signals within its `with` block, and restores the handlers at its end.

    The first signal asks the view to end; a second one, or a few seconds, end the process at once,
    whatever the view is waiting for.

    Parameters
    ----------
    give_up : callable
        Called before the process ends at once.

    Attributes
    ----------
    status : int or None
        The exit status once the view is to end, else None.
    is_suspended : bool
        Whether the view is to restore the terminal and stop the process, as for Ctrl-Z.
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
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup does
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


class DeferredMessages(io.TextIOBase):
    """Replaces stderr in its `with` block, and writes the last messages to it at its end.

    Attributes
    ----------
    last : str
        The last line, which the view shows.
    """

    def __init__(self) -> None:
        self.last = ""
        self._lines: deque[str] = deque(maxlen=MESSAGES_KEPT)
        self._stderr: TextIO = sys.stderr
        self._handlers: list[logging.StreamHandler[TextIO]] = []

    def write(self, text: str) -> int:
        """Store the lines of a text."""
        for line in text.splitlines():
            if line.strip():
                self._lines.append(line)
                self.last = line
        return len(text)

    def __enter__(self) -> Self:
        self._stderr = sys.stderr
        self._handlers = [
            handler
            for handler in logging.getLogger().handlers
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr
        ]
        for handler in self._handlers:
            handler.setStream(cast("TextIO", self))
        sys.stderr = self
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.stderr = self._stderr
        for handler in self._handlers:
            handler.setStream(self._stderr)
        with contextlib.suppress(OSError):  # the terminal was closed
            for line in self._lines:
                print(line, file=sys.stderr)


@contextlib.contextmanager
def _closed_when_failing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TerminalGoneError from error


def _start_guard(terminal_fd: int) -> subprocess.Popen[bytes] | None:
    """Start the shell that restores the terminal if this process does not.

    Without a shell or `stty`, there is no guard.
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


def _end(data: bytes, at: int) -> int | None:
    """Return the end of the key that begins at `at`, None when it is unfinished."""
    if data[at] != _ESCAPE:
        return at + 1
    if at + 1 == len(data):
        return None
    if data[at + 1] not in _INTRODUCERS:
        return at + 1
    end = at + 2
    while end < len(data) and data[end] in _PARAMETERS:
        end += 1
    return end + 1 if end < len(data) else None
