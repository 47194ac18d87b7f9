"""The state of an aggregator, to compare with the trades that were sent to it."""

from __future__ import annotations

import grpc
import numpy as np

from mdtool.adapters import rpc
from mdtool.core.symbols import SymbolTable
from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.batches import decode_updates


class Watch:
    """The aggregator's state, followed over its stream of updates."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._updates = rpc.Stub(self._channel).StreamUpdates(marketdata_pb2.UpdatesRequest())
        self._symbols = SymbolTable()
        self.counts = None
        self.sessions: dict[str, tuple[int, ...]] = {}

    def __enter__(self):
        return self

    def __exit__(self, *exc_info) -> None:
        self._updates.cancel()
        self._channel.close()

    def until(self, ticks: int) -> None:
        """Read updates until the aggregator has accepted at least so many ticks."""
        while self.counts is None or self.counts.ticks < ticks:
            updates = decode_updates(next(self._updates), self._symbols)
            self.counts = updates.counts
            columns = (updates.open, updates.high, updates.low, updates.close)
            columns += (updates.volume, updates.count)
            for k, symbol in enumerate(updates.symbol):
                session = tuple(int(column[k]) for column in columns)
                self.sessions[self._symbols[symbol]] = session


def sessions_of(trades: np.ndarray, names: dict[int, str]) -> dict[str, tuple[int, ...]]:
    """Return the sessions of DBN trades, by symbol."""
    sessions = {}
    for instrument_id in np.unique(trades["instrument_id"]):
        own = trades[trades["instrument_id"] == instrument_id]
        price, size = own["price"], own["size"].astype(np.int64)
        sessions[names[int(instrument_id)]] = (
            int(price[0]),
            int(price.max()),
            int(price.min()),
            int(price[-1]),
            int(size.sum()),
            len(own),
        )
    return sessions
