"""What every bus has: listeners, a block in which it runs, and a request that is repeated."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, Self, TypeVar

from mdtool.adapters.bus.port import CommitListener
from mdtool.core.backoff import delays
from mdtool.core.lifecycle import one_error

T = TypeVar("T")
MAX_WAIT_S: Final = 2.0
"""The longest pause between two attempts to reach the peer."""


class BaseBus:
    """A bus without its way to the peer, which derived classes add.

    They enter what they need in `_start`, answer `_request_position` and `_request_owner`, and call
    `_notify` at each commit.
    """

    def __init__(self) -> None:
        self._listeners: list[CommitListener] = []
        self._resources = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._resources = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> bool | None:
        with one_error():
            return await self._resources.__aexit__(*exc_info)  # type: ignore[arg-type]

    def subscribe(self, listener: CommitListener) -> None:
        """As `Bus.subscribe`."""
        self._listeners.append(listener)

    async def position(self, stream_id: str) -> int:
        """As `Bus.position`: request it again and again while the peer is unavailable."""
        return await _answer(lambda: self._request_position(stream_id))

    async def own(self, stream_id: str, principal: str) -> str:
        """As `Bus.own`, likewise."""
        return await _answer(lambda: self._request_owner(stream_id, principal))

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        """Enter what the bus needs, its tasks last."""
        raise NotImplementedError

    async def _request_position(self, stream_id: str) -> int | None:
        """Return the next sequence of a stream, None while it cannot be known."""
        raise NotImplementedError

    async def _request_owner(self, stream_id: str, principal: str) -> str | None:
        """Claim a stream, and return whose it is, None while that cannot be known."""
        raise NotImplementedError

    def _notify(self, stream_id: str, next_sequence: int) -> None:
        """Call the listeners: all of a stream before a sequence is committed."""
        for listener in self._listeners:
            listener(stream_id, next_sequence)


async def _answer(request: Callable[[], Awaitable[T | None]]) -> T:
    """Repeat a request until it is answered."""
    for delay_s in delays(cap_s=MAX_WAIT_S):
        answer = await request()
        if answer is not None:
            return answer
        await asyncio.sleep(delay_s)
    raise AssertionError
