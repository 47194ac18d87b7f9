"""`mdtool book --live`: an order book on the whole terminal, as its stream is played."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from mdtool.adapters.dbn_files import open_merged
from mdtool.adapters.dbn_select import SchemaSource, SelectedSource, Selection
from mdtool.adapters.dbn_source import RecordSource
from mdtool.adapters.dbn_tcp import connect_source
from mdtool.cli.filter_options import RangeOptions
from mdtool.cli.live.drawing import draw
from mdtool.cli.live.feed import Feed
from mdtool.cli.live.frame import Frame
from mdtool.cli.live.held_messages import HeldMessages
from mdtool.cli.live.interrupts import Interrupts
from mdtool.cli.live.keys import Key, KeyDecoder
from mdtool.cli.live.layout import Layout
from mdtool.cli.live.observer import Observer, Origin
from mdtool.cli.live.painter import Painter
from mdtool.cli.live.palette import ASCII, THEME, UNICODE
from mdtool.cli.live.playback import FLAT_OUT, Playback
from mdtool.cli.live.terminal import Terminal, TerminalGoneError, open_terminal
from mdtool.core.addresses import parse_address
from mdtool.core.dtypes import MBO
from mdtool.core.errors import EXIT_OK, UsageError
from mdtool.engine.book.state import Books

_MBO: Final = "mbo"
FRAMES_PER_S: Final = 20
REPAINT_EVERY_S: Final = 1.0
"""Whatever another process wrote on the screen, a warning say, stands no longer."""
REAL_TIME: Final = 1.0


def run_live(inputs: Sequence[str], selected: RangeOptions, speed: float | None = None) -> int:
    """Show the books of DBN files, of `-` or of the stream at HOST:PORT until the user quits.

    Parameters
    ----------
    inputs : sequence of str
    selected : RangeOptions
        What is earlier than the start is played at once, for the books to be whole there.
    speed : float, optional
        1 is real time, 0 flat out; by default files are played in real time and what is live as
        it comes.

    Returns
    -------
    int
        The exit status.

    Raises
    ------
    UsageError
        When there is no terminal, or the options cannot be.
    MdtoolError
        When the input cannot be read or is not MBO; one that breaks off while it is shown stays
        on the screen until the user quits.
    """
    if speed is not None and not math.isfinite(speed):
        raise UsageError(f"--speed {speed}: give a number, 0 for flat out")
    selection = selected.selection() or Selection()
    with open_terminal() as terminal, _open(inputs, selection) as source:
        # Kernels are loaded, or compiled with a word about it, before the screen is taken.
        Books().apply(np.zeros(1, MBO))
        if speed is None:
            speed = REAL_TIME if source.size_bytes is not None else FLAT_OUT
        feed = Feed(source, Playback(speed, selection.start_ns))
        view = _View(feed, Observer(feed, Origin(source.metadata.dataset, source.size_bytes)))
        status = view.run(terminal)
        if feed.error is not None:
            raise feed.error
        return status


class _View:
    """The loop that reads keys and draws frames, and what only it knows."""

    def __init__(self, feed: Feed, observer: Observer) -> None:
        console = Console(theme=THEME, highlight=False, markup=False, emoji=False)
        self._signs = ASCII if console.options.ascii_only else UNICODE
        self._feed = feed
        self._observer = observer
        self._painter = Painter(console)
        self._is_help = False
        self._repaint_s = 0.0
        self._shown: tuple[Frame, Layout, bool] | None = None

    def run(self, terminal: Terminal) -> int:
        """Show frames until the user quits or a signal ends it; return the exit status."""
        keys = KeyDecoder()
        with (
            HeldMessages() as messages,
            Interrupts(terminal.leave) as interrupts,
            terminal,
        ):
            self._feed.start()
            try:
                next_s = time.monotonic()
                while interrupts.status is None:
                    if interrupts.is_suspended:
                        terminal.leave()
                        interrupts.stop()
                        terminal.enter()
                        self._shown = None
                    typed = terminal.read(max(next_s - time.monotonic(), 0))
                    for key in keys.feed(typed):
                        if key is Key.QUIT:
                            return EXIT_OK
                        self._obey(key)
                    self._show(terminal, messages.last)
                    now_s = time.monotonic()
                    if now_s >= next_s:
                        next_s = max(next_s + 1 / FRAMES_PER_S, now_s)
            except TerminalGoneError:
                return EXIT_OK
            finally:
                self._feed.close()
        return interrupts.status or EXIT_OK

    def _obey(self, key: Key) -> None:
        if key is Key.HELP:
            self._is_help = not self._is_help
            return
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

    def _show(self, terminal: Terminal, notice: str) -> None:
        layout = Layout.of(*terminal.size())
        if self._shown is None or self._shown[1] != layout:
            self._painter.clear()
        with self._feed.held():
            if self._feed.crash is not None:
                raise self._feed.crash
            frame = self._observer.look(
                layout.depth, layout.prints, time.monotonic_ns(), time.time_ns(), notice
            )
        shown = (frame, layout, self._is_help)
        now_s = time.monotonic()
        if now_s >= self._repaint_s:
            self._painter.repaint()
        if shown != self._shown or now_s >= self._repaint_s:
            self._shown = shown
            self._repaint_s = now_s + REPAINT_EVERY_S
            lines = draw(frame, layout, self._signs, is_help=self._is_help)
            terminal.write(self._painter.paint(lines))


def _open(inputs: Sequence[str], selection: Selection) -> RecordSource:
    address = _address(inputs[0]) if len(inputs) == 1 else None
    if address is None:
        source = open_merged(inputs, _MBO)
    else:
        connected = connect_source(*address)
        try:
            source = SchemaSource(connected, _MBO)
        except BaseException:
            connected.close()
            raise
    # Books need what came before the start.
    selection = dataclasses.replace(selection, start_ns=None)
    return source if selection == Selection() else SelectedSource(source, selection)


def _address(text: str) -> tuple[str, int] | None:
    """Return what HOST:PORT names, None for what is a file or standard input."""
    if Path(text).exists():
        return None
    try:
        return parse_address(text)
    except UsageError:
        return None
