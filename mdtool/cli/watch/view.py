"""The view of the watch: a feed's states on the whole terminal, and the keys that arrange them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final

from rich.text import Text

from mdtool.adapters.gateway_stream import GatewayStreamClient
from mdtool.adapters.vwap_feed import VwapFeedClient, decode_states
from mdtool.cli.screen import ASCII, UNICODE, new_console, printable
from mdtool.cli.watch.drawing import COLUMNS, Column, Connection, Look, alert_text, draw
from mdtool.cli.watch.quotes import Quotes
from mdtool.cli.watch.selection import Selection
from mdtool.core.rates import Rates
from mdtool.core.units import NS_PER_S
from mdtool.wire.alert_lines import decode_alert, is_alert
from mdtool.wire.vwap_lines import LineError

FRAMES_PER_S: Final = 10
_NOTICE_S: Final = 5.0
"""How long lines that are not states are reported."""


class WatchView:
    """A `View` of a feed.

    Parameters
    ----------
    feed : VwapFeedClient or GatewayStreamClient
        It is followed in a thread of its own.
    columns : sequence of (Column, int)
        Those to show.
    """

    frames_per_s = FRAMES_PER_S

    def __init__(
        self,
        feed: VwapFeedClient | GatewayStreamClient,
        columns: Sequence[tuple[Column, int]] = COLUMNS,
    ) -> None:
        self._columns = columns
        self.console = new_console()
        is_ascii = self.console.options.ascii_only
        self._glyphs, self._is_ascii = ASCII if is_ascii else UNICODE, is_ascii
        self._feed = feed
        self._state = _FeedState()
        self._selection = Selection()
        self._rates = Rates(NS_PER_S)

    @property
    def is_over(self) -> bool:
        """Whether the user has quit."""
        return self._selection.is_over

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Follow the feed from the beginning of the block on, until the process ends."""
        threading.Thread(target=self._follow, name="watch-feed", daemon=True).start()
        yield

    def suspended(self) -> contextlib.AbstractContextManager[None]:
        """Do nothing: a stopped process follows no feed."""
        return contextlib.nullcontext()

    def press(self, key: bytes) -> None:
        """Handle a key."""
        self._selection.press(key)

    def draw(self, size: tuple[int, int], notice: str, *, is_due: bool) -> list[Text]:  # noqa: ARG002 - ages change all the time
        """Return the lines of the table as it is now."""
        now_s, now_ns = time.monotonic(), time.monotonic_ns()
        look = Look(self._glyphs, self._is_ascii, now_s, self._columns)
        with self._state.lock:
            if self._state.crash is not None:
                raise self._state.crash
            quotes = self._state.quotes
            self._rates.update(now_ns, quotes.updates)
            [rate] = self._rates.per_second(now_ns, quotes.updates)
            connection = self._state.connection(self._feed.address, now_s, rate, notice)
            return draw(quotes, connection, self._selection, look, size)

    def _follow(self) -> None:
        try:
            asyncio.run(self._feed.follow(self._state))
        except BaseException as error:  # noqa: BLE001 - `draw` raises it
            self._state.crash = error


class _FeedState:
    """What the feed's thread has received, to be read with its `lock`. A `Listener`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.quotes = Quotes()
        self.crash: BaseException | None = None
        self._is_live = False
        self._reason = ""
        self._retry_at_s = 0.0
        self._attempts = 0
        self._bad_lines = 0
        self._last_error = ""
        self._notice_until_s = self._alerted_until_s = 0.0

    def connected(self) -> None:
        with self.lock:
            self._is_live = True
            self._reason = ""

    def received(self, lines: list[bytes]) -> None:
        states, errors = decode_states(line for line in lines if not is_alert(line))
        alerts = []
        for line in filter(is_alert, lines):
            try:
                alerts.append(decode_alert(line))
            except LineError as error:
                errors.append(error)
        now_s = time.monotonic()
        with self.lock:
            for alert in alerts:
                self.quotes.alert(alert)
                self._alerted_until_s = now_s + _NOTICE_S
            for state in states:
                self.quotes.update(state, now_s)
            if errors:
                self._bad_lines += len(errors)
                self._last_error = str(errors[-1])
                self._notice_until_s = now_s + _NOTICE_S

    def lost(self, reason: str, delay_s: float, attempts: int) -> None:
        with self.lock:
            self._is_live = False
            self._reason = reason
            self._retry_at_s = time.monotonic() + delay_s
            self._attempts = attempts

    def connection(self, address: str, now_s: float, rate: float, notice: str) -> Connection:
        """Return the state of the connection; the lock is held."""
        if now_s < self._notice_until_s:
            notice = f"{self._bad_lines:,} lines were not understood, the last: {self._last_error}"
        elif now_s < self._alerted_until_s and self.quotes.latest_alert is not None:
            notice = alert_text(self.quotes.latest_alert)
        return Connection(
            address=printable(address),
            is_live=self._is_live,
            reason=printable(self._reason),
            retry_s=max(self._retry_at_s - now_s, 0.0),
            attempts=self._attempts,
            rate=rate,
            notice=printable(notice),
        )
