"""What full-screen views share: colours and glyphs, lines of text, the painter, and their loop."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

from rich.console import Console
from rich.text import Text
from rich.theme import Theme

from mdtool.cli.terminal import (
    DeferredMessages,
    Interrupts,
    KeySplitter,
    Terminal,
    TerminalGoneError,
)
from mdtool.core.errors import EXIT_OK

THEME: Final = Theme(
    {
        "bid": "green",
        "ask": "red",
        "best.bid": "bold green",
        "best.ask": "bold red",
        "best": "bold",
        "faint": "dim",
        "symbol": "bold",
        "key": "bold",
        "good": "green",
        "calm": "cyan",
        "warn": "yellow",
        "bad": "bold red",
        "warn.badge": "reverse yellow",
        "bad.badge": "reverse bold red",
    },
    inherit=False,
)
"""The terminal's own sixteen colours, which suit light and dark backgrounds."""
REPAINT_EVERY_S: Final = 1.0
"""The screen is repainted, since other processes may have written on it."""
_BEGIN: Final = "\x1b[?2026h"
_END: Final = "\x1b[?2026l"
"""Between these, a terminal that supports it shows all changes at once."""
_CLEAR: Final = "\x1b[0m\x1b[2J"
_HOME: Final = "\x1b[H"
"""Moves the cursor to the top, where output of another process does not scroll the screen."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters besides letters and digits, each one column wide."""

    bar: str = "━"
    bar_left: str = "╺"
    bar_right: str = "╸"
    rule: str = "─"
    done: str = "━"
    wall: str = "│"
    cross: str = "┼"
    tee_right: str = "├"
    times: str = "×"  # noqa: RUF001 - intended
    playing: str = "►"
    paused: str = "❚❚"
    ended: str = "■"
    broken: str = "✗"
    live: str = "●"
    buy: str = "▲"
    sell: str = "▼"
    neither: str = "·"
    minus: str = "−"  # noqa: RUF001 - as wide as the digits beside it


UNICODE: Final = Glyphs()
ASCII: Final = Glyphs(
    bar="=",
    bar_left="-",
    bar_right="-",
    rule="-",
    done="=",
    wall="|",
    cross="+",
    tee_right="+",
    times="x",
    playing=">",
    paused="||",
    ended="#",
    broken="!",
    live="*",
    buy="^",
    sell="v",
    neither=".",
    minus="-",
)
"""For terminals whose encoding is ASCII."""


def fit(line: Text, columns: int) -> Text:
    """Cut or pad a line to a width, in place."""
    line.truncate(max(columns, 0), overflow="crop", pad=True)
    return line


def apart(left: Text, right: Text, columns: int) -> Text:
    """Return a line with a text at each end; the right one has priority."""
    room = columns - right.cell_len
    return fit(fit(left, room) + right, columns)


def count_text(count: float) -> str:
    """Return a count or a rate with separated thousands, and a decimal if it is small."""
    return f"{count:,.1f}" if 0 < count < 10 and count % 1 else f"{count:,.0f}"


def printable(text: str) -> str:
    """Return a text without characters that a terminal would interpret."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def too_small(columns: int, lines: int, least: tuple[int, int]) -> list[Text]:
    """Return the lines of a terminal that is smaller than the least columns and lines."""
    text = Text(f"{least[0]}x{least[1]} at least", "warn")
    drawn = [text, *(Text() for _ in range(lines))]
    return [fit(line, columns) for line in drawn[:lines]]


def help_lines(entries: Sequence[tuple[str, str]], columns: int) -> list[Text]:
    """Return a line for each key and its meaning."""
    drawn = []
    for key, meaning in entries:
        line = Text("   ").append(f"{key:12}", "key").append(meaning)
        drawn.append(fit(line, columns))
    return drawn


def hints_line(
    hints: Sequence[tuple[str, str, int]], columns: int, absent: Collection[str] = ()
) -> Text:
    """Return keys with their meanings, as many as there is room for.

    Parameters
    ----------
    hints : sequence of (str, str, int)
        A key, its meaning and its rank; lower ranks have priority.
    columns : int
    absent : collection of str
        Meanings that are left out; no other hints take their room.
    """
    room, ranks = columns, set()
    for key, meaning, rank in sorted(hints, key=lambda hint: hint[2]):
        room -= len(key) + len(meaning) + 3
        if room >= 0:
            ranks.add(rank)
    line = Text(" ")
    for key, meaning, rank in hints:
        if rank in ranks and meaning not in absent:
            line.append(key, "key").append(f" {meaning}  ", "faint")
    return line


def new_console() -> Console:
    """Return the console of a view, which formats styles for the terminal."""
    return Console(theme=THEME, highlight=False, markup=False, emoji=False)


class Painter:
    """Knows what is on the screen, and encodes what changes, so that nothing flickers.

    Parameters
    ----------
    console : Console
        Formats styles for its terminal; nothing is written to it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines: list[str] = []
        self._is_clear = False

    def paint(self, lines: Sequence[Text]) -> bytes:
        """Return the bytes that make the screen show these lines, all of one width.

        Empty when it shows them already.
        """
        rendered = self._rendered(lines)
        shown: list[str | None] = [*self._lines, *[None] * (len(rendered) - len(self._lines))]
        changes = [
            f"\x1b[{row};1H{line}"
            for row, (line, before) in enumerate(zip(rendered, shown, strict=False), 1)
            if line != before
        ]
        clear = "" if self._is_clear else _CLEAR
        self._lines, self._is_clear = rendered, True
        if not changes:
            return b""
        text = f"{_BEGIN}{clear}{''.join(changes)}{_HOME}{_END}"
        return text.encode(self._console.encoding, "replace")

    def repaint(self) -> None:
        """Write every line the next time."""
        self._lines = []

    def clear(self) -> None:
        """Clear the screen the next time."""
        self._lines = []
        self._is_clear = False

    def _rendered(self, lines: Sequence[Text]) -> list[str]:
        with self._console.capture() as captured:
            self._console.print(*lines, sep="\n", soft_wrap=True, end="")
        return captured.get().split("\n")


