"""The connection to a VWAP feed, opened again whenever it is lost."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Final, Protocol

from mdtool.core.addresses import format_address
from mdtool.core.backoff import delays
from mdtool.core.tcp import notice_loss
from mdtool.wire.vwap_lines import encode_subscribe, is_of

FIRST_DELAY_S: Final = 0.25
LONGEST_DELAY_S: Final = 10.0
MAX_LINE_BYTES: Final = 1 << 20
_CONNECT_S: Final = 10.0
_READ_BYTES: Final = 1 << 18


class Receiver(Protocol):
    """Whoever is told what comes of a feed, in the thread that runs it."""

    def connected(self) -> None:
        """There is a connection."""
        ...

    def received(self, lines: list[bytes]) -> None:
        """Whole lines came, without their ends."""
        ...

    def lost(self, reason: str, delay_s: float, attempts: int) -> None:
        """There is no connection; it is tried again after a while.

        `attempts` is how often it was tried in vain since the last line that came.
        """
        ...


class LineFeed:
    """Reads lines from an address.

    Parameters
    ----------
    host : str
    port : int
    wanted : frozenset of str or None
        The symbols that are asked for on each connection, None for all. A feed tells all that it
        knows before it is asked: of that, states of others are left out.
    """

    def __init__(self, host: str, port: int, wanted: frozenset[str] | None = None) -> None:
        self.address = format_address(host, port)
        self._where = (host, port)
        self._wanted = wanted
        self._is_closed = threading.Event()
        self._connection: socket.socket | None = None

    def run(self, receiver: Receiver) -> None:
        """Tell what comes until closed."""
        attempts = 0
        waits = delays(FIRST_DELAY_S, LONGEST_DELAY_S)
        while not self._is_closed.is_set():
            try:
                for lines in self._lines(receiver):
                    attempts, waits = 0, delays(FIRST_DELAY_S, LONGEST_DELAY_S)
                    receiver.received(self._chosen(lines))
            except _LostError as error:
                if self._is_closed.is_set():
                    return
                attempts += 1
                delay_s = next(waits)
                receiver.lost(str(error), delay_s, attempts)
                self._is_closed.wait(delay_s)

    def close(self) -> None:
        """Let `run` end, from another thread."""
        self._is_closed.set()
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _chosen(self, lines: list[bytes]) -> list[bytes]:
        wanted = self._wanted
        return lines if wanted is None else [line for line in lines if is_of(line, wanted)]

    def _lines(self, receiver: Receiver) -> Iterator[list[bytes]]:
        """Yield whole lines as they come, until closed or lost."""
        with _told_apart():
            connection = socket.create_connection(self._where, _CONNECT_S)
        with connection:
            self._connection = connection
            with _told_apart():
                connection.settimeout(None)
                notice_loss(connection)
                if self._wanted is not None:
                    connection.sendall(encode_subscribe(self._wanted))
            receiver.connected()
            rest = b""
            while not self._is_closed.is_set():
                with _told_apart():
                    data = connection.recv(_READ_BYTES)
                if not data:
                    raise _LostError("the feed closed the connection")
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > MAX_LINE_BYTES:
                    raise _LostError("what is sent there are no lines")
                if lines:
                    yield lines


class _LostError(Exception):
    """There is no connection, or none that makes sense."""


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
    """Tell errors of the connection from those of whoever receives."""
    try:
        yield
    except OSError as error:
        raise _LostError(error.strerror or str(error)) from error
    except UnicodeError as error:
        raise _LostError("no such host") from error
