"""When changes of the market are committed: at once in memory, or once a store has them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeVar

from mdtool.adapters.stores.errors import StoreError, StoreUnavailableError
from mdtool.adapters.stores.port import Step
from mdtool.adapters.stores.steps import Steps
from mdtool.core import tracing
from mdtool.core.backoff import delays
from mdtool.engine.market import Change, Market
from mdtool.services.aggregator.storage import StoreThread
from mdtool.services.times import COMMIT_BOUNDS_S, Histogram

log = logging.getLogger(__name__)

T = TypeVar("T")

CommitListener = Callable[[Sequence[Change]], None]
"""Called with changes that are committed, each once, in order, in the event loop's thread."""

WritePosition = Callable[[str, int], Awaitable[None]]
"""Sends a stream's id and its position, and waits while the peer is too slow for it."""

_MAX_PENDING: Final = 65_536
"""How many batches of a call may await their acknowledgement before it is blocked."""
_FIRST_WAIT_S: Final = 0.1
_MAX_NEW_STREAMS: Final = 100_000
_MAX_WAIT_S: Final = 2.0
"""The longest pause between two attempts to reach an unavailable store."""


class Committer:
    """Commits the changes of a market in order, in groups.

    With a store, all changes that arrive while a group is being written make the next group: the
    more there is to write, the larger the groups, and the lower the cost of each change.

    Parameters
    ----------
    market : Market
        The market, as it was created or restored.
    store : StoreThread or None
        Where its changes are stored; None means that they are committed at once.
    max_uncommitted : int
        How many frames may await their commit before senders are blocked.
    availability : callable
        Called with False when the store becomes unavailable, and with True when it is available
        again.

    Attributes
    ----------
    committed : int
        The number of the latest step of the market that is committed, with all before it.
    uncommitted : int
        Frames that await their commit.
    written : int
        Frames that are in the store, of those that came since this was created.
    times : Histogram
        How long groups took to write, retries apart.
    """

    def __init__(
        self,
        market: Market,
        store: StoreThread | None,
        max_uncommitted: int,
        availability: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.committed = market.commit
        self.uncommitted = self.written = 0
        self.times = Histogram(COMMIT_BOUNDS_S)
        self._market = market
        self._store = store
        self._steps = Steps(market)
        self._max_uncommitted = max_uncommitted
        self._availability = availability
        self._listeners: list[CommitListener] = []
        self._group: list[Change] = []
        self._streams: dict[str, int] = {}
        """The number of the latest uncommitted step of each stream."""
        self._new_streams: set[str] = set()
        """Some of the streams that neither the market nor the store knows."""
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._waiting_for_room: list[asyncio.Future[None]] = []
        self._has_work = asyncio.Event()
        self._is_ending = asyncio.Event()
        self._is_unavailable = False
        self._failure: StoreError | None = None
        """Why the store cannot be used any more."""

    @property
    def has_room(self) -> bool:
        """Whether more may be taken."""
        return self.uncommitted < self._max_uncommitted

    @property
    def is_writable(self) -> bool:
        """Whether the last attempt to write the store succeeded."""
        return not self._is_unavailable

    def listen(self, listener: CommitListener) -> None:
        """Call `listener` at each commit."""
        self._listeners.append(listener)

    def unlisten(self, listener: CommitListener) -> None:
        """Stop calling `listener`."""
        self._listeners.remove(listener)

    def add(self, change: Change) -> None:
        """Commit the latest change of the market, now or with the next group."""
        if self._store is None:
            self._settle([change], self._market.commit)
            return
        self._group.append(change)
        self._new_streams.discard(change.run.stream_id)
        self._streams[change.run.stream_id] = self._market.commit
        self.uncommitted += change.run.frames.count
        self._has_work.set()

    async def room(self) -> None:
        """Wait until more may be taken."""
        while not self.has_room:
            future = asyncio.get_running_loop().create_future()
            self._waiting_for_room.append(future)
            await future

    async def until(self, commit: int) -> None:
        """Wait until the market's step of that number, the latest or one before, is committed."""
        if commit > self.committed:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((commit, future))
            await future

    async def settled(self, stream_id: str) -> None:
        """Wait until all that the market has taken of a stream by now is committed."""
        await self.until(self._streams.get(stream_id, 0))

    async def recall(self, stream_id: str) -> None:
        """Restore the position of a stream that the market has forgotten from the store.

        Raises
        ------
        StoreUnavailableError
            When the store is unavailable, now or for good; then `run` ends with the reason.
        """
        if self._store is None or self._is_known(stream_id):
            return
        await self.settled(stream_id)
        position = await self._position(self._store, stream_id)
        if self._is_known(stream_id):
            return
        if position is not None:
            self._market.remember(stream_id, position)
            return
        if len(self._new_streams) == _MAX_NEW_STREAMS:
            self._new_streams.clear()
        self._new_streams.add(stream_id)

    async def own(self, stream_id: str, principal: str) -> str:
        """Make a stream a principal's, unless it is another's; return whose it is.

        Raises
        ------
        StoreUnavailableError
            As `recall`.
        """
        if self._store is None:
            return principal
        return await self._answer(self._store.own(stream_id, principal))

    async def run(self) -> None:
        """Write group after group, until `finish` is called and nothing is left.

        Raises
        ------
        StoreError
            When the store can store no more, now or later. Nothing of the group was written.
        """
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            if self._failure is not None:
                raise self._failure
            if self._group and not await self._write_group():
                return
            if self._is_ending.is_set() and not self._group:
                return
            if self._is_unavailable and self._store is not None:
                await self._probe(self._store)

    async def finish(self, running: asyncio.Task[None], timeout_s: float) -> None:
        """Have `run`, which is that task, write what is uncommitted, and wait for its end."""
        self._is_ending.set()
        self._has_work.set()
        await asyncio.wait({running}, timeout=timeout_s)
        if self.uncommitted:
            log.warning(
                "stopped with %d ticks taken that the store does not have and that were not "
                "acknowledged; their senders will send them again",
                self.uncommitted,
            )

    def _is_known(self, stream_id: str) -> bool:
        """Return whether the position of a stream need not be read from the store."""
        return stream_id in self._new_streams or self._market.position(stream_id) is not None

    async def _position(self, store: StoreThread, stream_id: str) -> int | None:
        return await self._answer(store.position(stream_id))

    async def _answer(self, answer: Awaitable[T]) -> T:
        """Return what the store answers, and note whether it is available."""
        try:
            found = await answer
        except StoreUnavailableError as error:
            self._set_unavailable(error)
            raise
        except StoreError as error:
            self._failure = error
            self._has_work.set()
            raise StoreUnavailableError(str(error)) from error
        if not self.uncommitted:
            self._set_available()
        return found

    async def _probe(self, store: StoreThread) -> None:
        """Try an unavailable store again and again, until it answers or there is work to do."""
        for delay_s in delays(_FIRST_WAIT_S, _MAX_WAIT_S):
            await _wait(self._has_work, delay_s)
            if self._has_work.is_set() or not self._is_unavailable:
                return
            with contextlib.suppress(StoreUnavailableError):
                await self._position(store, "")

    async def _write_group(self) -> bool:
        """Write the next group; return False when the service ends before that is done."""
        group, self._group = self._group, []
        commit = self._market.commit
        with tracing.batches("commit", (change.run for change in group)):
            if not await self._write(self._steps.take(group)):
                return False
        self._streams = {name: latest for name, latest in self._streams.items() if latest > commit}
        count = sum(change.run.frames.count for change in group)
        self.uncommitted -= count
        self.written += count
        self._settle(group, commit)
        return True

    async def _write(self, step: Step) -> bool:
        assert self._store is not None
        for delay_s in delays(_FIRST_WAIT_S, _MAX_WAIT_S):
            began_s = time.monotonic()
            try:
                await self._store.write(step)
            except StoreUnavailableError as error:
                self._set_unavailable(error)
            else:
                self.times.add(time.monotonic() - began_s)
                self._set_available()
                return True
            if self._is_ending.is_set():
                break
            await _wait(self._is_ending, delay_s)
        return False

    def _settle(self, group: Sequence[Change], commit: int) -> None:
        """Record a commit, and wake all who wait for it."""
        self.committed = commit
        for listener in self._listeners:
            listener(group)
        for awaited, future in self._waiting:
            if awaited <= commit:
                _wake(future)
        self._waiting = [entry for entry in self._waiting if entry[0] > commit]
        if self.has_room:
            for future in self._waiting_for_room:
                _wake(future)
            self._waiting_for_room.clear()

    def _set_unavailable(self, error: StoreUnavailableError) -> None:
        if not self._is_unavailable:
            self._is_unavailable = True
            self._has_work.set()
            log.warning("%s; nothing is acknowledged until the store is available again", error)
            self._availability(False)

    def _set_available(self) -> None:
        if self._is_unavailable:
            self._is_unavailable = False
            log.info("the store is available again")
            self._availability(True)


class Acknowledger:
    """Acknowledges the batches of one call once they are committed.

    Batches of a stream that are committed together have one acknowledgement.

    Parameters
    ----------
    committer : Committer
        Reports what is committed.
    write : callable
        Sends an acknowledgement.
    """

    def __init__(self, committer: Committer, write: WritePosition) -> None:
        self._committer = committer
        self._write = write
        self._pending: deque[tuple[int, str, int]] = deque()
        self._has_news = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_complete = False

    def add(self, commit: int, stream_id: str, next_sequence: int) -> None:
        """Acknowledge a stream up to a sequence, once that step of the market is committed."""
        self._pending.append((commit, stream_id, next_sequence))
        self._has_news.set()
        if len(self._pending) >= _MAX_PENDING:
            self._has_room.clear()

    async def room(self) -> None:
        """Wait until more may be added."""
        await self._has_room.wait()

    def complete(self) -> None:
        """Have `run` end once everything is acknowledged."""
        self._is_complete = True
        self._has_news.set()

    def cut_short(self) -> None:
        """Have `run` end soon: acknowledge only what is committed by now."""
        while self._pending and self._pending[-1][0] > self._committer.committed:
            self._pending.pop()
        self.complete()

    async def run(self) -> None:
        """Acknowledge what is added, until `complete` is called."""
        while self._pending or not self._is_complete:
            await self._has_news.wait()
            self._has_news.clear()
            await self._acknowledge()

    def committed(self, _changes: Sequence[Change]) -> None:
        """Wake `run`: something was committed."""
        self._has_news.set()

    async def _acknowledge(self) -> None:
        positions: dict[str, int] = {}
        while self._pending and self._pending[0][0] <= self._committer.committed:
            _, stream_id, next_sequence = self._pending.popleft()
            positions[stream_id] = next_sequence
        self._has_room.set()
        for stream_id, next_sequence in positions.items():
            await self._write(stream_id, next_sequence)


@contextlib.asynccontextmanager
async def acknowledging(committer: Committer, write: WritePosition) -> AsyncIterator[Acknowledger]:
    """Acknowledge what is added in the block, all of it by the end of a block without an error."""
    acknowledger = Acknowledger(committer, write)
    running = asyncio.create_task(acknowledger.run())
    committer.listen(acknowledger.committed)
    try:
        yield acknowledger
        acknowledger.complete()
        await running
    except Exception:
        # To cancel a write would leave the call unable to end with a status.
        acknowledger.cut_short()
        await running
        raise
    finally:
        committer.unlisten(acknowledger.committed)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for the event, but no longer than that."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
