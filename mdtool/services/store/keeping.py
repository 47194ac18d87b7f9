"""Keeps trades in a store together with the sessions and bars that they come to, each once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.datasets.trade_rows import TradeRows
from mdtool.adapters.stores import Store
from mdtool.adapters.stores.port import Step, StreamRun
from mdtool.adapters.stores.steps import Steps
from mdtool.core.trades import Frames, Trades
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.markets import restored_market
from mdtool.services.store.known import Known

_PARTS: Final = "parts"
"""The stream that the market knows of, which is none of the store's."""
_NO_ROOM: Final = 2**32 - 1
"""Stands for a symbol that the market did not take."""


class Keeper:
    """The market of a store that was claimed, and how trades come into both.

    Parameters
    ----------
    store : Store
        Entered already.
    config : AggregatorConfig
        What the aggregation service on this store goes by.

    Attributes
    ----------
    new, known, no_room : int
        Trades that were written, that were there, and that had a symbol too many.

    Raises
    ------
    StoreClaimedError
        When another process holds the store's market.
    """

    def __init__(self, store: Store, config: AggregatorConfig) -> None:
        store.claim()
        self.new = self.known = self.no_room = 0
        self._store = store
        self._market = restored_market(config, store)
        self._steps = Steps(self._market)
        self._taken = 0
        self._known = Known(store)
        self._late_before = self._market.bars.late

    @property
    def streams(self) -> list[str]:
        """The streams that the store has trades of, as it was opened."""
        return self._known.streams

    @property
    def late(self) -> int:
        """How many of the new trades were too old for the bars of their symbols."""
        return self._market.bars.late - self._late_before

    def keep(self, rows: TradeRows) -> None:
        """Write what is new of trades in one step, with what it changes.

        Raises
        ------
        InputError
            When the store has other content in a place of a stream than the rows.
        StoreError
            As `Store.write`; nothing of the rows was written.
        """
        new = rows.take(self._known.is_new(rows))
        self.known += len(rows) - len(new)
        symbol = self._symbols(new)
        has_room = symbol != _NO_ROOM
        if not has_room.all():
            new, symbol = new.take(has_room), symbol[has_room]
            self.no_room += int(np.count_nonzero(~has_room))
        if len(new):
            self._store.write(self._step(new, symbol))
            self._known.learn(new)
            self.new += len(new)

    def _symbols(self, rows: TradeRows) -> NDArray[np.uint32]:
        """Return the market's indices of symbols."""
        used, places = np.unique(rows.symbol, return_inverse=True)
        indices = [self._market.intern(rows.symbols[index]) for index in used.tolist()]
        known = [_NO_ROOM if index is None else index for index in indices]
        return np.array(known, np.uint32)[places]

    def _step(self, rows: TradeRows, symbol: NDArray[np.uint32]) -> Step:
        change = self._market.apply(_PARTS, self._taken, _frames(rows, symbol))
        self._taken = change.run.next_sequence
        return dataclasses.replace(self._steps.take(()), runs=list(_runs(rows, symbol)))


def _frames(rows: TradeRows, symbol: NDArray[np.uint32]) -> Frames:
    trades = Trades(
        symbol=symbol,
        price=rows.price,
        size=rows.volume,
        ts_event=rows.exchange_timestamp,
        ts_recv=rows.ingest_timestamp,
    )
    return Frames.of(trades)


def _runs(rows: TradeRows, symbol: NDArray[np.uint32]) -> Iterator[StreamRun]:
    """Yield a run for each stream, in order of sequence."""
    for stream in np.unique(rows.stream).tolist():
        mine = np.flatnonzero(rows.stream == stream)
        mine = mine[np.argsort(rows.sequence[mine], kind="stable")]
        sequence = rows.sequence[mine]
        yield StreamRun(
            stream_id=rows.streams[stream],
            first_sequence=int(sequence[0]),
            next_sequence=int(sequence[-1]) + 1,
            sequence=sequence,
            symbol=symbol[mine],
            price=rows.price[mine],
            volume=rows.volume[mine],
            exchange_timestamp=rows.exchange_timestamp[mine],
            ingest_timestamp=rows.ingest_timestamp[mine],
            is_part=True,
        )
