"""What `watch` prints where there is no table: the lines of a feed, or text for logs."""

from __future__ import annotations

import asyncio
import logging
import select
import sys
from collections.abc import Callable
from typing import NoReturn

from mdtool.adapters.gateway_stream import GatewayStreamClient
from mdtool.adapters.vwap_feed import VwapFeedClient
from mdtool.cli.screen import printable
from mdtool.core.units import format_price, format_time
from mdtool.wire.alert_lines import decode_alert, is_alert
from mdtool.wire.vwap_lines import LineError, decode_state

log = logging.getLogger(__name__)


def plain_line(line: bytes) -> bytes:
    """Return a line of the feed as text for people, with the time of the market first."""
    try:
        if is_alert(line):
            alert = decode_alert(line)
            begin = "" if alert.end is None else f", since {alert.begin}"
            text = (
                f"{alert.end or alert.begin} {alert.symbol} alert {alert.kind} {alert.severity} "
                f"{'begins' if alert.end is None else 'ended'}: {alert.value} against "
                f"{alert.baseline}{begin}"
            )
        else:
            state = decode_state(line)
            text = (
                f"{format_time(state.timestamp_ns)} {state.symbol} {format_price(state.price)} "
                f"size {format_price(state.size)} vwap {format_price(state.vwap) or '-'} "
                f"of {state.window}{' stale' if state.is_stale else ''}"
            )
    except LineError as error:
        text = f"not understood: {error}"
    return printable(text).encode()


def print_lines(
    feed: VwapFeedClient | GatewayStreamClient, form: Callable[[bytes], bytes] | None
) -> NoReturn:
    """Print lines until the reader of standard output closes it, which raises BrokenPipeError."""
    asyncio.run(feed.follow(_Printer(feed.address, form)))


class Losses:
    """Logs each reason of a lost connection once, until there is one.

    Parameters
    ----------
    address : str
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._reported = ""

    def connected(self) -> None:
        """Take note of a connection."""
        self._reported = ""

    def lost(self, reason: str) -> None:
        """Log a reason; raise BrokenPipeError once the reader of standard output closed it."""
        if _is_closed(sys.stdout.fileno()):
            raise BrokenPipeError
        if reason != self._reported:
            self._reported = reason
            log.warning("%s: %s; trying again", self._address, reason)


class _Printer:
    """Prints the lines of a feed, and logs each reason of a lost connection. A `Listener`.

    Parameters
    ----------
    address : str
    form : callable or None
        Returns what is printed of a line, by default itself.
    """

    def __init__(self, address: str, form: Callable[[bytes], bytes] | None = None) -> None:
        self._form = form
        self._losses = Losses(address)

    def connected(self) -> None:
        self._losses.connected()

    def received(self, lines: list[bytes]) -> None:
        printed = lines if self._form is None else map(self._form, lines)
        sys.stdout.buffer.writelines(line + b"\n" for line in printed)
        sys.stdout.buffer.flush()

    def lost(self, reason: str, _delay_s: float, _attempts: int) -> None:
        self._losses.lost(reason)


def _is_closed(fd: int) -> bool:
    """Return whether the reader of a pipe has closed it, without writing to it."""
    poller = select.poll()
    poller.register(fd, 0)
    return bool(poller.poll(0))
