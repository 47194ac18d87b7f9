"""The follower of a feed of trades: it keeps the states current, and restores them from a store."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final, NoReturn

from mdtool.adapters.market import TradeFeed, TradeStream
from mdtool.adapters.stores import open_history
from mdtool.adapters.stores.errors import StoreError, StoreFormatError
from mdtool.adapters.stores.port import TradeHistory
from mdtool.core.backoff import delays
from mdtool.core.errors import PeerError
from mdtool.core.trades import Probe, TradeRun
from mdtool.core.units import counted
from mdtool.engine.vwap import Window
from mdtool.services.vwap.backfill import Backfill, read_backfill
from mdtool.services.vwap.states import STATES_AT_ONCE, States

log = logging.getLogger(__name__)

_LONGEST_DELAY_S: Final = 2.0
_INTERVAL_MS: Final = 10
"""How far apart states change, at least: each time wakes everybody who follows them."""
_PATIENCE_S: Final = 5.0
"""How long a service that was never there may still be starting, and is not reported."""
_MAX_PENDING: Final = 20_000_000
"""Trades that may arrive during a backfill: as many as are sent in ten seconds."""


class Follower:
    """Follows a feed, and restores the windows from the store, if there is one, on each connect.

    The feed is followed first, and its trades are pending while the store is read, up to positions
    that the feed has reached by then; the pending trades continue from these positions. So each
    trade is applied once and none is missed, whatever was unavailable in between.

    Parameters
    ----------
    feed : TradeFeed
    states : States
    publish : callable
        Called with the symbols whose states changed.
    publish_probe : callable
        Called with each probe that came.
    store : str
        The URL of the store, empty for none.
    """

    def __init__(
        self,
        feed: TradeFeed,
        states: States,
        publish: Callable[[Collection[str]], None],
        publish_probe: Callable[[Probe], None],
        store: str,
    ) -> None:
        self._feed = feed
        self._states = states
        self._publish = publish
        self._publish_probe = publish_probe
        self._store = store
        self._tasks: asyncio.TaskGroup
        self._backfilling: _Backfilling | None = None
        self._positions: dict[str, int] = {}
        self._pending: list[TradeRun] = []
        self._n_pending = 0
        self._waits = delays(cap_s=_LONGEST_DELAY_S)
        self._connections = 0
        self._patient_until_s = time.monotonic() + _PATIENCE_S
        self._reported = ""
        self._has_reported_late = self._has_reported_early = False

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            try:
                await self._follow()
            finally:
                self._stop_backfill()
                if self._states.late or self._states.early:
                    log.warning(
                        "left out of windows: %s; %d left early",
                        counted(self._states.late, "trade"),
                        self._states.early,
                    )

    async def _follow(self) -> NoReturn:
        while True:
            try:
                await self._feed.follow_trades(self._connected, self._receive)
            except PeerError as error:
                self._lost(str(error))
            await asyncio.sleep(next(self._waits))

    def _connected(self, stream: TradeStream) -> None:
        stream.collect(_INTERVAL_MS)
        is_news = self._connections or self._reported
        log.log(logging.INFO if is_news else logging.DEBUG, "%s: connected", self._feed.name)
        if self._connections and not self._store:
            log.warning("windows may lack trades while %s was unavailable", self._feed.name)
        self._connections += 1
        self._reported = ""
        self._waits = delays(cap_s=_LONGEST_DELAY_S)
        if self._store:
            self._backfilling = _Backfilling(self._store, self._states.window, self._continue)
            self._tasks.create_task(self._backfilling.run())

    def _receive(self, run: TradeRun) -> None:
        if self._backfilling is None:
            self._apply(run)
            return
        self._pending.append(run)
        self._n_pending += len(run.trades)
        if self._n_pending > _MAX_PENDING:
            raise PeerError(f"more than {_MAX_PENDING:,} trades arrived during the backfill")

    def _continue(self, backfill: Backfill | None) -> None:
        """Restore the windows, unless the store could not be read, and apply pending trades."""
        self._backfilling = None
        if backfill is not None:
            self._positions = backfill.positions
            restored = self._states.restore(backfill.stored)
            self._tasks.create_task(self._publish_restored(restored))
            log.info(
                "windows restored from %s of %s",
                counted(len(backfill), "trade"),
                counted(len(self._states), "symbol"),
            )
        pending, self._pending, self._n_pending = self._pending, [], 0
        for run in pending:
            self._apply(run)

    async def _publish_restored(self, symbols: Sequence[str]) -> None:
        """Publish states, some in each turn of the event loop."""
        for begin in range(0, len(symbols), STATES_AT_ONCE):
            self._publish(symbols[begin : begin + STATES_AT_ONCE])
            await asyncio.sleep(0)

    def _apply(self, run: TradeRun) -> None:
        run = run.since(self._positions.get(run.stream_id, 0))
        if len(run.trades):
            self._publish(self._states.apply(run.symbols, run.trades))
            self._report_lost_trades()
        if run.probe is not None:
            self._publish_probe(run.probe)

    def _report_lost_trades(self) -> None:
        """Log once that trades are left out of windows, or leave them early."""
        if self._states.late and not self._has_reported_late:
            self._has_reported_late = True
            log.warning("trades that are older than their window are left out")
        if self._states.early and not self._has_reported_early:
            self._has_reported_early = True
            log.warning("a window is full: its oldest trades leave early")

    def _lost(self, reason: str) -> None:
        self._stop_backfill()
        if not self._connections and time.monotonic() < self._patient_until_s:
            return
        if reason != self._reported:
            report = log.warning if self._connections else log.info
            report("%s; trying again", reason)
        self._reported = reason

    def _stop_backfill(self) -> None:
        if self._backfilling is not None:
            self._backfilling.cancel()
            self._backfilling = None
        self._pending, self._n_pending = [], 0


class _Backfilling:
    """Reads a backfill in a thread, and passes it on unless it is cancelled before."""

    def __init__(self, store: str, window: Window, done: Callable[[Backfill | None], None]) -> None:
        self._store = store
        self._window = window
        self._done = done
        self._history: TradeHistory | None = None
        self._is_cancelled = False

    async def run(self) -> None:
        try:
            backfill = await asyncio.to_thread(self._read)
        except (StoreError, StoreFormatError) as error:
            if self._is_cancelled:
                return
            log.warning("%s; no backfill: windows start empty", error)
            backfill = None
        if not self._is_cancelled:
            self._done(backfill)

    def cancel(self) -> None:
        self._is_cancelled = True
        if self._history is not None:
            self._history.interrupt()

    def _read(self) -> Backfill:
        with open_history(self._store) as history:
            self._history = history
            return read_backfill(history, self._window, lambda: self._is_cancelled)
