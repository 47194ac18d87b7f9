"""The loop of the live view: keys in, frames out, until its user or a signal ends it."""

from __future__ import annotations

import time
from typing import Final

from rich.console import Console

from mdtool.cli.live.drawing import draw
from mdtool.cli.live.feed import Feed
from mdtool.cli.live.frame import Frame
from mdtool.cli.live.held_messages import HeldMessages
from mdtool.cli.live.interrupts import Interrupts
from mdtool.cli.live.keys import Key, KeyDecoder
from mdtool.cli.live.layout import Layout
from mdtool.cli.live.observer import Observer
from mdtool.cli.live.painter import Painter
from mdtool.cli.live.palette import ASCII, THEME, UNICODE
from mdtool.cli.live.playback import FLAT_OUT, REAL_TIME
from mdtool.cli.live.terminal import Terminal, TerminalGoneError
from mdtool.core.errors import EXIT_OK

FRAMES_PER_S: Final = 20
REPAINT_EVERY_S: Final = 1.0
"""Whatever another process wrote on the screen, a warning say, stands no longer."""


class View:
    """A feed on the screen, and keys that command it.

    Parameters
    ----------
    feed : Feed
        Not started yet.
    observer : Observer
        Of that feed.
    """

    def __init__(self, feed: Feed, observer: Observer) -> None:
        console = Console(theme=THEME, highlight=False, markup=False, emoji=False)
        self._glyphs = ASCII if console.options.ascii_only else UNICODE
        self._feed = feed
        self._observer = observer
        self._painter = Painter(console)
        self._keys = KeyDecoder()
        self._is_help = False
        self._is_over = False
        self._shown: tuple[Frame, Layout, bool] | None = None
        self._repaint_s = 0.0

    def run(self, terminal: Terminal) -> int:
        """Take the terminal and show frames until the user quits or a signal ends it.

        Returns
        -------
        int
            The exit status.
        """
        with (
            HeldMessages() as messages,
            Interrupts(terminal.leave) as interrupts,
            terminal,
        ):
            self._feed.start()
            try:
                self._loop(terminal, interrupts, messages)
            except TerminalGoneError:
                pass
            finally:
                self._feed.close()
        return EXIT_OK if interrupts.status is None else interrupts.status

    def _loop(self, terminal: Terminal, interrupts: Interrupts, messages: HeldMessages) -> None:
        next_s = time.monotonic()
        while interrupts.status is None:
            if interrupts.is_suspended:
                self._suspend(terminal, interrupts)
            typed = terminal.read(max(next_s - time.monotonic(), 0))
            for key in self._keys.feed(typed):
                self._obey(key)
            if self._is_over:
                return
            self._show(terminal, messages.last)
            now_s = time.monotonic()
            if now_s >= next_s:
                next_s = max(next_s + 1 / FRAMES_PER_S, now_s)

    def _suspend(self, terminal: Terminal, interrupts: Interrupts) -> None:
        """Give the terminal back until the process is continued; no time passes meanwhile."""
        playback = self._feed.playback
        is_playing = not playback.is_paused
        with self._feed.held():
            if is_playing:
                playback.pause_or_go_on(time.monotonic_ns())
        terminal.leave()
        interrupts.stop()
        terminal.enter()
        self._shown = None
        with self._feed.held():
            if is_playing:
                playback.pause_or_go_on(time.monotonic_ns())

    def _obey(self, key: Key) -> None:
        playback = self._feed.playback
        with self._feed.held():
            now_ns = time.monotonic_ns()
            match key:
                case Key.PAUSE:
                    playback.pause_or_go_on(now_ns)
                case Key.STEP:
                    playback.step(now_ns)
                case Key.FASTER:
                    playback.faster(now_ns)
                case Key.SLOWER:
                    playback.slower(now_ns)
                case Key.REAL_TIME:
                    playback.set_speed(REAL_TIME, now_ns)
                case Key.FLAT_OUT:
                    playback.set_speed(FLAT_OUT, now_ns)
                case Key.NEXT:
                    self._feed.show_next(1)
                case Key.PREVIOUS:
                    self._feed.show_next(-1)
                case Key.HELP:
                    self._is_help = not self._is_help
                case Key.QUIT:
                    self._is_over = True

    def _show(self, terminal: Terminal, notice: str) -> None:
        """Draw what is to be seen now, where it is not on the screen already."""
        layout = Layout.of(*terminal.size())
        with self._feed.held():
            if self._feed.crash is not None:
                raise self._feed.crash
            frame = self._observer.look(
                layout.depth, layout.prints, time.monotonic_ns(), time.time_ns(), notice
            )
        if self._shown is None or self._shown[1] != layout:
            self._painter.clear()
        now_s = time.monotonic()
        shown = (frame, layout, self._is_help)
        if shown == self._shown and now_s < self._repaint_s:
            return
        if now_s >= self._repaint_s:
            self._painter.repaint()
            self._repaint_s = now_s + REPAINT_EVERY_S
        self._shown = shown
        lines = draw(frame, layout, self._glyphs, is_help=self._is_help)
        terminal.write(self._painter.paint(lines))
