"""The market as calls see it: frames in, what is committed, and those who follow it."""

from __future__ import annotations

import logging
import uuid
from typing import Final

from mdtool.core import tracing
from mdtool.core.logs import SERVICE
from mdtool.core.trades import Frames, TradeRun
from mdtool.engine.market import Market
from mdtool.services.aggregator.committer import Acknowledger, Committer
from mdtool.services.aggregator.markets import FrameCheck
from mdtool.services.aggregator.storage import MarketBars
from mdtool.services.aggregator.subscribers import Subscribers
from mdtool.services.aggregator.trade_publisher import TradePublisher
from mdtool.services.times import BATCH_BOUNDS, Histogram

log = logging.getLogger(__name__)

_MAX_OWNERS: Final = 100_000


class LiveMarket:
    """The one market of a service, with everything that its calls need.

    Parameters
    ----------
    market : Market
        The state, which only this object changes.
    committer : Committer
        Commits each change.
    bars : MarketBars
        The market's bars, however old.
    subscribers : Subscribers
        The readers of the state, woken at once: what they see need not be committed.

    Attributes
    ----------
    trades : TradePublisher
        What is committed, for calls that follow it.
    batches : Histogram
        How many ticks each batch of a peer had.
    """

    def __init__(
        self, market: Market, committer: Committer, bars: MarketBars, subscribers: Subscribers
    ) -> None:
        self.market = market
        self.committer = committer
        self.bars = bars
        self.subscribers = subscribers
        self.trades = TradePublisher(market.symbols)
        committer.listen(self.trades.publish)
        self.batches = Histogram(BATCH_BOUNDS)
        self._service = SERVICE.get()  # that of who offers it, also where another one calls
        self._own_stream_id = f"grpc-{uuid.uuid4().hex}"
        self._own_sequence = 0
        self._traced = 0, ""
        """The latest step of the market that is traced, and its trace."""
        self._owners: dict[str, str] = {}
        """Principals by stream, those asked for last."""

    async def accept(self, run: TradeRun, check: FrameCheck, acknowledger: Acknowledger) -> None:
        """Take a peer's run once there is room, and have it acknowledged when it is committed.

        Raises
        ------
        BatchError, SequenceGapError
            When the peer is in error; nothing has changed.
        StoreUnavailableError
            When the position of the stream is in a store that is unavailable.
        """
        with tracing.batches("apply", (run,), self._service) as trace:
            await self.committer.room()
            await acknowledger.room()
            await self.committer.recall(run.stream_id)
            frames = check.admit(run.frames)
            next_sequence = self.take(run.stream_id, run.first_sequence, frames)
            self.batches.add(len(frames.trades))
        if trace is not None:
            self._traced = self.market.commit, str(trace)
        acknowledger.add(self.market.commit, run.stream_id, next_sequence)

    async def position(self, stream_id: str) -> int | None:
        """Return a stream's position, once everything taken of it is committed; None if unknown.

        Raises
        ------
        StoreUnavailableError
            When the position is in a store that is unavailable.
        """
        await self.committer.recall(stream_id)
        await self.committer.settled(stream_id)
        return self.market.position(stream_id)

    def trace_since(self, commit: int) -> str:
        """Return the trace of the latest batch after a step; empty where none is, or for step 0."""
        step, trace = self._traced
        return trace if 0 < commit < step else ""  # not of what a reader begins with

    async def own(self, stream_id: str, principal: str) -> str:
        """Make a stream a principal's, unless it is another's; return whose it is.

        Raises
        ------
        StoreUnavailableError
            When the answer is in a store that is unavailable.
        """
        owner = self._owners.pop(stream_id, None)
        if owner is None:
            owner = await self.committer.own(stream_id, principal)
            owner = self._owners.pop(stream_id, owner)
        self._owners[stream_id] = owner
        if len(self._owners) > _MAX_OWNERS:
            del self._owners[next(iter(self._owners))]
        return owner

    def take(self, stream_id: str, first_sequence: int, frames: Frames) -> int:
        """Apply frames of a stream, admitted to the market; return the stream's position then.

        Raises
        ------
        SequenceGapError
            When frames before these are missing; nothing has changed.
        """
        if first_sequence and self.market.position(stream_id) is None:
            log.info("stream %s starts here at sequence %d", stream_id, first_sequence)
        change = self.market.apply(stream_id, first_sequence, frames)
        # States first: who waits for a commit may wait for them.
        self.subscribers.wake(self.market.symbols, change.changed)
        self.committer.add(change)
        return change.run.next_sequence

    def take_new(self, frames: Frames) -> None:
        """Apply frames of a client that knows no positions, in a stream of the service's own."""
        self._own_sequence = self.take(self._own_stream_id, self._own_sequence, frames)

    def close(self) -> None:
        """End all who follow the market."""
        self.subscribers.close()
        self.trades.close()
