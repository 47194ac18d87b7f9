"""What a client has still to be told: the latest of each state, and every event."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

MAX_EVENTS: Final = 256


class Backlog:
    """Texts in the order in which they are to be told.

    A state keeps its place when a later text takes that of an earlier one, so that one which
    changes often holds up none that seldom does.

    Attributes
    ----------
    texts : dict
        For reading only; by owner and state, or by an event that is equal to no other.
    """

    __slots__ = ("_events", "texts")

    def __init__(self) -> None:
        self.texts: dict[tuple[Hashable, Hashable] | _Event, bytes] = {}
        self._events = 0

    def keep(self, owner: Hashable, state: Hashable, text: bytes) -> bool:
        """Keep the latest of a state; return whether an earlier one is thereby never told."""
        replaces = (owner, state) in self.texts
        self.texts[owner, state] = text
        return replaces

    def add(self, text: bytes) -> bool:
        """Keep an event; return False where there are as many as there may be."""
        if self._events == MAX_EVENTS:
            return False
        self._events += 1
        self.texts[_Event()] = text
        return True

    def pop(self) -> bytes:
        """Return what is to be told first, and forget it."""
        key = next(iter(self.texts))
        self._events -= isinstance(key, _Event)
        return self.texts.pop(key)

    def forget(self, owner: Hashable) -> None:
        """Drop the states of an owner."""
        for key in [key for key in self.texts if isinstance(key, tuple) and key[0] == owner]:
            del self.texts[key]

    def clear(self) -> None:
        """Drop everything."""
        self.texts.clear()
        self._events = 0


class _Event:
    """Something that happened once."""

    __slots__ = ()
