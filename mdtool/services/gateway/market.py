"""The gateway's copy of the market, and the stream from the aggregator that keeps it current."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.market import MarketReader, UnavailableError
from mdtool.core import tracing
from mdtool.core.backoff import delays
from mdtool.core.errors import PeerError
from mdtool.core.symbols import SymbolMap, SymbolTable
from mdtool.core.trades import Probe
from mdtool.core.units import NS_PER_S
from mdtool.services.gateway.hub import Changes, Hub
from mdtool.services.times import Ages
from mdtool.wire.batches import Counts, Updates

log = logging.getLogger(__name__)

MarketListener = Callable[[NDArray[np.integer]], None]
"""Called with the indices of the symbols that changed or became stale, each once."""

ProbeListener = Callable[[Collection[Probe]], None]

_COLUMNS: Final = ("open", "high", "low", "close", "volume", "count", "timestamp")
_ROW: Final = np.dtype([*((name, np.int64) for name in _COLUMNS), ("stale", np.bool_)])
_NOT_YET: Final = "not connected yet"
"""Before the first attempt to connect: its success is no news."""
_LONGEST_DELAY_S: Final = 0.25
_LONGEST_COMMITS_DELAY_S: Final = 2.0


class MarketState:
    """The latest session of each symbol. It outlives the aggregator, and is then marked stale.

    A session is fresh when the aggregator has sent it over the present connection: a symbol that
    it does not send any more after a reconnect stays stale.

    Parameters
    ----------
    address : str
        Where it comes from, for errors.

    Attributes
    ----------
    symbols : SymbolTable
        Every symbol that has traded; its indices are what the methods take and return.
    is_live : bool
        Whether the aggregator's stream is connected and has sent everything once.
    """

    def __init__(self, address: str = "") -> None:
        self.is_live = False
        self._address = address
        self.symbols = SymbolTable()
        self._map = SymbolMap(SymbolTable(), self.symbols.intern)
        self._lots: dict[str, int] = {}
        self._lots_taken = 0
        """How many of the lots of the aggregator's table are known."""
        self._rows = np.zeros(0, _ROW)
        self._ingested_ns = np.zeros(0, np.int64)
        """When the latest trade was accepted; 0 where it was before the present connection."""
        self._in_order: list[str] = []

    def apply(self, symbols: SymbolTable, updates: Updates) -> NDArray[np.integer]:
        """Apply a message from the aggregator, and return what changed, shape (n,).

        Parameters
        ----------
        symbols : SymbolTable
            What the symbol indices of `updates` mean. Another table means another connection.
        updates : Updates
            The symbols that changed, each once.
        """
        is_new = symbols is not self._map.source
        if is_new:
            self._map, self._lots_taken = SymbolMap(symbols, self.symbols.intern), 0
        for index, lot in symbols.lots_since(self._lots_taken):
            self._lots[symbols[index]] = lot
            self._lots_taken += 1
        changed = self._map.map(updates.symbol)
        if added := len(self.symbols) - len(self._rows):
            self._rows = np.append(self._rows, np.zeros(added, _ROW))
            self._ingested_ns = np.append(self._ingested_ns, np.zeros(added, np.int64))
        for name in _COLUMNS:
            self._rows[name][changed] = getattr(updates, name)
        self._rows["stale"][changed] = False
        # What a connection begins with may have been accepted long ago.
        is_first = is_new or not self.is_live
        self._ingested_ns[changed] = 0 if is_first else updates.ingest_timestamp
        self.is_live = self.is_live or not updates.is_part
        return changed

    def lose(self) -> NDArray[np.integer]:
        """Mark everything stale, and return what was fresh until now, shape (n,)."""
        self.is_live = False
        changed = np.flatnonzero(~self._rows["stale"])
        self._rows["stale"][changed] = True
        self._ingested_ns[changed] = 0
        return changed

    def stale_count(self) -> int:
        """Return how many symbols are stale."""
        return int(np.count_nonzero(self._rows["stale"]))

    def stale_symbols(self) -> list[str]:
        """Return the symbols that are stale."""
        return [self.symbols[index] for index in np.flatnonzero(self._rows["stale"]).tolist()]

    def ingested_ns(self, symbols: NDArray[np.integer]) -> int | None:
        """Return when the oldest of symbols' latest trades was accepted by the ingest server.

        None where all of them were known when the present connection began.
        """
        known = self._ingested_ns[symbols]
        known = known[known > 0]
        return int(known.min()) if len(known) else None

    def session(self, index: int) -> tuple[int, int, int, int, int, int, int, bool]:
        """Return a symbol's open, high, low, close, volume, trades, time, and whether it is stale.

        Prices are at 1e-9; the time is that of the latest trade, in ns.
        """
        row: tuple[int, int, int, int, int, int, int, bool] = self._rows[index].item()
        return row

    def lot(self, symbol: str) -> int | None:
        """Return what one unit of a symbol's sizes stands for, in 1e-9; None if unknown."""
        return self._lots.get(symbol)

    def in_order(self) -> Sequence[str]:
        """Return all symbols, in order; raise UnavailableError where none can be known."""
        if not len(self.symbols):
            self.check_live()
        if len(self.symbols) != len(self._in_order):
            self._in_order = sorted(self.symbols)
        return self._in_order

    def check_live(self) -> None:
        """Raise UnavailableError where what is unknown may only be unknown here."""
        if not self.is_live:
            raise UnavailableError(
                f"aggregator {self._address} is unavailable, and nothing is known from before"
            )


