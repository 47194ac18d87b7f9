"""The current states that new subscriptions get first: some of them a turn, so that none waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from mdtool.services.gateway.backlog import Update
from mdtool.services.gateway.hub import Outlet

AT_ONCE: Final = 256
"""States written in one turn, which takes 4 ms; 20,000 of them take 0.3 s."""


class Snapshots:
    """Writes snapshots, the first states of each at once.

    Later ones are written in turns of the event loop, one snapshot's a turn. Each state is read
    when its turn comes, so it is never older than what was published of it in the meantime.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Snapshot] = deque()

    def begin(self, outlet: Outlet, updates: Iterable[Update]) -> Callable[[], None]:
        """Write updates to an outlet; return what ends that early."""
        snapshot = _Snapshot(outlet, updates)
        if snapshot.resume():
            self._waiting.append(snapshot)
            if len(self._waiting) == 1:
                asyncio.get_running_loop().call_soon(self._resume_next)
        return snapshot.end

    def _resume_next(self) -> None:
        snapshot = self._waiting.popleft()
        if snapshot.resume():
            self._waiting.append(snapshot)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._resume_next)


class _Snapshot:
    __slots__ = ("_outlet", "_updates")

    def __init__(self, outlet: Outlet, updates: Iterable[Update]) -> None:
        self._outlet = outlet
        self._updates: Iterator[Update] = iter(updates)

    def resume(self) -> bool:
        """Write some updates; return whether there may be more."""
        updates = list(islice(self._updates, AT_ONCE))
        if updates:
            self._outlet.send_all(updates)
        return len(updates) == AT_ONCE

    def end(self) -> None:
        self._updates = iter(())
