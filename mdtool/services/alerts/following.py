"""What detectors follow by themselves: trades as they are committed, and the passing of time."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, NoReturn

from mdtool.adapters.market import TradeFeed, TradeStream
from mdtool.core.backoff import delays
from mdtool.core.errors import PeerError
from mdtool.core.trades import TradeRun
from mdtool.services.alerts.watch import Watch

log = logging.getLogger(__name__)

_INTERVAL_MS: Final = 100
"""How far apart trades come, at least: an alert may be so late."""
_CHECK_S: Final = 0.5
"""How often symbols without events are looked at."""
_LONGEST_DELAY_S: Final = 1.0


async def follow_market(watch: Watch, trades: TradeFeed, level: int = logging.DEBUG) -> NoReturn:
    """Apply detectors to trades, and to symbols without events, until cancelled.

    Parameters
    ----------
    watch : Watch
    trades : TradeFeed
        Entered by the caller.
    level : int
        At which to log that trades are unavailable, for whom nobody else does.
    """
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_follow_trades(watch, trades, level))
        while True:
            await asyncio.sleep(_CHECK_S)
            watch.advance()


async def _follow_trades(watch: Watch, trades: TradeFeed, level: int) -> NoReturn:
    waits = delays(cap_s=_LONGEST_DELAY_S)
    reported = ""

    def connected(stream: TradeStream) -> None:
        nonlocal waits, reported
        waits = delays(cap_s=_LONGEST_DELAY_S)
        if reported:
            log.log(level, "%s: connected", trades.name)
        reported = ""
        stream.collect(_INTERVAL_MS)

    def receive(run: TradeRun) -> None:
        if len(run.trades):
            watch.trade(run.symbols, run.trades)

    while True:
        try:
            await trades.follow_trades(connected, receive)
        except PeerError as error:
            if str(error) != reported:
                log.log(level, "%s; reconnecting", error)
            reported = str(error)
        watch.pause()
        await asyncio.sleep(next(waits))
