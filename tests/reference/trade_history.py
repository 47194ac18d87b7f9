"""A store's history in plain lists, which can be taken away and held up; `plain:NAME` opens it."""

from __future__ import annotations

import bisect
import threading
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from mdtool.adapters.stores.errors import StoreInterruptedError, StoreUnavailableError
from mdtool.adapters.stores.port import SavedStream, SymbolTotals, TradeKey, TradePage

STORES: dict[str, PlainStore] = {}
"""Those that there are, by name."""


@dataclass
class PlainStore:
    """Trades by symbol, in order of their keys; each is key, price and volume."""

    trades: dict[str, list[tuple[TradeKey, int, int]]] = field(default_factory=dict)
    error: Exception | None = None
    """What is raised at every question."""
    changed: threading.Condition = field(default_factory=threading.Condition)
    is_held: bool = False
    """Whether questions wait."""
    reading: list[str] = field(default_factory=list)
    """The symbols of those that are being read, empty for all symbols."""
    interrupted: int = 0
    """How many were interrupted."""

    def add(
        self, symbol: str, timestamp_ns: int, sequence: int, price: int, volume: int = 1
    ) -> None:
        """Store a trade of stream 1."""
        trade = (TradeKey(timestamp_ns, 1, sequence), price, volume)
        bisect.insort(self.trades.setdefault(symbol, []), trade)

    def hold(self, *, is_held: bool) -> None:
        """Have questions wait, or go on."""
        with self.changed:
            self.is_held = is_held
            self.changed.notify_all()

    def wait_for_readers(self, n: int) -> None:
        """Wait until so many questions are being read, a gateway's checks among them."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.reading) == n, 60)

    def wait_for_reader_of(self, symbol: str) -> None:
        """Wait until a question about a symbol is being read."""
        with self.changed:
            assert self.changed.wait_for(lambda: symbol in self.reading, 60)


class History:
    """See `port.TradeHistory`."""

    def __init__(self, url: str) -> None:
        self._name = url.partition(":")[2]
        self._is_interrupted = False

    @property
    def address(self) -> str:
        return f"plain {self._name}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def symbols(self) -> list[SymbolTotals]:
        return [
            SymbolTotals(symbol, len(trades), trades[-1][0].timestamp_ns)
            for symbol, trades in sorted(self._open().trades.items())
        ]

    def has(self, symbol: str) -> bool:
        return symbol in self._open(symbol).trades

    def page(self, symbol: str, limit: int, before: TradeKey | None = None) -> TradePage:
        older = [
            trade
            for trade in self._open(symbol).trades.get(symbol, [])
            if before is None or trade[0] < before
        ]
        rows = [(*key, price, volume, 0) for key, price, volume in older[: -limit - 1 : -1]]
        return TradePage.of(np.array(rows, np.int64).reshape(-1, 6).T)

    def streams(self) -> list[SavedStream]:
        numbers = {key.stream for trades in self._open().trades.values() for key, *_ in trades}
        return [SavedStream(number, f"stream {number}", None) for number in sorted(numbers)]

    def interrupt(self) -> None:
        store = STORES[self._name]
        with store.changed:
            self._is_interrupted = True
            store.changed.notify_all()

    def _open(self, symbol: str = "") -> PlainStore:
        if self._name not in STORES:
            raise StoreUnavailableError(f"{self.address}: there is no such store yet")
        store = STORES[self._name]
        with store.changed:
            self._is_interrupted = False
            store.reading.append(symbol)
            store.changed.notify_all()
            store.changed.wait_for(lambda: not store.is_held or self._is_interrupted)
            store.reading.remove(symbol)
            store.changed.notify_all()
            if self._is_interrupted:
                store.interrupted += 1
                raise StoreInterruptedError("interrupted")
        if store.error is not None:
            raise store.error
        return store
