"""The way of ticks into the market: a peer's symbols become the market's, readers are woken."""

from __future__ import annotations

import logging
import uuid

from mdtool.core.symbols import SymbolMap, SymbolTable
from mdtool.core.trades import Frames, Reason
from mdtool.engine.market import Market
from mdtool.services.aggregator.committer import Committer
from mdtool.services.aggregator.subscribers import Subscribers
from mdtool.wire.admission import check_symbol, check_trades

log = logging.getLogger(__name__)


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

    def take(self, stream_id: str, first_sequence: int, frames: Frames) -> int:
        """Take a batch of a stream; return the stream's position after it.

        Raises
        ------
        SequenceGapError
            When frames before the batch are missing; nothing has changed.
        """
        if first_sequence and self._market.position(stream_id) is None:
            log.info("stream %s begins here at sequence %d", stream_id, first_sequence)
        change = self._market.apply(stream_id, first_sequence, frames)
        self._committer.add(change)
        self._subscribers.wake(self._market.symbols, change.changed)
        return change.run.next_sequence

    def take_new(self, frames: Frames) -> None:
        """Take frames of a client that knows no positions, as those of the service's own stream."""
        self._own_sequence = self.take(self._own_stream_id, self._own_sequence, frames)


class Admission:
    """Checks a peer's frames, and renumbers their symbols from the peer's table to the market's.

    Parameters
    ----------
    market : Market
        Takes the symbols that it does not have yet.
    table : SymbolTable
        The peer's symbols, which may grow.
    """

    def __init__(self, market: Market, table: SymbolTable) -> None:
        self._market = market
        self._map = SymbolMap(table, self._intern)

    def admit(self, frames: Frames) -> Frames:
        """Return the frames with the market's symbols; those that it has no room for are refused.

        Raises
        ------
        BatchError
            For a trade or a symbol that no ingest server would have accepted.
        """
        check_trades(frames.trades)
        symbol = self._map.map(frames.trades.symbol)
        admitted = frames.with_symbols(symbol)
        if not self._map.has_missing:
            return admitted
        return admitted.refuse(symbol == SymbolMap.MISSING, Reason.SYMBOL)

    def _intern(self, symbol: str) -> int | None:
        check_symbol(symbol)
        index = self._market.intern(symbol)
        if index is None and not self._map.has_missing:
            log.warning("no room for symbol %s: its trades and those of others are refused", symbol)
        return index
