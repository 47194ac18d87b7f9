"""Writes trades into a store, each once, with the sessions and bars that follow from them."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from mdtool.adapters.datasets.trade_rows import RowGroups, TradeRows
from mdtool.adapters.stores import Store
from mdtool.adapters.stores.errors import StoreUnavailableError
from mdtool.adapters.stores.port import Step, StreamRun
from mdtool.adapters.stores.steps import Steps
from mdtool.core.backoff import delays
from mdtool.core.errors import CorruptStreamError, InputError
from mdtool.core.interrupts import uninterrupted
from mdtool.core.symbols import SymbolMap, SymbolTable
from mdtool.core.trades import Frames
from mdtool.core.units import format_price
from mdtool.engine.market import Change
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.markets import restored_market
from mdtool.services.store.dedup_index import DedupIndex

log = logging.getLogger(__name__)

STEP_ROWS: Final = 1 << 16
"""Trades of files in one step; those of pipes are written as they arrive."""
_PARTS: Final = "parts"
"""The market's stream of all rows; the store has the streams of the rows instead."""
_LONGEST_DELAY_S: Final = 2.0


class MarketWriter:
    """The market of a store that was claimed; what changes it is written in steps.

    Parameters
    ----------
    store : Store
        Entered.
    config : AggregatorConfig
        The settings of an aggregation service on this store.

    Attributes
    ----------
    market : Market
        Restored from the store.

    Raises
    ------
    StoreClaimedError
        When another process holds the store's market.
    """

    def __init__(self, store: Store, config: AggregatorConfig) -> None:
        store.claim()
        self.market = restored_market(config, store)
        self._store = store
        self._steps = Steps(self.market)

    def write(self, changes: Sequence[Change], stopping: threading.Event) -> bool:
        """Write changes; retry while the store is unavailable, until stopping.

        Returns
        -------
        bool
            Whether they are written.

        Raises
        ------
        StoreError
            As `Store.write`.
        """
        step = self._steps.take(changes)
        is_unavailable = False
        for delay_s in delays(cap_s=_LONGEST_DELAY_S):
            try:
                self._store.write(step)
            except StoreUnavailableError as error:
                if not is_unavailable:
                    log.warning("%s; stopped reading until it is available", error)
                is_unavailable = True
                if stopping.wait(delay_s):
                    return False
            else:
                if is_unavailable:
                    log.info("%s: reconnected", self._store.address)
                return True
        raise AssertionError

    def write_parts(self, runs: Sequence[StreamRun]) -> None:
        """Write what the market has changed, with runs that are parts of any streams.

        Raises
        ------
        StoreError
            As `Store.write`.
        """
        step: Step = dataclasses.replace(self._steps.take(()), runs=runs)
        self._store.write(step)


class RowWriter:
    """Writes rows of files and datasets into a store, leaving out those that are stored already.

    Parameters
    ----------
    store, config
        As of `MarketWriter`.

    Attributes
    ----------
    new, known, rejected : int
        Rows that were written, that were stored before, and whose symbol was one too many.

    Raises
    ------
    StoreClaimedError
        When another process holds the store's market.
    """

    def __init__(self, store: Store, config: AggregatorConfig) -> None:
        self._writer = MarketWriter(store, config)
        self._market = self._writer.market
        self.new = self.known = self.rejected = 0
        self._sequence = 0
        self._index = DedupIndex(store)
        self._map: SymbolMap | None = None
        self._late_before = self._market.bars.late

    @property
    def streams(self) -> list[str]:
        """The streams that the store had when it was opened."""
        return self._index.streams

    @property
    def late(self) -> int:
        """How many of the new trades were too old for the bars of their symbols."""
        return self._market.bars.late - self._late_before

    def write(self, rows: TradeRows) -> None:
        """Write the new ones of rows in one step, with what they change.

        Raises
        ------
        InputError
            When the store has another trade in the place of one of the rows.
        StoreError
            As `Store.write`; nothing of the rows was written.
        """
        self._take_lots(rows.symbols)
        new = rows[self._index.is_new(rows)]
        self.known += len(rows) - len(new)
        if self._map is None or self._map.source is not new.symbols:
            self._map = SymbolMap(new.symbols, self._market.intern)
        symbol = self._map.map(new.trades.symbol)
        if self._map.has_missing:
            accepted = symbol != SymbolMap.MISSING
            self.rejected += len(new) - int(np.count_nonzero(accepted))
            new, symbol = new[accepted], symbol[accepted]
        if len(new):
            frames = Frames.of(new.trades.with_symbols(symbol))
            change = self._market.apply(_PARTS, self._sequence, frames)
            self._sequence = change.run.next_sequence
            self._writer.write_parts(list(_runs(new, frames)))
            self._index.add(new)
            self.new += len(new)

    def _take_lots(self, symbols: SymbolTable) -> None:
        """Give the market's symbols the lots of the rows.

        Raises
        ------
        InputError
            When the store has sizes of a symbol in other lots.
        """
        for index, lot in symbols.lots_since(0):
            known = self._market.intern(symbols[index])
            own = lot if known is None else self._market.symbols.give_lot(known, lot)
            if own != lot:
                raise InputError(
                    f"{symbols[index]}: has a lot of {format_price(lot)}, and is stored in lots of "
                    f"{format_price(own)}; import it into another store"
                )

    def write_all(
        self, rows: Iterator[TradeRows], progress: Callable[[], None], *, is_live: bool = False
    ) -> None:
        """Write rows to their end, step by step.

        Parameters
        ----------
        rows : iterator of TradeRows
            All of the same tables. Where it raises CorruptStreamError, the rows before are written.
        progress : callable
            Called after each step.
        is_live : bool
            Whether rows are written as they arrive, rather than in steps of one size.

        Raises
        ------
        KeyboardInterrupt
            After a whole step.
        """
        groups = RowGroups(STEP_ROWS)

        def write(parts: Iterator[TradeRows]) -> None:
            for part in parts:
                with uninterrupted():
                    self.write(part)
                progress()

        try:
            for some in rows:
                write(iter([some]) if is_live else groups.add(some))
                progress()
        except CorruptStreamError:
            write(groups.rest())
            raise
        write(groups.rest())


def _runs(rows: TradeRows, frames: Frames) -> Iterator[StreamRun]:
    """Yield a run for each stream of rows, in order of sequence, with the symbols of the frames."""
    for stream in np.unique(rows.stream).tolist():
        own = np.flatnonzero(rows.stream == stream)
        own = own[np.argsort(rows.sequence[own], kind="stable")]
        sequence = rows.sequence[own]
        yield StreamRun(
            stream_id=rows.streams[stream],
            first_sequence=int(sequence[0]),
            next_sequence=int(sequence[-1]) + 1,
            sequence=sequence,
            trades=frames.trades[own],
            is_part=True,
        )
