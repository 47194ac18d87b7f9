"""Every trade that is committed, sent to all calls that follow trades."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Final, Self

from mdtool.core.errors import PeerError
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Frames, TradeRun, take_run
from mdtool.engine.market import Change
from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.batches import Lots, encode_batch

MAX_BEHIND: Final = 2_000_000
"""Trades that may wait for one call: a second's worth, 90 MB that all calls share."""


_MAX_JOINED: Final = 50_000
"""Frames of one message, 2 MB: of waiting batches, so that a slow call reads few large ones."""
_MAX_NAMES: Final = 20_000
"""New symbols of one message, at most 1.4 MB; with both it fits 4 MB, as any client accepts."""
_SYMBOLS_ALONE: Final = "symbols"
_MAX_COLLECTED: Final = 1_024
"""Trades that are not collected any longer, whatever the interval."""


class BehindError(PeerError):
    """A call reads too slowly: too many trades wait for it."""


class Follower:
    """One call's batches: an asynchronous iterator of messages, in the order of their commits.

    Batches of one stream that wait are joined, so that a slow call catches up. How far apart they
    come is the reader's choice: each one that is passed on wakes it.
    """

    def __init__(self, symbols: SymbolTable, max_behind: int) -> None:
        self._symbols = symbols
        self._known_symbols = 0
        self._known_lots = 0
        self._max_behind = max_behind
        self._collected: deque[_Batch] = deque()
        """What waits for the end of the interval."""
        self._waiting: deque[_Batch] = deque()
        self._unsent: _Batch | None = None
        """The batch whose symbols are not all sent yet."""
        self._behind = 0
        self._interval_s = 0.0
        self._next_s = 0.0
        """When the interval ends."""
        self._timer: asyncio.TimerHandle | None = None
        self._has_news = asyncio.Event()
        self._is_closed = False
        self._is_lost = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> marketdata_pb2.TickBatch:
        """Return the next message once there is one: a batch, or some of the symbols that it needs.

        Raises
        ------
        BehindError
            When the call read too slowly.
        """
        batch = self._unsent or await self._next()
        new_symbols = self._symbols.since(self._known_symbols)[:_MAX_NAMES]
        self._known_symbols += len(new_symbols)
        if self._known_symbols < len(self._symbols):
            self._unsent = batch
            # With a stream, for without one it would be the answer to a request.
            stream_id = batch.run.stream_id or _SYMBOLS_ALONE
            run = replace(batch.run, stream_id=stream_id, frames=batch.run.frames.first(0))
            return encode_batch(run, new_symbols)
        self._unsent = None
        new_lots = self._symbols.lots_since(self._known_lots)
        self._known_lots += len(new_lots)
        return batch.message(new_symbols, new_lots)

    async def runs(self) -> AsyncIterator[TradeRun]:
        """Yield the same batches as runs, whose table is the market's."""
        while True:
            try:
                batch = await self._next()
            except StopAsyncIteration:
                return
            yield batch.run

    async def _next(self) -> _Batch:
        while not self._waiting:
            if self._is_lost:
                raise BehindError(
                    f"more than {self._max_behind:,} trades waited for a slow reader; call again"
                )
            if self._is_closed:
                raise StopAsyncIteration
            await self._has_news.wait()
            self._has_news.clear()
        batch = self._take()
        self._behind -= len(batch.run.trades)
        return batch

    def _take(self) -> _Batch:
        """Return the oldest batch, joined with those that wait and continue its stream."""
        waiting = self._waiting
        first = waiting.popleft()
        runs, count, last = [first.run], first.run.frames.count, first.run
        while waiting and count and last.is_continued_by(waiting[0].run):
            count += waiting[0].run.frames.count
            if count > _MAX_JOINED:
                break
            last = waiting.popleft().run
            runs.append(last)
        return first if len(runs) == 1 else _Batch(take_run(deque(runs), _MAX_JOINED))

    def add(self, batch: _Batch) -> None:
        """Queue a batch, unless too many trades wait."""
        if self._is_lost:
            return
        self._behind += len(batch.run.trades)
        if self._behind > self._max_behind:
            self._is_lost = True
            self._collected.clear()
            self._waiting.clear()
            self._has_news.set()
            return
        self._collected.append(batch)
        if not self._interval_s or self._behind >= _MAX_COLLECTED:
            self._release()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            if loop.time() < self._next_s:
                self._timer = loop.call_at(self._next_s, self._release)
            else:
                self._release()

    def collect(self, interval_ms: int) -> None:
        """Have batches passed on so far apart at least; those that wait are passed on now."""
        self._interval_s = interval_ms / 1_000
        self._release()

    def request(self, interval_ms: int) -> None:
        """As `collect`; a run without frames and stream is passed on behind those that wait."""
        self._collected.append(_Batch(TradeRun(self._symbols, "", 0, Frames.empty())))
        self.collect(interval_ms)

    def close(self) -> None:
        """End the iteration after the batches that wait."""
        self._is_closed = True
        self._release()

    def _release(self) -> None:
        """Pass on what was collected, and begin the next interval."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._interval_s:
            self._next_s = asyncio.get_running_loop().time() + self._interval_s
        self._waiting.extend(self._collected)
        self._collected.clear()
        self._has_news.set()


class TradePublisher:
    """Publishes what is committed to all followers, without waiting for any of them.

    Parameters
    ----------
    symbols : SymbolTable
        The market's.
    max_behind : int
        How many ticks may wait for one of them.
    """

    def __init__(self, symbols: SymbolTable, max_behind: int = MAX_BEHIND) -> None:
        self._symbols = symbols
        self._max_behind = max_behind
        self._followers: set[Follower] = set()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._followers)

    @contextlib.contextmanager
    def follow(self) -> Iterator[Follower]:
        """Follow what is committed within the block."""
        follower = Follower(self._symbols, self._max_behind)
        if self._is_closed:
            follower.close()
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)
            follower.close()

    def publish(self, changes: Sequence[Change]) -> None:
        """Queue the trades and probes of committed changes for all followers."""
        if not self._followers:
            return
        for change in changes:
            runs = deque([change.run] if len(change.run.trades) or change.run.probe else ())
            while runs:
                batch = _Batch(take_run(runs, _MAX_JOINED))
                for follower in self._followers:
                    follower.add(batch)

    def close(self) -> None:
        """End the iteration of all followers, and at once that of later ones."""
        self._is_closed = True
        for follower in self._followers:
            follower.close()


class _Batch:
    """A run as a message, encoded once for all calls that have its symbols and lots already."""

    def __init__(self, run: TradeRun) -> None:
        self.run = run
        self._message: marketdata_pb2.TickBatch | None = None

    def message(self, new_symbols: Sequence[str], new_lots: Lots) -> marketdata_pb2.TickBatch:
        if new_symbols or new_lots:
            return encode_batch(self.run, new_symbols, new_lots)
        if self._message is None:
            self._message = encode_batch(self.run)
        return self._message
