"""Detectors over a live market: its trades, quotes and numbers in, the latest alerts in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from mdtool.core.batch import Batch
from mdtool.core.instruments import Instruments
from mdtool.core.symbols import SymbolMap, SymbolTable
from mdtool.core.trades import Trades
from mdtool.core.units import NS_PER_MS, UNDEF_PRICE
from mdtool.engine.detect import (
    CHANNELS,
    Alert,
    Detector,
    Events,
    Found,
    Rules,
    blank_events,
    sequences_of,
)
from mdtool.wire.quotes import Quote

MAX_ALERTS: Final = 10_000
"""Alerts of all symbols that are kept."""
MAX_OF_SYMBOL: Final = 1_000
"""Alerts of one symbol that are kept."""


class Watch:
    """Detects what is unusual in a live market, and keeps the latest alerts.

    Times are exchange times; those in the future count as now. Time passes between events as fast
    as the clock, from the latest event on, so that a symbol can become stale.

    Parameters
    ----------
    rules : Rules
    changed : callable
        Called with alerts that began or ended.
    now_ns : callable, optional
        The time, ns since the epoch.

    Attributes
    ----------
    counts : dict
        How many alerts there were, by kind and the severity that they began with.
    """

    def __init__(
        self,
        rules: Rules,
        changed: Callable[[Sequence[Alert]], None],
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._detector = Detector(rules)
        self._changed = changed
        self._now_ns = now_ns
        self._symbols = SymbolTable()
        self._map = SymbolMap(SymbolTable(), self._symbols.intern)
        self._channels: dict[tuple[str, int], int] = {}
        self._streams: dict[str, Instruments] = {}
        self._alerts: dict[str, Alert] = {}
        self._of_symbol: dict[str, dict[str, None]] = {}
        self._latest_ns = self._latest_at_ns = self._known = 0
        self.counts: dict[tuple[str, str], int] = {}
        # Loads the kernels, so that the first batch is not slower.
        self._detector.update(blank_events(0))
        self._detector.advance(0)

    def knows(self, symbol: str) -> bool:
        """Return whether a symbol has traded or was quoted."""
        return self._symbols.find(symbol) is not None

    def trade(self, symbols: SymbolTable, trades: Trades) -> None:
        """Take trades, whose symbols are of a table."""
        if symbols is not self._map.source:  # after a reconnect a feed has another table
            self._map = SymbolMap(symbols, self._symbols.intern)
        events = blank_events(len(trades))
        events["instrument"] = self._map.map(trades.symbol)
        events["ts_ns"] = trades.ts_event
        events["price"], events["size"] = trades.price, trades.size
        self._take(events)

    def quote(self, quotes: Sequence[Quote]) -> None:
        """Take quotes of books; the prices of a partial one are not judged."""
        events = blank_events(len(quotes))
        events["has_quote"] = 1
        events["instrument"] = [self._symbols.intern(quote.symbol) for quote in quotes]
        events["ts_ns"] = [quote.ts_ms * NS_PER_MS for quote in quotes]
        for side in ("bid", "ask"):
            prices = [None if quote.is_partial else getattr(quote, side) for quote in quotes]
            events[side] = [UNDEF_PRICE if price is None else price for price in prices]
        self._take(events)

    def number(self, source: str, batch: Batch) -> None:
        """Take the numbers of a stream's records, of which none should be missing.

        Parameters
        ----------
        source : str
            Whose stream it is; each publisher in it has numbers of its own.
        batch : Batch
            Where its table of instruments is another one, the source has begun a new stream, whose
            numbers continue no others.
        """
        if self._streams.get(source) is not batch.instruments:
            self._streams[source] = batch.instruments
            known = [channel for (of, _), channel in self._channels.items() if of == source]
            self._detector.restart(known)
        events = sequences_of(batch)
        if not len(events):
            return
        texts = batch.instruments.texts
        instruments, places = np.unique(events["instrument"], return_inverse=True)
        indices = [self._symbols.intern(texts[index].upper()) for index in instruments]
        events["instrument"] = np.array(indices)[places]
        publishers, places = np.unique(events["channel"], return_inverse=True)
        channels = [self._channel(source, publisher) for publisher in publishers.tolist()]
        events["channel"] = np.array(channels)[places]
        self._take(events)

    def advance(self) -> None:
        """Let the time pass that has passed since the latest event."""
        if self._latest_ns:
            passed_ns = max(0, self._now_ns() - self._latest_at_ns)
            self._keep(self._detector.advance(self._latest_ns + passed_ns))

    def pause(self) -> None:
        """Let no time pass until the next event: the source is unavailable, not the symbols."""
        self._latest_ns = 0

    def latest(self, symbol: str) -> Alert | None:
        """Return the alert of a symbol that began last, None where it has none."""
        ids = self._of_symbol.get(symbol)
        return self._alerts[next(reversed(ids))] if ids else None

    def symbols(self) -> list[str]:
        """Return the symbols that have alerts, in order."""
        return sorted(self._of_symbol)

    def alerts(self, symbol: str) -> Iterator[Alert]:
        """Yield the alerts of a symbol, in the order in which they were found."""
        for key in self._of_symbol.get(symbol, ()):
            yield self._alerts[key]

    def open_count(self) -> int:
        """Return how many alerts are open."""
        return sum(alert.is_open for alert in self._alerts.values())

    def _channel(self, source: str, publisher: int) -> int:
        return self._channels.setdefault((source, publisher), len(self._channels) % CHANNELS)

    def _take(self, events: Events) -> None:
        now_ns = self._now_ns()
        np.minimum(events["ts_ns"], now_ns, out=events["ts_ns"])
        if len(events):
            self._latest_ns = max(self._latest_ns, int(events["ts_ns"].max()))
            self._latest_at_ns = now_ns
        if len(self._symbols) > self._known:
            self._known = len(self._symbols)
            self._detector.know(list(self._symbols))
        self._keep(self._detector.update(events))

    def _keep(self, found: Found) -> None:
        alerts = [Alert.of(each, self._symbols[each["instrument"]]) for each in found]
        for alert in alerts:
            if alert.id not in self._alerts:
                counted = (alert.kind, alert.severity)
                self.counts[counted] = self.counts.get(counted, 0) + 1
                of_symbol = self._of_symbol.setdefault(alert.symbol, {})
                of_symbol[alert.id] = None
                if len(of_symbol) > MAX_OF_SYMBOL:
                    self._forget(next(iter(of_symbol)))
            self._alerts[alert.id] = alert
            if len(self._alerts) > MAX_ALERTS:
                self._forget(next(iter(self._alerts)))
        if alerts:
            self._changed(alerts)

    def _forget(self, key: str) -> None:
        symbol = self._alerts.pop(key).symbol
        of_symbol = self._of_symbol[symbol]
        del of_symbol[key]
        if not of_symbol:
            del self._of_symbol[symbol]
