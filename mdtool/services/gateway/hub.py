"""Who follows which topic, and what each of them has still to be told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final, Protocol

from aiohttp import web

from mdtool.services.gateway.tallies import SocketTally

_RETRY_S: Final = 0.02
_SEND_BUFFER_BYTES: Final = 1 << 16
"""What the system keeps for a client that is behind: by default, megabytes of the past."""


class Subscriber(Protocol):
    """Somebody who follows topics."""

    def send(self, topic: str, frame: bytes) -> None:
        """Take the latest state of a topic, without waiting."""
        ...


class Hub:
    """Topics and their subscribers; a topic is there as long as somebody follows it."""

    def __init__(self) -> None:
        self._subscribers: dict[str, set[Subscriber]] = {}

    def __len__(self) -> int:
        return len(self._subscribers)

    def __contains__(self, topic: str) -> bool:
        return topic in self._subscribers

    def publish(self, topic: str, frame: bytes) -> None:
        """Send the same bytes to everybody who follows the topic."""
        for subscriber in self._subscribers.get(topic, ()):
            subscriber.send(topic, frame)

    @contextlib.contextmanager
    def subscription(self, topic: str, subscriber: Subscriber) -> Iterator[None]:
        """Have the subscriber follow the topic within the block."""
        self._subscribers.setdefault(topic, set()).add(subscriber)
        try:
            yield
        finally:
            followers = self._subscribers[topic]
            followers.discard(subscriber)
            if not followers:
                del self._subscribers[topic]


class Outbox:
    """Writes to one client what the connection takes, and keeps the latest of each topic else.

    What a client that does not read can cost is one frame a topic, whatever the rate of updates.

    Parameters
    ----------
    client : web.WebSocketResponse
        The client's socket, prepared and without compression.
    transport : asyncio.Transport
        Its connection. Frames go there directly, so that one encoding serves every client and no
        task has to wake for each of them.
    tally : Traffic
        Where messages are counted.
    """

    __slots__ = ("_client", "_pending", "_retry", "_tally", "_transport")

    def __init__(
        self, client: web.WebSocketResponse, transport: asyncio.Transport, tally: SocketTally
    ) -> None:
        self._client = client
        self._transport = transport
        self._tally = tally
        self._pending: dict[str, bytes] = {}
        self._retry: asyncio.TimerHandle | None = None
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)

    def send(self, topic: str, frame: bytes) -> None:
        """Write the frame, or keep it in place of an unwritten one of its topic."""
        if not self._pending and self._transport.get_write_buffer_size() == 0:
            self._write(frame)
            return
        if topic in self._pending:
            self._tally.conflated += 1
        self._pending[topic] = frame
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self._flush)

    def close(self) -> None:
        """Drop what is not written, and write no more."""
        self._pending.clear()
        if self._retry is not None:
            self._retry.cancel()

    def _flush(self) -> None:
        self._retry = None
        while self._pending and self._transport.get_write_buffer_size() == 0:
            self._write(self._pending.pop(next(iter(self._pending))))
        if self._pending:
            self._retry = asyncio.get_running_loop().call_later(_RETRY_S, self._flush)

    def _write(self, frame: bytes) -> None:
        if not (self._client.closed or self._transport.is_closing()):
            self._transport.write(frame)
            self._tally.sent += 1
