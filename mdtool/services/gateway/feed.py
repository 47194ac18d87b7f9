"""The stream that keeps the gateway's state current, opened again whenever it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.market import MarketReader
from mdtool.core.backoff import delays
from mdtool.core.errors import PeerError
from mdtool.core.symbols import SymbolTable
from mdtool.services.gateway.state import MarketState
from mdtool.wire.batches import Counts, Updates

log = logging.getLogger(__name__)

_LONGEST_DELAY_S: Final = 0.25
_LONGEST_COMMITS_DELAY_S: Final = 2.0


class Feed:
    """Follows the aggregator.

    Parameters
    ----------
    aggregator : MarketReader
        Whom to follow.
    state : MarketState
        What to keep current.
    publish : callable
        Told the symbols that changed, as indices into the state, after each message and whenever
        they become stale.

    Attributes
    ----------
    counts : Counts or None
        What the aggregator last said that it had taken and refused.
    connections, messages : int
        How many streams there were, and messages over all of them.
    lost_because : str or None
        Why there is no stream now.
    is_held_up : bool
        Whether the aggregator takes no more ticks before long, for it cannot commit them.
    """

    def __init__(
        self,
        aggregator: MarketReader,
        state: MarketState,
        publish: Callable[[NDArray[np.intp]], None],
    ) -> None:
        self._aggregator = aggregator
        self._state = state
        self._publish = publish
        self.counts: Counts | None = None
        self.connections = 0
        self.messages = 0
        self.lost_because: str | None = "not connected yet"
        self.is_held_up = False

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_commits())
            await self._follow()

    async def _follow(self) -> None:
        waits = delays(cap_s=_LONGEST_DELAY_S)
        while True:
            try:
                await self._aggregator.follow(self._receive)
            except PeerError as error:
                if self._state.is_live:
                    waits = delays(cap_s=_LONGEST_DELAY_S)
                self._lose(str(error))
            await asyncio.sleep(next(waits))

    async def _follow_commits(self) -> None:
        waits = delays(cap_s=_LONGEST_COMMITS_DELAY_S)

        def note(can_commit: bool) -> None:
            nonlocal waits
            waits = delays(cap_s=_LONGEST_COMMITS_DELAY_S)
            self.is_held_up = not can_commit

        while True:
            # Why it is lost is told of the other stream, which is lost with it.
            with contextlib.suppress(PeerError):
                await self._aggregator.follow_commits(note)
            self.is_held_up = False
            await asyncio.sleep(next(waits))

    def _receive(self, symbols: SymbolTable, updates: Updates) -> None:
        if not self._state.is_live:
            self.connections += 1
            self.lost_because = None
            log.info("aggregator %s: connected", self._aggregator.address)
        self.messages += 1
        self.counts = updates.counts
        self._publish(self._state.apply(symbols, updates))

    def _lose(self, reason: str) -> None:
        if self.lost_because != reason and self.connections:
            log.warning("%s; trying again, and marking what is known as stale", reason)
        elif self.lost_because != reason:
            log.info("%s; waiting for it", reason)
        self.lost_because = reason
        if self._state.is_live:
            self._publish(self._state.lose())
