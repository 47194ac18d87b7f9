"""What new followers are told of what is there: some of it a turn, for others have theirs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from mdtool.services.gateway.backlog import Update
from mdtool.services.gateway.hub import Subscriber

AT_ONCE: Final = 256
"""States that are told in one turn, which takes 4 ms; 20,000 of them take 0.3 s."""


class Introductions:
    """Tells followers of the present states, the first of them at once.

    Later ones are told in turns of the event loop, one follower's a turn. Each is read off when
    its turn comes, so that it is never older than what was published of it in the meantime.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Introduction] = deque()

    def begin(self, subscriber: Subscriber, states: Iterable[Update]) -> Callable[[], None]:
        """Tell a follower of states; return what ends that early."""
        introduction = _Introduction(subscriber, states)
        if introduction.go_on():
            self._waiting.append(introduction)
            if len(self._waiting) == 1:
                asyncio.get_running_loop().call_soon(self._go_on)
        return introduction.end

    def _go_on(self) -> None:
        introduction = self._waiting.popleft()
        if introduction.go_on():
            self._waiting.append(introduction)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._go_on)


class _Introduction:
    __slots__ = ("_states", "_subscriber")

    def __init__(self, subscriber: Subscriber, states: Iterable[Update]) -> None:
        self._subscriber = subscriber
        self._states: Iterator[Update] = iter(states)

    def go_on(self) -> bool:
        """Tell some states; return whether there may be more."""
        states = list(islice(self._states, AT_ONCE))
        if states:
            self._subscriber.send_all(states)
        return len(states) == AT_ONCE

    def end(self) -> None:
        self._states = iter(())
