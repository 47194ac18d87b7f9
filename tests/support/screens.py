"""Programs in a terminal of their own, and the text on its screen."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

PATIENCE_S: Final = 200
_END: Final = b"\0"
"""What no program writes: behind it there is nothing."""
_CONTROL: Final = re.compile(r"\x1b\[(\?)?([\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)", re.DOTALL)
_UNFINISHED: Final = re.compile(r"\x1b(\[\??[\d;]*)?$")
_END_OF_FRAME: Final = b"\x1b[?2026l"


class Screen:
    """A screen that interprets exactly what full-screen views write; anything else is an error.

    Attributes
    ----------
    lines : list of list of str
    modes : set of int
        Private modes that are set: 1049 is the other screen, 25 the cursor, 7 wrapping.
    clears : int
        How often the whole screen was cleared.
    styles : set of str
        Every style that was used.
    """

    def __init__(self, columns: int, lines: int) -> None:
        self.modes = {25, 7}
        self.clears = 0
        self.styles: set[str] = set()
        self.before = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._rest = ""
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        self.size = (columns, lines)
        self.lines = [[" "] * columns for _ in range(lines)]
        self._row = self._column = 0

    @property
    def is_taken(self) -> bool:
        """Whether a full-screen program has the terminal."""
        return 1049 in self.modes

    @property
    def is_changing(self) -> bool:
        """Whether a frame has begun and is not complete yet."""
        return 2026 in self.modes

    def __str__(self) -> str:
        return "\n".join("".join(line).rstrip() for line in self.lines)

    def feed(self, data: bytes) -> None:
        text = self._rest + self._decoder.decode(data)
        unfinished = _UNFINISHED.search(text)
        end = unfinished.start() if unfinished else len(text)
        self._rest = text[end:]
        at = 0
        while at < end:
            found = _CONTROL.match(text, at, end)
            assert found, f"unknown sequence {text[at : at + 20]!r}"
            at = found.end()
            private, numbers, command, newline, plain = found.groups()
            if command:
                self._obey(bool(private), numbers, command)
            elif self.is_taken:
                assert not newline, "the screen must not scroll"
                self._put(plain)
            else:
                self.before += newline or plain

    def _obey(self, private: bool, numbers: str, command: str) -> None:
        if private:
            mode = int(numbers)
            assert (mode, command) in {(m, c) for m in (1049, 25, 7, 2026) for c in "hl"}
            (self.modes.add if command == "h" else self.modes.discard)(mode)
            if mode == 1049 and command == "h":
                self.resize(*self.size)
        elif command == "H":
            row, column = (int(n) for n in (numbers or "1;1").split(";"))
            self._row, self._column = row - 1, column - 1
        elif command == "J":
            assert numbers == "2"
            self.clears += 1
            self.resize(*self.size)
        else:
            assert command == "m", f"unknown command {command}"
            self.styles.add(numbers)

    def _put(self, text: str) -> None:
        for letter in text:
            # A resize reaches the program a moment after the screen; that frame is drawn again.
            if self._row < len(self.lines) and self._column < len(self.lines[0]):
                self.lines[self._row][self._column] = letter
            self._column += 1


class Session:
    """A program whose standard streams are a terminal, except those that are given.

    Parameters
    ----------
    command : sequence of str
    size : (int, int)
        Columns and lines.
    environment : mapping
        Variables in addition to the test's own.
    streams : file descriptors
        `stdin`, where that is no terminal; the terminal is `/dev/tty` all the same.
    """

    def __init__(
        self,
        command: Sequence[str],
        size: tuple[int, int] = (80, 24),
        environment: Mapping[str, str] | None = None,
        **streams: Any,
    ) -> None:
        self.screen = Screen(*size)
        self._master, self._slave = pty.openpty()
        self._unseen = b""
        self._set_size()
        self.modes_before = termios.tcgetattr(self._slave)
        keep = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR"}}
        self.process = subprocess.Popen(
            # Who leads a session and opens a terminal has it as its own: its keys become signals,
            # and /dev/tty opens. A function in the fork of a process with threads may hang.
            ["sh", "-c", ': <"$0"; exec "$@"', os.ttyname(self._slave), *command],
            stdin=streams.get("stdin", self._slave),
            stdout=self._slave,
            stderr=self._slave,
            env={**keep, "TERM": "xterm-256color", **(environment or {})},
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    @property
    def is_restored(self) -> bool:
        """Whether the terminal is as it was before the program."""
        is_itself = termios.tcgetattr(self._slave) == self.modes_before
        return is_itself and self.screen.modes == {25, 7}

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(columns, lines)
        self._set_size()

    def wait_for(self, wanted: str | Callable[[Screen], bool]) -> str:
        """Wait until a text is on the screen, or a function of it is true; return the screen."""
        is_there = (lambda screen: wanted in str(screen)) if isinstance(wanted, str) else wanted
        end_s = time.monotonic() + PATIENCE_S
        while self.screen.is_changing or not is_there(self.screen):
            if not self._unseen:
                ready, _, _ = select.select([self._master], [], [], end_s - time.monotonic())
                assert ready, f"never seen: {wanted}\n{self.screen}\n{self.screen.before}"
                self._unseen = os.read(self._master, 1 << 16)
            # Frame by frame: what is wanted may be gone in the next one.
            frame, end, self._unseen = self._unseen.partition(_END_OF_FRAME)
            self.screen.feed(frame + end)
        return str(self.screen)

    def stop_reading_within_a_frame(self) -> None:
        """Read until a frame larger than any buffer has begun, and nothing of what follows."""
        self.resize(1000, 1000)
        data = b""
        while b"\x1b[2J" not in data:
            data = data[-8:] + os.read(self._master, 16)

    def wait_for_words(self, *words: str) -> str:
        """Wait until the lines written outside of the full screen hold all these, in order."""
        pattern = re.compile(".*".join(map(re.escape, words)), re.DOTALL)
        self.wait_for(lambda screen: bool(pattern.search(screen.before)))
        return self.screen.before

    def end(self) -> int:
        """Wait until the program has ended, and return its status; read what it wrote last."""
        self.screen.feed(self._unseen)
        self._unseen = b""
        while self.process.poll() is None:
            ready, _, _ = select.select([self._master], [], [], 0.05)
            if ready:
                self.screen.feed(os.read(self._master, 1 << 16))
        self.screen.feed(self._rest())
        return self.process.returncode

    def _rest(self) -> bytes:
        """What the program wrote that is not read yet; the system may still be passing it on."""
        os.set_blocking(self._slave, False)
        rest, is_marked = b"", False
        while not rest.endswith(_END):
            if not is_marked:
                with contextlib.suppress(BlockingIOError):  # there is no room before more is read
                    is_marked = os.write(self._slave, _END) == len(_END)
            rest += os.read(self._master, 1 << 16)
        os.set_blocking(self._slave, True)
        return rest.removesuffix(_END)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def hang_up(self) -> int:
        """Close the terminal as a window is closed, and return the program's status."""
        os.close(self._slave)
        os.close(self._master)
        status = self.process.wait(PATIENCE_S)
        self._master, self._slave = pty.openpty()
        return status

    def _set_size(self) -> None:
        columns, lines = self.screen.size
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
