"""The writing side of one WebSocket: what the connection takes at once, and what waits."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from mdtool.services.client import Client
from mdtool.services.gateway.backlog import TOO_LARGE, TOO_MANY, Backlog, Event, Owner, Update
from mdtool.services.holdings import Tally
from mdtool.wire.websocket import CloseCode, close_frame, text_frame, text_header

_RETRY_S: Final = 0.02
_LINGER_S: Final = 2.0
"""How long a client that is closed may take to read what was written, such as why."""
_SEND_BUFFER_BYTES: Final = 1 << 16
"""What the system keeps for a client that is behind: by default, megabytes of the past."""


class Metered:
    """A connection whose bytes count against the quota of its client, and wait for that.

    Parameters
    ----------
    transport : asyncio.Transport
    client : Client
    """

    def __init__(self, transport: asyncio.Transport, client: Client) -> None:
        self._transport = transport
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write, and count what is written."""
        self._client.spend_bytes(len(data))
        self._transport.write(data)

    def get_write_buffer_size(self) -> int:
        """Return how much waits: something also while the client may be sent nothing."""
        return self._transport.get_write_buffer_size() or bool(self._client.spend_bytes(0))


class Outbox:
    """Writes to one client what the connection takes, and keeps the rest for later.

    A client that does not read costs one frame a state, whatever the rate of updates, and a bounded
    number of events. Frames go past aiohttp straight to the connection, so that one encoding serves
    every client.

    Parameters
    ----------
    transport : asyncio.Transport or Metered
        The connection of a WebSocket that is prepared, without compression.
    tally : Tally
        Where messages are counted.
    patience_s : float
        How long the client may read nothing while frames wait for it.
    last_message : callable, optional
        Returns the text that precedes a close frame, from its code and reason.
    """

    __slots__ = (
        *("_backlog", "_held", "_is_closed", "_last_message", "_patience_s", "_stuck_s"),
        *("_is_tls", "_socket", "_tally", "_timer", "_transport"),
    )

    def __init__(
        self,
        transport: asyncio.Transport | Metered,
        tally: Tally,
        patience_s: float,
        last_message: Callable[[int, str], bytes] | None = None,
    ) -> None:
        self._transport = transport
        self._tally = tally
        self._patience_s = patience_s
        self._last_message = last_message
        self._backlog = Backlog()
        self._held: list[Update] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stuck_s = 0.0
        self._is_closed = False
        self._is_tls = transport.get_extra_info("sslcontext") is not None
        self._socket = transport.get_extra_info("socket")
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)

    header = staticmethod(text_header)

    def send(self, update: Update) -> None:
        """Write the latest of a state or an event, or keep it."""
        if self._held is None and self._is_idle():
            self._transport.write(update[2])
            self._tally.sent += 1
        else:
            self._keep(update)

    def send_all(self, updates: Sequence[Update]) -> None:
        """Write several updates at once, or keep them."""
        if self._held is None and self._is_idle():
            self._transport.write(b"".join([update[2] for update in updates]))
            self._tally.sent += len(updates)
        else:
            for update in updates:
                self._keep(update)

    def post(self, text: bytes) -> None:
        """Write a message, or keep it; a client with too many of them is closed."""
        frame = text_frame(text)
        if self._is_idle():
            self._transport.write(frame)
            self._tally.sent += 1
        elif not self._is_closed:
            if self._backlog.add(frame):
                self._write_later()
            else:
                self._give_up(TOO_MANY)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Write updates of the block at its end, so that a message posted in it precedes them.

        The block must not await.
        """
        self._held = []
        try:
            yield
        finally:
            updates, self._held = self._held, None
            if updates:
                self.send_all(updates)

    def forget(self, owner: Owner) -> None:
        """Drop what is not written of an owner's updates."""
        self._backlog.forget(owner)
        if self._held:
            self._held = [update for update in self._held if update[0] is not owner]

    def end(self, code: int, reason: str) -> None:
        """Write everything now, before the connection is closed in order."""
        if self._last_message is not None:
            self.post(self._last_message(code, reason))
        if self._backlog and not self._transport.is_closing():
            self._write_all()
        self.close()

    def close(self) -> None:
        """Drop what is not written, and write no more; a connection that takes nothing is cut."""
        self._is_closed = True
        self._backlog.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._unsent_bytes():
            # Else it stays until the client reads, which may be never.
            self._timer = asyncio.get_running_loop().call_later(_LINGER_S, self._abort)

    def _unsent_bytes(self) -> int:
        """Return what the client has not taken; 0 once TLS is closing, which ends by itself.

        A transport of asyncio's TLS that is closed twice has no buffer to ask for.
        """
        if self._is_tls and self._transport.is_closing():
            return 0
        return self._transport.get_write_buffer_size()

    def _is_idle(self) -> bool:
        transport = self._transport
        return not (
            self._backlog.frames
            or transport.is_closing()
            or transport.get_write_buffer_size()
            or self._is_closed
        )

    def _keep(self, update: Update) -> None:
        if self._held is not None:
            self._held.append(update)
        elif not self._is_closed:
            replaced = self._backlog.keep(*update)
            if isinstance(update[1], Event):
                self._tally.dropped += replaced
            else:
                self._tally.conflated += replaced
            if self._backlog.is_too_large:
                self._give_up(TOO_LARGE)
            else:
                self._write_later()

    def _write_later(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._stuck_s = loop.time()
            self._timer = loop.call_later(_RETRY_S, self._retry)

    def _retry(self) -> None:
        """Write everything that waits, if the transport's buffer is empty."""
        self._timer = None
        if self._transport.is_closing():
            self.close()
        elif self._transport.get_write_buffer_size() == 0:
            self._write_all()
        elif asyncio.get_running_loop().time() - self._stuck_s > self._patience_s:
            self._give_up(f"nothing was read for {self._patience_s:g} s")
        else:
            self._timer = asyncio.get_running_loop().call_later(_RETRY_S, self._retry)

    def _write_all(self) -> None:
        frames = self._backlog.take()
        self._transport.write(b"".join(frames))
        self._tally.sent += len(frames)

    def _give_up(self, reason: str) -> None:
        """Close the connection; the client learns why if it resumes reading in time."""
        self._tally.behind += 1
        code, write = CloseCode.BEHIND, self._transport.write
        if self._last_message is not None:
            write(text_frame(self._last_message(code, reason)))
        write(close_frame(code, reason))
        self._transport.close()
        self.close()

    def _abort(self) -> None:
        if self._socket.fileno() >= 0:  # else it is lost already
            self._transport.abort()
