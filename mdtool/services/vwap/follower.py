"""The feed that keeps the board current, followed again whenever it is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from mdtool.adapters.stores import open_history
from mdtool.adapters.stores.errors import StoreError, StoreFormatError
from mdtool.adapters.stores.port import TradeHistory
from mdtool.adapters.trades.port import TradeFeed
from mdtool.core.backoff import delays
from mdtool.core.errors import PeerError
from mdtool.core.trades import TradeRun
from mdtool.core.units import counted
from mdtool.engine.vwap import Window
from mdtool.services.vwap.backfill import read_backfill
from mdtool.services.vwap.board import Backfill, Board

log = logging.getLogger(__name__)

_LONGEST_DELAY_S: Final = 2.0
_MAX_HELD: Final = 20_000_000
"""Trades that may come while windows are being filled: as many as are sent in ten seconds."""


class Follower:
    """Follows a feed of trades, and fills the windows from a store, if there is one, each time.

    The feed is followed first and what comes is held; then the store is read up to positions that
    it has reached by then, and what is held goes on from these. So a trade is met once, and none
    is missed, whatever was away in between.

    Parameters
    ----------
    feed : TradeFeed
    board : Board
    publish : callable
        Told the symbols that changed.
    window : Window
        Of the board.
    store : str
        The URL of the store, empty where there is none.
    """

    def __init__(
        self,
        feed: TradeFeed,
        board: Board,
        publish: Callable[[Iterable[str]], None],
        window: Window,
        store: str,
    ) -> None:
        self._feed = feed
        self._board = board
        self._publish = publish
        self._window = window
        self._store = store
        self._tasks: asyncio.TaskGroup
        self._filling: _Filling | None = None
        self._positions: dict[str, int] = {}
        self._held: list[TradeRun] = []
        self._n_held = 0
        self._waits = delays(cap_s=_LONGEST_DELAY_S)
        self._connections = 0
        self._lost_because = ""
        self._said_late = self._said_early = False

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            try:
                await self._follow()
            finally:
                self._stop_filling()
                if self._board.late or self._board.early:
                    log.warning(
                        "left out of windows: %s; %d left early",
                        counted(self._board.late, "trade"),
                        self._board.early,
                    )

    async def _follow(self) -> NoReturn:
        while True:
            try:
                await self._feed.follow(self._connected, self._receive)
            except PeerError as error:
                self._lose(str(error))
            await asyncio.sleep(next(self._waits))

    def _connected(self) -> None:
        log.info("%s: connected", self._feed.address)
        if self._connections and not self._store:
            log.warning("windows may lack trades of when %s was away", self._feed.address)
        self._connections += 1
        self._lost_because = ""
        self._waits = delays(cap_s=_LONGEST_DELAY_S)
        if self._store:
            self._filling = _Filling(self._store, self._window, self._filled)
            self._tasks.create_task(self._filling.run())

    def _receive(self, run: TradeRun) -> None:
        if self._filling is None:
            self._take(run)
            return
        self._held.append(run)
        self._n_held += len(run.trades)
        if self._n_held > _MAX_HELD:
            raise PeerError(f"more than {_MAX_HELD:,} trades came while windows were being filled")

    def _filled(self, backfill: Backfill | None) -> None:
        """Go on from what the store had; if it could not be read, from nothing."""
        self._filling = None
        if backfill is not None:
            self._positions = backfill.positions
            self._publish(self._board.restart(backfill))
            log.info(
                "windows filled with %s of %s",
                counted(len(backfill.price), "trade"),
                counted(len(self._board), "symbol"),
            )
        held, self._held, self._n_held = self._held, [], 0
        for run in held:
            self._take(run)

    def _take(self, run: TradeRun) -> None:
        run = run.since(self._positions.get(run.stream_id, 0))
        if len(run.trades):
            self._publish(self._board.apply(run))
            self._report()

    def _report(self) -> None:
        """Say once that trades are left out of windows, or leave them early."""
        if self._board.late and not self._said_late:
            self._said_late = True
            log.warning("trades that are older than the window is long are left out")
        if self._board.early and not self._said_early:
            self._said_early = True
            log.warning("a window is full: its oldest trades leave early")

    def _lose(self, reason: str) -> None:
        self._stop_filling()
        if reason != self._lost_because:
            say = log.warning if self._connections else log.info
            say("%s; trying again", reason)
        self._lost_because = reason

    def _stop_filling(self) -> None:
        if self._filling is not None:
            self._filling.cancel()
            self._filling = None
        self._held, self._n_held = [], 0


class _Filling:
    """Reads the backfill in a thread, and hands it over unless it is cancelled before."""

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
            log.warning("%s; windows begin with what comes", error)
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
            return read_backfill(history, self._window)