class View(Protocol):
    """A full-screen view.

    Attributes
    ----------
    console : Console
        Made by `new_console`.
    frames_per_s : int
    """

    console: Console
    frames_per_s: int

    @property
    def is_over(self) -> bool:
        """Whether the user has quit."""
        ...

    def running(self) -> AbstractContextManager[object]:
        """Run what the view shows within a block, which begins once the terminal is taken."""
        ...

    def suspended(self) -> AbstractContextManager[object]:
        """Pause what the view shows within a block, in which the process is stopped."""
        ...

    def press(self, key: bytes) -> None:
        """Handle a key."""
        ...

    def draw(self, size: tuple[int, int], notice: str, *, is_due: bool) -> Sequence[Text] | None:
        """Return the lines of a screen, None when they have not changed and no repaint is due.

        Parameters
        ----------
        size : (int, int)
            Columns and lines.
        notice : str
            The last message on stderr.
        is_due : bool
            Whether to return the lines in any case.
        """
        ...


def show(view: View, terminal: Terminal) -> int:
    """Show a view until its user quits or a signal ends it.

    Returns
    -------
    int
        The exit status.
    """
    loop = _Loop(view, terminal)
    with loop.messages, loop.interrupts, terminal, view.running(), suppress(TerminalGoneError):
        loop.run()
    return EXIT_OK if loop.interrupts.status is None else loop.interrupts.status


class _Loop:
    """Passes keys to a view, and writes its frames."""

    def __init__(self, view: View, terminal: Terminal) -> None:
        self.messages = DeferredMessages()
        self.interrupts = Interrupts(terminal.leave)
        self._view = view
        self._terminal = terminal
        self._painter = Painter(view.console)
        self._keys = KeySplitter()
        self._size = (0, 0)
        self._repaint_s = 0.0

    def run(self) -> None:
        view = self._view
        next_s = time.monotonic()
        while self.interrupts.status is None:
            if self.interrupts.is_suspended:
                self._suspend()
            typed = self._terminal.read(max(next_s - time.monotonic(), 0))
            for key in self._keys.feed(typed) if typed else self._keys.flush():
                view.press(key)
            if view.is_over:
                return
            self._draw()
            now_s = time.monotonic()
            if now_s >= next_s:
                next_s = max(next_s + 1 / view.frames_per_s, now_s)

    def _suspend(self) -> None:
        """Restore the terminal until the process is continued."""
        with self._view.suspended():
            self._terminal.leave()
            self.interrupts.stop()
            self._terminal.enter()
        self._size = (0, 0)

    def _draw(self) -> None:
        now_s = time.monotonic()
        size = self._terminal.size()
        is_due = now_s >= self._repaint_s or size != self._size
        lines = self._view.draw(size, self.messages.last, is_due=is_due)
        if lines is None:
            return
        if size != self._size:
            self._size = size
            self._painter.clear()
        elif now_s >= self._repaint_s:
            self._painter.repaint()
        if now_s >= self._repaint_s:
            self._repaint_s = now_s + REPAINT_EVERY_S
        self._terminal.write(self._painter.paint(lines))
