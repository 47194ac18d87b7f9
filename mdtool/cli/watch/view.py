"""The loop of the watch: keys in, pictures out, until its user or a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Final

from rich.console import Console

from mdtool.adapters.vwap_feed import VwapFeedClient, decode_states
from mdtool.cli.live.frame import printable
from mdtool.cli.live.held_messages import HeldMessages
from mdtool.cli.live.interrupts import Interrupts
from mdtool.cli.live.keys import KeySplitter
from mdtool.cli.live.painter import Painter
from mdtool.cli.live.palette import ASCII, THEME, UNICODE
from mdtool.cli.live.terminal import Terminal, TerminalGoneError, open_terminal
from mdtool.cli.watch.columns import Look
from mdtool.cli.watch.drawing import Connection, draw
from mdtool.cli.watch.quotes import Quotes
from mdtool.cli.watch.selection import Selection
from mdtool.core.errors import EXIT_OK
from mdtool.core.rates import Rates
from mdtool.core.units import NS_PER_S

FRAMES_PER_S: Final = 10
REPAINT_EVERY_S: Final = 1.0
"""Whatever another process wrote on the screen stands no longer."""
_SAID_FOR_S: Final = 5.0
"""How long it is said that lines were not understood, after the last of them."""


class View:
    """A feed's states on the screen, and keys that arrange them.

    Parameters
    ----------
    feed : VwapFeedClient
        Not running yet; it will in a thread of its own.
    """

    def __init__(self, feed: VwapFeedClient) -> None:
        console = Console(theme=THEME, highlight=False, markup=False, emoji=False)
        self._is_ascii = console.options.ascii_only
        self._painter = Painter(console)
        self._feed = feed
        self._state = _FeedState()
        self._selection = Selection()
        self._keys = KeySplitter()
        self._rates = Rates(NS_PER_S)
        self._size = (0, 0)
        self._repaint_s = 0.0

    def run(self) -> int:
        """Take the terminal and show the feed until the user quits or a signal ends it.

        Returns
        -------
        int
            The exit status.
        """
        with (
            open_terminal("watch") as terminal,
            HeldMessages() as messages,
            Interrupts(terminal.leave) as interrupts,
            terminal,
        ):
            threading.Thread(target=self._run_feed, name="watch-feed", daemon=True).start()
            with contextlib.suppress(TerminalGoneError):
                self._loop(terminal, interrupts, messages)
        return EXIT_OK if interrupts.status is None else interrupts.status

    def _run_feed(self) -> None:
        try:
            asyncio.run(self._feed.follow(self._state))
        except BaseException as error:  # noqa: BLE001 - whoever draws raises it
            self._state.crash = error

    def _loop(self, terminal: Terminal, interrupts: Interrupts, messages: HeldMessages) -> None:
        next_s = time.monotonic()
        while interrupts.status is None and not self._selection.is_over:
            if interrupts.is_suspended:
                terminal.leave()
                interrupts.stop()
                terminal.enter()
                self._size = (0, 0)
            typed = terminal.read(max(next_s - time.monotonic(), 0))
            for key in self._keys.feed(typed) if typed else self._keys.flush():
                self._selection.obey(key)
            self._show(terminal, messages.last)
            now_s = time.monotonic()
            if now_s >= next_s:
                next_s = max(next_s + 1 / FRAMES_PER_S, now_s)

    def _show(self, terminal: Terminal, notice: str) -> None:
        now_s = time.monotonic()
        size = terminal.size()
        if size != self._size:
            self._size = size
            self._painter.clear()
        elif now_s >= self._repaint_s:
            self._painter.repaint()
        if now_s >= self._repaint_s:
            self._repaint_s = now_s + REPAINT_EVERY_S
        look = Look(ASCII if self._is_ascii else UNICODE, self._is_ascii, now_s)
        with self._state.lock:
            if self._state.crash is not None:
                raise self._state.crash
            now_ns, updates = time.monotonic_ns(), self._state.quotes.updates
            self._rates.update(now_ns, updates)
            [rate] = self._rates.per_second(now_ns, updates)
            connection = self._state.connection(self._feed.address, now_s, rate, notice)
            lines = draw(self._state.quotes, connection, self._selection, look, size)
        terminal.write(self._painter.paint(lines))


class _FeedState:
    """What the feed's thread was told, to be looked at with its `lock`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.quotes = Quotes()
        self.crash: BaseException | None = None
        self._is_live = False
        self._reason = ""
        self._retry_at_s = 0.0
        self._attempts = 0
        self._bad_lines = 0
        self._bad_line = ""
        self._bad_until_s = 0.0

    def connected(self) -> None:
        with self.lock:
            self._is_live = True
            self._reason = ""

    def received(self, lines: list[bytes]) -> None:
        states, errors = decode_states(lines)
        now_s = time.monotonic()
        with self.lock:
            for state in states:
                self.quotes.take(state, now_s)
            if errors:
                self._bad_lines += len(errors)
                self._bad_line = str(errors[-1])
                self._bad_until_s = now_s + _SAID_FOR_S

    def lost(self, reason: str, delay_s: float, attempts: int) -> None:
        with self.lock:
            self._is_live = False
            self._reason = reason
            self._retry_at_s = time.monotonic() + delay_s
            self._attempts = attempts

    def connection(self, address: str, now_s: float, rate: float, notice: str) -> Connection:
        """Return how the feed is; the lock is held."""
        if now_s < self._bad_until_s:
            notice = f"{self._bad_lines:,} lines were not understood, the last: {self._bad_line}"
        return Connection(
            address=printable(address),
            is_live=self._is_live,
            reason=printable(self._reason),
            retry_s=max(self._retry_at_s - now_s, 0.0),
            attempts=self._attempts,
            rate=rate,
            notice=printable(notice),
        )
