"""What is not written to a client yet: the latest of each state, and events in their order."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Protocol

MAX_MESSAGES: Final = 256
MAX_MESSAGE_BYTES: Final = 1 << 20
MAX_STATE_BYTES: Final = 1 << 25
"""Every symbol's, of 20,000, five times."""
MAX_EVENTS: Final = 1_000
"""Events of one subscription; older ones are dropped, and reported as missed."""

TOO_MANY: Final = "too many messages wait to be read"
TOO_LARGE: Final = "too many bytes wait to be read"


class Owner(Protocol):
    """The subscription that updates belong to."""

    def missed(self, symbol: str, count: int | None) -> bytes:
        """Return the frame that so many events of a symbol were dropped."""
        ...


Update = tuple[Owner, Hashable, bytes]
"""The owner, the state of it that changes (or an Event), and the frame."""


class Event:
    """The key of an update that no later one replaces.

    Parameters
    ----------
    symbol : str
    count : int or None
        How many events it represents: one, or those that it reports as missed; None where the
        number is unknown.
    """

    __slots__ = ("count", "symbol")

    def __init__(self, symbol: str, count: int | None = 1) -> None:
        self.symbol = symbol
        self.count = count


class Backlog:
    """Frames in the order in which they are to be written.

    A state keeps its place when a later frame replaces an earlier one, so that a state that changes
    often delays none that seldom does. Of the events of one owner the oldest are dropped beyond
    `MAX_EVENTS`; their number is written before what is left. Messages, such as replies, are
    bounded in number and bytes; the outlet closes a client with too many.

    Attributes
    ----------
    frames : dict
        For reading only; by owner and state, by Event, or by a message that equals no other.
    """

    __slots__ = (
        *("_events", "_message_bytes", "_messages", "_missed"),
        *("_state_bytes", "frames"),
    )

    def __init__(self) -> None:
        self.clear()

    def __bool__(self) -> bool:
        return bool(self.frames)

    @property
    def is_too_large(self) -> bool:
        """Whether the states take more than `MAX_STATE_BYTES`."""
        return self._state_bytes > MAX_STATE_BYTES

    def keep(self, owner: Owner, state: Hashable, frame: bytes) -> int:
        """Keep an update; return how many earlier ones are thereby never written (0 or 1)."""
        key = (owner, state)
        replaced = self.frames.get(key)
        self.frames[key] = frame
        self._state_bytes += len(frame) - len(replaced or b"")
        if isinstance(state, Event):
            return self._bound_events(owner, state)
        return replaced is not None

    def add(self, frame: bytes) -> bool:
        """Keep a message; return False where there is no room for it."""
        if self._messages == MAX_MESSAGES or self._message_bytes + len(frame) > MAX_MESSAGE_BYTES:
            return False
        self._messages += 1
        self._message_bytes += len(frame)
        self.frames[_Message()] = frame
        return True

    def take(self) -> list[bytes]:
        """Return every frame, those about missed events first, and forget them."""
        missed = [
            owner.missed(symbol, count)
            for owner, counts in self._missed.items()
            for symbol, count in counts.items()
        ]
        frames = [*missed, *self.frames.values()]
        self.clear()
        return frames

    def forget(self, owner: Owner) -> None:
        """Drop the updates of an owner."""
        for key in [key for key in self.frames if isinstance(key, tuple) and key[0] == owner]:
            self._state_bytes -= len(self.frames.pop(key))
        self._events.pop(owner, None)
        self._missed.pop(owner, None)

    def clear(self) -> None:
        """Drop everything."""
        self.frames: dict[tuple[Owner, Hashable] | _Message, bytes] = {}
        self._messages = 0
        self._message_bytes = 0
        self._state_bytes = 0
        self._events: dict[Owner, dict[Event, None]] = {}
        self._missed: dict[Owner, dict[str, int | None]] = {}

    def _bound_events(self, owner: Owner, event: Event) -> int:
        events = self._events.setdefault(owner, {})
        events[event] = None
        if len(events) <= MAX_EVENTS:
            return 0
        oldest = next(iter(events))
        del events[oldest]
        self._state_bytes -= len(self.frames.pop((owner, oldest)))
        missed = self._missed.setdefault(owner, {})
        count = missed.get(oldest.symbol, 0)
        missed[oldest.symbol] = (
            None if count is None or oldest.count is None else count + oldest.count
        )
        return 1


class _Message:
    """The key of a message that was sent once."""

    __slots__ = ()
