"""What a client has still to be told: the latest of each state, and every event."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Final

MAX_EVENTS: Final = 256
MAX_EVENT_BYTES: Final = 1 << 20
MAX_STATE_BYTES: Final = 1 << 25
"""Every symbol's, of 20,000, five times."""

TOO_MANY: Final = "too many messages wait to be read"
TOO_LARGE: Final = "too much waits to be read"

Update = tuple[Hashable, Hashable, bytes]
"""Whose state it is, which of theirs, and the frame that tells it."""


class Backlog:
    """Frames in the order in which they are to be told.

    A state keeps its place when a later frame takes that of an earlier one, so that one which
    changes often holds up none that seldom does. Events are bounded in number and in bytes; who
    keeps a state is to look whether all states together are too large.

    Attributes
    ----------
    frames : dict
        For reading only; by owner and state, or by an event that is equal to no other.
    """

    __slots__ = ("_event_bytes", "_events", "_state_bytes", "frames")

    def __init__(self) -> None:
        self.clear()

    @property
    def is_too_large(self) -> bool:
        """Whether the states take more than `MAX_STATE_BYTES`."""
        return self._state_bytes > MAX_STATE_BYTES

    def keep(self, owner: Hashable, state: Hashable, frame: bytes) -> bool:
        """Keep the latest of a state; return whether an earlier one is thereby never told."""
        key = (owner, state)
        replaced = self.frames.get(key)
        self.frames[key] = frame
        self._state_bytes += len(frame) - len(replaced or b"")
        return replaced is not None

    def add(self, frame: bytes) -> bool:
        """Keep an event; return False where there is no room for it."""
        if self._events == MAX_EVENTS or self._event_bytes + len(frame) > MAX_EVENT_BYTES:
            return False
        self._events += 1
        self._event_bytes += len(frame)
        self.frames[_Event()] = frame
        return True

    def take(self) -> Collection[bytes]:
        """Return everything, and forget it."""
        frames = self.frames
        self.clear()
        return frames.values()

    def forget(self, owner: Hashable) -> None:
        """Drop the states of an owner."""
        for key in [key for key in self.frames if isinstance(key, tuple) and key[0] == owner]:
            self._state_bytes -= len(self.frames.pop(key))

    def clear(self) -> None:
        """Drop everything."""
        self.frames: dict[tuple[Hashable, Hashable] | _Event, bytes] = {}
        self._events = 0
        self._event_bytes = 0
        self._state_bytes = 0


class _Event:
    """Something that happened once."""

    __slots__ = ()
