"""The streams of bars that somebody follows: one call to the aggregator for each series."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Final, Protocol

from mdtool.adapters.aggregator import RefusedError
from mdtool.adapters.market import MarketReader
from mdtool.core.backoff import delays
from mdtool.core.errors import PeerError
from mdtool.core.symbols import SymbolTable
from mdtool.services.gateway.encoding import Bar, bar_rows
from mdtool.services.gateway.limits import UpstreamLimit
from mdtool.wire.batches import BarUpdates

log = logging.getLogger(__name__)

EVERY_SYMBOL: Final = ""
"""Stands for all symbols where a series is asked for."""
_LONGEST_DELAY_S: Final = 1.0


class BarFollower(Protocol):
    """Somebody who follows the bars of a series."""

    def take(self, bars: list[Bar]) -> None:
        """Take bars that changed, of each symbol oldest first, without waiting."""
        ...

    def refuse(self, error: PeerError) -> None:
        """Learn that there are no such bars; nothing follows."""
        ...


class BarFeed:
    """Follows a series, a symbol's or every symbol's bars of an interval, while somebody does.

    A series outlives the aggregator: when its call is lost, it is opened again, and begins with
    the newest bars.

    Parameters
    ----------
    aggregator : MarketReader
        Whom to follow.
    limit : UpstreamLimit
        How many calls each client may have opened in a time; further ones are opened later.
    tasks : asyncio.TaskGroup
        Where the calls run.
    """

    def __init__(
        self, aggregator: MarketReader, limit: UpstreamLimit, tasks: asyncio.TaskGroup
    ) -> None:
        self._aggregator = aggregator
        self._limit = limit
        self._tasks = tasks
        self._series: dict[tuple[str, str], _Series] = {}

    def __len__(self) -> int:
        return len(self._series)

    def newest(self, symbol: str, interval: str) -> Bar | None:
        """Return the newest bar of a symbol whose series is followed, None where none is known."""
        series = self._series.get((symbol, interval))
        return None if series is None else series.newest.get(symbol)

    @contextlib.contextmanager
    def following(self, symbol: str, interval: str, follower: BarFollower) -> Iterator[None]:
        """Have somebody follow a series within the block, from its newest bars on.

        Parameters
        ----------
        symbol : str
            Upper-case, or EVERY_SYMBOL.
        interval : str
            A duration such as `1m`. Whether it is kept only the aggregator knows.
        follower : BarFollower
            Told at once of the newest bars where they are known, else as soon as they are.

        Raises
        ------
        LimitError
            When the client has too many calls opened.
        """
        key = (symbol, interval)
        series = self._series.get(key)
        if series is None:
            wait_s = self._limit.reserve()
            series = self._series[key] = _Series()
            series.task = self._tasks.create_task(self._follow(key, series, wait_s))
        elif series.newest:
            follower.take(list(series.newest.values()))
        series.followers.add(follower)
        try:
            yield
        finally:
            series.followers.discard(follower)
            if not series.followers:
                self._end(key, series)

    async def _follow(self, key: tuple[str, str], series: _Series, wait_s: float) -> None:
        symbol, interval = key
        await asyncio.sleep(wait_s)
        waits = delays(cap_s=_LONGEST_DELAY_S)
        while True:
            try:
                await self._aggregator.follow_bars(symbol, interval, series.receive)
            except RefusedError as error:
                self._end(key, series)
                for follower in list(series.followers):
                    follower.refuse(error)
                return
            except PeerError as error:
                log.debug("%s bars of %s: %s", interval, symbol or "every symbol", error)
            if series.has_received:
                series.has_received = False
                waits = delays(cap_s=_LONGEST_DELAY_S)
            await asyncio.sleep(next(waits))

    def _end(self, key: tuple[str, str], series: _Series) -> None:
        """Have nobody join the series any more, and end its call."""
        if self._series.get(key) is series:
            del self._series[key]
            if series.task is not asyncio.current_task():
                series.task.cancel()


class _Series:
    __slots__ = ("followers", "has_received", "newest", "task")

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.followers: set[BarFollower] = set()
        self.newest: dict[str, Bar] = {}
        self.has_received = False

    def receive(self, symbols: SymbolTable, updates: BarUpdates) -> None:
        """Take a message of the call."""
        if not self.has_received:
            self.newest.clear()  # an aggregator that came back may not have them any more
        self.has_received = True
        bars = bar_rows((symbols[index] for index in updates.symbol.tolist()), updates.bars)
        for bar in bars:
            known = self.newest.get(bar.symbol)
            if known is None or bar.start >= known.start:
                self.newest[bar.symbol] = bar
        for follower in list(self.followers):
            follower.take(bars)
