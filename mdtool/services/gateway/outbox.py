"""The writing side of one WebSocket: what the connection takes at once, and what waits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Hashable
from typing import Final

from mdtool.services.gateway.backlog import MAX_EVENTS, Backlog
from mdtool.services.gateway.closing import CloseCode
from mdtool.services.gateway.tallies import SocketTally
from mdtool.wire.websocket import close_frame, text_frame

NOWHERE: Final = -1
_RETRY_S: Final = 0.02
_LINGER_S: Final = 2.0
"""How long a client that is closed for being behind may take to read why."""
_SEND_BUFFER_BYTES: Final = 1 << 16
"""What the system keeps for a client that is behind: by default, megabytes of the past."""


class Outbox:
    """Writes to one client what the connection takes, and keeps the rest for later.

    What a client that does not read can cost is one text a state, whatever the rate of updates,
    and a bounded number of events. Texts go past aiohttp straight to the connection, so that one
    encoding serves every client and no task has to wake for each of them.

    Parameters
    ----------
    transport : asyncio.Transport
        The connection of a WebSocket that is prepared, without compression.
    tally : SocketTally
        Where messages are counted.
    patience_s : float
        How long the client may read nothing of what waits for it.
    farewell : callable
        What is written before the connection is closed, from a code and a reason.
    """

    __slots__ = (
        *("_backlog", "_descriptor", "_farewell", "_is_closed", "_patience_s", "_stuck_s"),
        *("_tally", "_timer", "_transport"),
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        tally: SocketTally,
        patience_s: float,
        farewell: Callable[[int, str], bytes] = close_frame,
    ) -> None:
        self._transport = transport
        self._tally = tally
        self._patience_s = patience_s
        self._farewell = farewell
        self._backlog = Backlog()
        self._timer: asyncio.TimerHandle | None = None
        self._stuck_s = 0.0
        self._is_closed = False
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._descriptor: int = connection.fileno()

    def descriptor(self) -> int:
        """Return the socket that takes the next frame at once, NOWHERE if none does."""
        transport = self._transport
        if self._backlog.texts or transport.get_write_buffer_size() or transport.is_closing():
            return NOWHERE
        return self._descriptor

    def send(self, owner: Hashable, state: Hashable, text: bytes) -> None:
        """Write the latest of a state, or keep it in place of what was not written."""
        if self._is_idle():
            self._write(text)
        elif not self._is_closed:
            self._tally.conflated += self._backlog.keep(owner, state, text)
            self._try_later()

    def post(self, text: bytes) -> None:
        """Write an event, or keep it; a client with too many of them is closed."""
        if self._is_idle():
            self._write(text)
        elif not self._is_closed:
            if self._backlog.add(text):
                self._try_later()
            else:
                self._give_up(f"{MAX_EVENTS} messages wait to be read")

    def finish(self, rest: bytes) -> None:
        """Write the rest of a frame that `descriptor` took a part of, before anything else."""
        self._tally.sent += 1
        self._transport.write(rest)

    def forget(self, owner: Hashable) -> None:
        """Drop the states of an owner that are not written."""
        self._backlog.forget(owner)

    def close(self) -> None:
        """Drop what is not written, and write no more."""
        self._is_closed = True
        self._descriptor = NOWHERE
        self._backlog.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _is_idle(self) -> bool:
        return not self._is_closed and self.descriptor() != NOWHERE

    def _write(self, text: bytes) -> None:
        self._transport.write(text_frame(text))
        self._tally.sent += 1

    def _try_later(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._stuck_s = loop.time()
            self._timer = loop.call_later(_RETRY_S, self._flush)

    def _flush(self) -> None:
        self._timer = None
        transport, backlog = self._transport, self._backlog
        if transport.is_closing():
            self.close()
            return
        loop = asyncio.get_running_loop()
        while backlog.texts and transport.get_write_buffer_size() == 0:
            self._write(backlog.pop())
            self._stuck_s = loop.time()
        if loop.time() - self._stuck_s > self._patience_s:
            self._give_up(f"nothing was read for {self._patience_s:g} s")
        elif backlog.texts:
            self._timer = loop.call_later(_RETRY_S, self._flush)

    def _give_up(self, reason: str) -> None:
        """Close the client, which is told why if it reads on in time."""
        self.close()
        self._tally.behind += 1
        self._transport.write(self._farewell(CloseCode.BEHIND, reason))
        self._transport.close()
        # Until the connection is lost, and whoever holds this outbox then closes it.
        self._timer = asyncio.get_running_loop().call_later(_LINGER_S, self._transport.abort)
