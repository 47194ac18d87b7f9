"""The stream of all trades from its source: followed while that is needed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from mdtool.adapters.market import TradeFeed, TradeStream
from mdtool.core.backoff import delays
from mdtool.core.errors import PeerError
from mdtool.core.trades import TradeRun
from mdtool.services.gateway.feeds.recent_trades import RecentTrades

log = logging.getLogger(__name__)

_LONGEST_DELAY_S: Final = 1.0
_UNFOLLOWED_MS: Final = 100
"""How far apart trades come while no client follows them; each message takes 0.1 ms."""
_CATCH_UP_S: Final = 0.5
"""How long a request waits for the trades that are committed by then."""
_CONNECT_S: Final = 2.0
"""How long a subscription waits for the stream before it begins without it."""


class FollowedTrades:
    """Follows the stream of trades, again and again, and keeps the last ones.

    While no client follows trades they are collected at their source, until they are requested.

    Parameters
    ----------
    source : TradeFeed
        Entered by the caller.
    recent : RecentTrades
        Forgets its trades when the stream is not followed any more.
    receive : callable
        Called with each run once it is in memory.
    interrupt : callable
        Called when the stream is connected again: trades may have been missed.
    is_always : bool
        Whether to follow it while no client does.
    """

    def __init__(
        self,
        source: TradeFeed,
        recent: RecentTrades,
        receive: Callable[[TradeRun], None],
        interrupt: Callable[[], None],
        *,
        is_always: bool,
    ) -> None:
        self._source = source
        self._recent = recent
        self._pass_on = receive
        self._interrupt = interrupt
        self._is_always = is_always
        self._connected = asyncio.Event()
        self._stream: TradeStream | None = None
        self._has_gap = False
        self._followers = 0
        self._following: asyncio.Task[None] | None = None
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        """Follow the stream, while that is needed, until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            if self._is_always:
                await self._follow()
            await asyncio.Event().wait()

    @property
    def is_collecting(self) -> bool:
        """Whether trades that are committed may wait at their source."""
        return self._stream is not None and self._stream.is_collecting

    async def catch_up(self) -> None:
        """Wait for the trades that were collected at their source."""
        if self._stream is not None and self._stream.is_collecting:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CATCH_UP_S):
                    await self._stream.catch_up()

    async def wait_connected(self) -> None:
        """Wait until the stream is connected.

        Raises
        ------
        TimeoutError
            When it is unavailable for long.
        """
        async with asyncio.timeout(_CONNECT_S):
            await self._connected.wait()

    def acquire(self) -> None:
        """Follow the stream for one more client."""
        self._followers += 1
        self._set_interval()
        if not self._is_always and self._following is None:
            self._following = self._tasks.create_task(self._follow())

    def release(self) -> None:
        """Follow the stream for one client less; without any, stop unless it is always followed."""
        self._followers -= 1
        if self._following is not None and not self._followers:
            self._following.cancel()
            self._following = self._stream = None
            self._connected.clear()
            self._has_gap = False
            self._recent.clear()
        self._set_interval()

    def _set_interval(self) -> None:
        if self._stream is not None:
            self._stream.collect(0 if self._followers else _UNFOLLOWED_MS)

    async def _follow(self) -> None:
        waits = delays(cap_s=_LONGEST_DELAY_S)
        reason: str | None = None

        def connected(stream: TradeStream) -> None:
            nonlocal waits, reason
            self._stream = stream
            self._set_interval()
            waits = delays(cap_s=_LONGEST_DELAY_S)
            reason = None
            self._recent.begin()
            if self._has_gap:
                self._interrupt()
            self._has_gap = True
            self._connected.set()

        while True:
            try:
                await self._source.follow_trades(connected, self._receive)
            except PeerError as error:
                if str(error) != reason:
                    log.info("trades: %s; reconnecting", error)
                reason = str(error)
            self._stream = None
            self._connected.clear()
            await asyncio.sleep(next(waits))

    def _receive(self, run: TradeRun) -> None:
        self._recent.append(run)
        self._pass_on(run)
