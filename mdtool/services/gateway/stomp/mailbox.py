"""A SockJS session without WebSocket: its client comes and asks for what there is to tell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Final

from aiohttp import web

from mdtool.services.gateway.backlog import TOO_LARGE, TOO_MANY, Backlog, Update
from mdtool.services.gateway.closing import CloseCode
from mdtool.services.gateway.stomp.connection import Connection
from mdtool.services.gateway.tallies import SocketTally
from mdtool.wire import sockjs

_BEAT_S: Final = 25.0
_LOOK_S: Final = 1.0
"""How often it is seen whether a client that waits is still there."""
_ABSENCE_S: Final = 5.0
"""How long a session outlives the last request of its client."""
BUSY: Final = sockjs.close(2010, "Another connection still open")
"""What a request is answered with while another one waits."""


class Mailbox:
    """What a client is to be told, until it asks.

    Parameters
    ----------
    tally : SocketTally
        Where messages are counted.
    expire : callable
        Called once the client did not ask for too long.

    Attributes
    ----------
    connection : Connection
        Whose mailbox it is; to be set.
    """

    connection: Connection

    def __init__(self, tally: SocketTally, expire: Callable[[], None]) -> None:
        self._tally = tally
        self._expire = expire
        self._backlog = Backlog()
        self._backlog.add(sockjs.OPEN)
        self._farewell: bytes | None = None
        self._has_more = asyncio.Event()
        self._is_attended = False
        self._expiry: asyncio.TimerHandle | None = None

    def header(self, _length: int) -> bytes:
        """Return what stands before a frame: nothing."""
        return b""

    def send(self, update: Update) -> None:
        """Keep the latest of a state."""
        if self._farewell is None:
            self._tally.conflated += self._backlog.keep(*update)
            if self._backlog.is_too_large:
                self.give_up(TOO_LARGE)
            else:
                self._has_more.set()

    def send_all(self, updates: Sequence[Update]) -> None:
        """Keep the latest of several states."""
        for update in updates:
            self.send(update)

    def post(self, text: bytes) -> None:
        """Keep an event; a client that lets too many lie has to leave."""
        if self._farewell is None:
            if self._backlog.add(text):
                self._has_more.set()
            else:
                self.give_up(TOO_MANY)

    def forget(self, owner: Hashable) -> None:
        """Drop the states of an owner."""
        self._backlog.forget(owner)

    def end(self, code: CloseCode, reason: str) -> None:
        """Tell what there is, then that this was all."""
        if self._farewell is None:
            self._farewell = sockjs.close(code, reason)
            self._has_more.set()

    def give_up(self, reason: str) -> None:
        """Have a client that does not read leave."""
        if self._farewell is None:
            self._tally.behind += 1
            self._backlog.clear()
            self.connection.leave(CloseCode.BEHIND, reason)

    def close(self) -> None:
        """Tell nobody anything any more."""
        self.end(CloseCode.NORMAL, "")
        if self._expiry is not None:
            self._expiry.cancel()

    @contextlib.contextmanager
    def attended(self) -> Iterator[Mailbox | None]:
        """Have a request of the client wait within the block; None where one does already."""
        if self._is_attended:
            yield None
            return
        self._is_attended = True
        if self._expiry is not None:
            self._expiry.cancel()
        try:
            yield self
        finally:
            self._is_attended = False
            self._expiry = asyncio.get_running_loop().call_later(_ABSENCE_S, self._expire)

    async def frames(self, request: web.Request) -> tuple[Sequence[bytes], bool]:
        """Return what there is to tell as soon as there is something, and whether that was all.

        To a client that is gone there is nothing to tell, and that was all.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while loop.time() - began_s < _BEAT_S:
            self._has_more.clear()
            if frames := list(self._backlog.take()):
                self._tally.sent += len(frames)
                return frames, False
            if self._farewell is not None:
                return [self._farewell], True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._has_more.wait()
            if request.transport is None or request.transport.is_closing():
                return [], True
        return [sockjs.BEAT], False