class MarketStream:
    """Follows the aggregator, and reconnects whenever the stream is lost.

    Every message is applied to the state as it arrives. Listeners are notified when the hub is
    ready for more, once of all that changed since.

    Parameters
    ----------
    aggregator : MarketReader
    state : MarketState
        What it keeps current.
    hub : Hub
        Which writes what listeners publish.

    Attributes
    ----------
    ages : Ages
        Of what is written.
    counts : Counts or None
        The ticks that the aggregator has accepted and refused, as last received.
    connections, messages : int
        Streams so far, and messages over all of them.
    lost_because : str or None
        Why there is no stream now.
    is_blocked : bool
        Whether the aggregator cannot commit ticks, and soon takes no more.
    """

    def __init__(self, aggregator: MarketReader, state: MarketState, hub: Hub) -> None:
        self.aggregator = aggregator
        self.state = state
        self.ages = Ages()
        self.counts: Counts | None = None
        self.connections = 0
        self.messages = 0
        self.lost_because: str | None = _NOT_YET
        self.is_blocked = False
        self._hub = hub
        self._changes: Changes[int] = Changes(hub, self._publish)
        self._listeners: list[MarketListener] = []
        self._probes: Changes[Probe] = Changes(hub, self._publish_probes)
        self._probe_listeners: list[ProbeListener] = []

    def listen(self, listener: MarketListener) -> None:
        """Have a listener called after messages, and when the state becomes stale."""
        self._listeners.append(listener)

    def listen_to_probes(self, listener: ProbeListener) -> None:
        """Have a listener called with probes, of each stream the latest last."""
        self._probe_listeners.append(listener)

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_commits())
            await self._follow()

    async def _follow(self) -> None:
        waits = delays(cap_s=_LONGEST_DELAY_S)
        while True:
            try:
                await self.aggregator.follow(self._receive)
            except PeerError as error:
                if self.state.is_live:
                    waits = delays(cap_s=_LONGEST_DELAY_S)
                self._lose(str(error))
            await asyncio.sleep(next(waits))

    async def _follow_commits(self) -> None:
        waits = delays(cap_s=_LONGEST_COMMITS_DELAY_S)

        def receive(can_commit: bool) -> None:
            nonlocal waits
            waits = delays(cap_s=_LONGEST_COMMITS_DELAY_S)
            self.is_blocked = not can_commit

        while True:
            # The other stream is lost with this one, and logs why.
            with contextlib.suppress(PeerError):
                await self.aggregator.follow_commits(receive)
            self.is_blocked = False
            await asyncio.sleep(next(waits))

    def _receive(self, symbols: SymbolTable, updates: Updates) -> None:
        was_live = self.state.is_live
        self.messages += 1
        self.counts = updates.counts
        self._changes.add(self.state.apply(symbols, updates).tolist())
        if updates.probes:
            self._probes.add(updates.probes)
        if (span := tracing.follow("show", updates.traceparent)) is not None:
            span.attributes["mdtool.symbols"] = len(updates)
            self._hub.when_written(span.end)
        if self.state.is_live and not was_live:
            self.connections += 1
            level = logging.DEBUG if self.lost_because == _NOT_YET else logging.INFO
            self.lost_because = None
            log.log(level, "aggregator %s: connected", self.aggregator.address)

    def _lose(self, reason: str) -> None:
        if self.lost_because != reason and self.connections:
            log.warning("%s; reconnecting, and marking the last known state as stale", reason)
        elif self.lost_because != reason:
            log.info("%s; waiting for it", reason)
        self.lost_because = reason
        self._changes.add(self.state.lose().tolist())

    def _publish_probes(self, probes: Collection[Probe]) -> None:
        for listener in self._probe_listeners:
            listener(probes)

    def _publish(self, symbols: Collection[int]) -> None:
        changed = np.fromiter(symbols, np.int64, len(symbols))
        for listener in self._listeners:
            listener(changed)
        ingested_ns = self.state.ingested_ns(changed)
        if ingested_ns is not None:
            self._hub.when_written(lambda: self.ages.add((time.time_ns() - ingested_ns) / NS_PER_S))
