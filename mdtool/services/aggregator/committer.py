"""When what the market took is kept: at once in memory, or once a store has written it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Final

from mdtool.adapters.stores.errors import StoreError, StoreUnavailableError
from mdtool.adapters.stores.port import Step
from mdtool.adapters.stores.steps import Steps
from mdtool.core.backoff import delays
from mdtool.engine.market import Change, Market
from mdtool.services.aggregator.store_thread import StoreThread

log = logging.getLogger(__name__)

CommitListener = Callable[[Sequence[Change]], None]
"""Called with changes that are committed, each once, in order, in the event loop's thread."""

_FIRST_WAIT_S: Final = 0.1
_MAX_NEW_STREAMS: Final = 100_000
_MAX_WAIT_S: Final = 2.0
"""The longest pause between two tries to write to a store that is away."""


class Committer:
    """Commits the changes of a market in order, those that have gathered together.

    With a store, all that came while a group was being written is the next group: the more there
    is to write, the larger the groups, and the lower the cost of each change.

    Parameters
    ----------
    market : Market
        Whose changes they are, as it was made or restored.
    store : StoreThread or None
        Where they are kept; None means that taken is committed.
    max_uncommitted : int
        How many frames may await their commit before there is no more room.
    availability : callable
        Called with False when the store cannot be written, and with True when it can again.

    Attributes
    ----------
    committed : int
        The number of the latest of the market's steps that is committed, with all before.
    uncommitted : int
        Frames that await their commit.
    """

    def __init__(
        self,
        market: Market,
        store: StoreThread | None,
        max_uncommitted: int,
        availability: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.committed = market.commit
        self.uncommitted = 0
        self._market = market
        self._store = store
        self._steps = Steps(market)
        self._max_uncommitted = max_uncommitted
        self._availability = availability
        self._listeners: list[CommitListener] = []
        self._group: list[Change] = []
        self._streams: dict[str, int] = {}
        """The number of the latest step of each stream that has an uncommitted one."""
        self._new_streams: set[str] = set()
        """Of those that the market does not know, some that the store does not know either."""
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._waiting_for_room: list[asyncio.Future[None]] = []
        self._has_work = asyncio.Event()
        self._is_ending = asyncio.Event()
        self._is_away = False
        self._failure: StoreError | None = None
        """Why the store will not answer again."""

    @property
    def has_room(self) -> bool:
        """Whether more may be taken."""
        return self.uncommitted < self._max_uncommitted

    def listen(self, listener: CommitListener) -> None:
        """Have `listener` called at each commit."""
        self._listeners.append(listener)

    def unlisten(self, listener: CommitListener) -> None:
        """Call `listener` no more."""
        self._listeners.remove(listener)

    def add(self, change: Change) -> None:
        """Commit the change that the market has just made, now or with the next group."""
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
        """Let the market know where a stream goes on that it has forgotten, and the store has not.

        Raises
        ------
        StoreUnavailableError
            When the store cannot be asked now, or for good; then `run` ends with the reason.
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

    async def run(self) -> None:
        """Write group after group, until `finish` is called and nothing is left.

        Raises
        ------
        StoreError
            When the store can keep no more, now or later. Nothing of the group was written.
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
            if self._is_away and self._store is not None:
                await self._look(self._store)

    async def finish(self, running: asyncio.Task[None], timeout_s: float) -> None:
        """Let `run`, which is that task, write what was taken, and wait for its end."""
        self._is_ending.set()
        self._has_work.set()
        await asyncio.wait({running}, timeout=timeout_s)
        if self.uncommitted:
            log.warning(
                "stopped with %d ticks taken that the store has not kept, and that were not "
                "acknowledged; those who sent them send them again",
                self.uncommitted,
            )

    def _is_known(self, stream_id: str) -> bool:
        """Tell whether the store need not be asked for a stream."""
        return stream_id in self._new_streams or self._market.position(stream_id) is not None

    async def _position(self, store: StoreThread, stream_id: str) -> int | None:
        try:
            position = await store.position(stream_id)
        except StoreUnavailableError as error:
            self._lost(error)
            raise
        except StoreError as error:
            self._failure = error
            self._has_work.set()
            raise StoreUnavailableError(str(error)) from error
        if not self.uncommitted:
            self._found()
        return position

    async def _look(self, store: StoreThread) -> None:
        """Ask a store that is away again and again, until it is back or there is work to do."""
        for delay_s in delays(_FIRST_WAIT_S, _MAX_WAIT_S):
            await _wait(self._has_work, delay_s)
            if self._has_work.is_set() or not self._is_away:
                return
            with contextlib.suppress(StoreUnavailableError):
                await self._position(store, "")

    async def _write_group(self) -> bool:
        """Write what has gathered; return False when the end comes before it is written."""
        group, self._group = self._group, []
        commit = self._market.commit
        if not await self._write(self._steps.take(group)):
            return False
        self._streams = {name: latest for name, latest in self._streams.items() if latest > commit}
        self.uncommitted -= sum(change.run.frames.count for change in group)
        self._settle(group, commit)
        return True

    async def _write(self, step: Step) -> bool:
        assert self._store is not None
        for delay_s in delays(_FIRST_WAIT_S, _MAX_WAIT_S):
            try:
                await self._store.write(step)
            except StoreUnavailableError as error:
                self._lost(error)
            else:
                self._found()
                return True
            if self._is_ending.is_set():
                break
            await _wait(self._is_ending, delay_s)
        return False

    def _settle(self, group: Sequence[Change], commit: int) -> None:
        """Take note of a commit, and tell all who wait for it."""
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

    def _lost(self, error: StoreUnavailableError) -> None:
        if not self._is_away:
            self._is_away = True
            self._has_work.set()
            log.warning("%s; nothing is acknowledged until it can be written again", error)
            self._availability(False)

    def _found(self) -> None:
        if self._is_away:
            self._is_away = False
            log.info("the store is there again")
            self._availability(True)


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
