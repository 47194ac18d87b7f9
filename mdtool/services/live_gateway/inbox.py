"""The requests of one client, in order, and how many of them may wait."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import Final

from mdtool.core.errors import MdtoolError, PeerError
from mdtool.core.throttle import Throttle
from mdtool.core.units import NS_PER_S
from mdtool.wire.live import ControlError, Request, RequestDecoder, Subscribe
from mdtool.wire.live_records import Failure, invalid

_READ_BYTES: Final = 1 << 16
_REQUESTS_AHEAD: Final = 64
"""Requests that wait; while there are more, no bytes are read."""


class SessionError(PeerError):
    """The session ends with an error record.

    Attributes
    ----------
    failure : Failure
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class Inbox:
    """Reads the requests of a client.

    Parameters
    ----------
    reader : asyncio.StreamReader
    subscriptions_per_s : int
        More are delayed; 0 for no limit.

    Attributes
    ----------
    has_left : bool
        Whether the client has closed its half.
    signal : asyncio.Event
        Set when there is a request, an error, or the end of the client's half; others may set it
        for whoever waits in `arrival`. `take` clears it.
    """

    def __init__(self, reader: asyncio.StreamReader, subscriptions_per_s: int) -> None:
        self.has_left = False
        self._interruption: MdtoolError | None = None
        self._reader = reader
        self._decoder = RequestDecoder()
        self._requests: deque[Request] = deque()
        self.signal = asyncio.Event()
        self._has_room = asyncio.Event()
        self._throttle: Throttle | None = None
        if subscriptions_per_s:
            self._throttle = Throttle(subscriptions_per_s, subscriptions_per_s)

    async def first(self) -> Request | None:
        """Return the first request, None where the client leaves without one.

        Raises
        ------
        ControlError
            When the client sends what is no authentication.
        """
        while not self._requests:
            data = await self._reader.read(_READ_BYTES)
            if not data:
                return None
            self._requests.extend(self._decoder.feed(data))
        return self._requests.popleft()

    async def receive(self) -> None:
        """Read requests until the client closes its half; none of its bytes stay unread.

        After what is no request, bytes are read and dropped.
        """
        while data := await self._reader.read(_READ_BYTES):
            if self._decoder.error is not None:
                continue
            with contextlib.suppress(ControlError):  # which `take` reports in its place
                for request in self._decoder.feed(data):
                    if isinstance(request, Subscribe):
                        await self._delay()
                    self._requests.append(request)
                    self.signal.set()
            self.signal.set()
            while len(self._requests) > _REQUESTS_AHEAD:
                self._has_room.clear()
                await self._has_room.wait()
        self.has_left = True
        self.signal.set()

    def take(self) -> Request | None:
        """Return the next request, None where none waits.

        Raises
        ------
        SessionError
            When the client sent what is no request.
        MdtoolError
            What `interrupt` was given.
        """
        self.check()
        if self._requests:
            self._has_room.set()
            return self._requests.popleft()
        if self._decoder.error is not None:
            raise SessionError(invalid(str(self._decoder.error)))
        if not self.has_left:
            self.signal.clear()
        return None

    def interrupt(self, error: MdtoolError) -> None:
        """Have the next `take` raise an error, and have what waits for a request call it."""
        self._interruption = error
        self.signal.set()

    def check(self) -> None:
        """Raise what `interrupt` was given."""
        if self._interruption is not None:
            raise self._interruption

    async def arrival(self, within_s: float | None = None) -> None:
        """Wait for the signal, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.signal.wait()

    async def departure(self) -> None:
        """Drop requests until the client closes its half.

        Raises
        ------
        MdtoolError
            What `interrupt` was given.
        """
        while not self.has_left:
            self.check()
            self.drop()
            self.signal.clear()
            await self.signal.wait()

    def drop(self) -> None:
        """Make room: the session has ended, and answers nothing more."""
        self._requests.clear()
        self._has_room.set()

    async def _delay(self) -> None:
        """Wait until the client may subscribe again."""
        if self._throttle is not None:
            wait_ns = self._throttle.wait_ns("", time.monotonic_ns())
            await asyncio.sleep(wait_ns / NS_PER_S)
            self._throttle.charge("", time.monotonic_ns(), 1)
