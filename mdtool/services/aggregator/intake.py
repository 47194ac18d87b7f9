"""The way of ticks into the market: a peer's symbols become the market's, readers are woken."""

from __future__ import annotations

import dataclasses
import logging
import uuid
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.core.symbols import SymbolTable
from mdtool.engine.market import Market
from mdtool.services.aggregator.committer import Committer
from mdtool.services.aggregator.subscribers import Subscribers
from mdtool.wire.admission import check_symbol, check_ticks
from mdtool.wire.ticks import Reason, Ticks

log = logging.getLogger(__name__)

_NO_ROOM: Final = 2**32 - 1
"""Stands for a symbol that the market did not take."""


class Intake:
    """Takes batches into the market, each as one step, and wakes the readers of what it changed.

    Parameters
    ----------
    market : Market
        Takes them.
    subscribers : Subscribers
        Woken at once, for what they see need not be committed.
    committer : Committer
        Commits each step.
    """

    def __init__(self, market: Market, subscribers: Subscribers, committer: Committer) -> None:
        self._market = market
        self._subscribers = subscribers
        self._committer = committer
        self._own_stream_id = f"grpc-{uuid.uuid4().hex}"
        self._own_sequence = 0

    def take(self, stream_id: str, first_sequence: int, ticks: Ticks) -> int:
        """Take a batch of a stream; return the stream's position after it.

        Raises
        ------
        SequenceGapError
            When frames before the batch are missing; nothing has changed.
        """
        if first_sequence and self._market.position(stream_id) is None:
            log.info("stream %s begins here at sequence %d", stream_id, first_sequence)
        change = self._market.apply(stream_id, first_sequence, ticks)
        self._committer.add(change)
        self._subscribers.wake(self._market.symbols, change.symbols)
        return change.next_sequence

    def take_new(self, ticks: Ticks) -> None:
        """Take ticks of a client that knows no positions, as those of a stream of the service's."""
        self._own_sequence = self.take(self._own_stream_id, self._own_sequence, ticks)


class Translation:
    """The indices of a peer's symbol table as indices of the market's.

    Parameters
    ----------
    market : Market
        Takes the symbols that it does not have yet.
    table : SymbolTable
        The peer's symbols, which may grow.
    """

    def __init__(self, market: Market, table: SymbolTable) -> None:
        self._market = market
        self._table = table
        self._indices = np.empty(0, np.uint32)
        self._is_complete = True

    def translate(self, ticks: Ticks) -> Ticks:
        """Return the ticks with the market's symbols; those that it has no room for are refused.

        Raises
        ------
        BatchError
            For a tick or a new symbol that no ingest server would have taken.
        """
        check_ticks(ticks)
        if new := self._table.since(len(self._indices)):
            indices = np.array([self._index_of(symbol) for symbol in new], np.uint32)
            self._indices = np.concatenate([self._indices, indices])
        translated = dataclasses.replace(ticks, symbol=self._indices[ticks.symbol])
        if self._is_complete:
            return translated
        return _refuse(translated, translated.symbol == _NO_ROOM)

    def _index_of(self, symbol: str) -> int:
        check_symbol(symbol)
        index = self._market.intern(symbol)
        if index is not None:
            return index
        if self._is_complete:
            self._is_complete = False
            log.warning("no room for symbol %s: its ticks, and others', are refused", symbol)
        return _NO_ROOM


def _refuse(ticks: Ticks, chosen: NDArray[np.bool_]) -> Ticks:
    """Return the ticks with those chosen among the refused, for their symbol."""
    offsets = np.concatenate([ticks.refused_offset, ticks.offset[chosen]])
    reasons = np.full(len(offsets), Reason.SYMBOL, np.uint8)
    reasons[: len(ticks.refused_reason)] = ticks.refused_reason
    order = np.argsort(offsets)
    return dataclasses.replace(
        ticks.chosen(~chosen), refused_offset=offsets[order], refused_reason=reasons[order]
    )
