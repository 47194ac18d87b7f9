"""Subscriptions to topics: a payload is encoded once, and written in rounds, once a client."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Generic, Protocol, TypeVar

from mdtool.core.errors import MdtoolError
from mdtool.core.permissions import Reader
from mdtool.services.client import Client
from mdtool.services.gateway.backlog import MAX_EVENTS, Event, Owner, Update
from mdtool.services.gateway.snapshots import Snapshots

T = TypeVar("T")

SLICE_S: Final = 0.004
"""How long a round writes before readers and requests have their turn."""
_UPDATES_AT_ONCE: Final = 64
"""Updates written between two looks at the clock, which take 0.5 ms."""


class Outlet(Protocol):
    """The writing side of a client's connection."""

    def header(self, length: int) -> bytes:
        """Return what precedes a text of so many bytes to make it a frame."""
        ...

    def send(self, update: Update) -> None:
        """Write the latest of a state, or keep it for later, without waiting."""
        ...

    def send_all(self, updates: Sequence[Update]) -> None:
        """Write or keep several updates, without waiting."""
        ...

    def forget(self, owner: Owner) -> None:
        """Drop what is not written of an owner's updates."""
        ...


class Format(Protocol):
    """How a protocol writes the rows of a feed. Equal formats share what is encoded."""

    def encode(self, row: Any, is_snapshot: bool = False) -> bytes:
        """Return a row as UTF-8, which follows the subscription's head.

        Parameters
        ----------
        row : R
        is_snapshot : bool
            Whether it is among those with which a subscription begins.
        """
        ...

    def missed(self, symbol: str, count: int | None) -> bytes:
        """Return the message that so many events of a symbol were dropped, likewise.

        The count is None where it is not known.
        """
        ...


class Subscription:
    """One client's subscription to a topic, the owner of what is written because of it.

    Parameters
    ----------
    client : Client
        Who subscribes.
    outlet : Outlet
        Where it is written.
    format : Format
        How rows are written.
    head : bytes
        What every message begins with, such as the id that the client gave.
    fail : callable
        Called with the reason when the subscription ends because it cannot be served.

    Attributes
    ----------
    has_ended : bool
        Whether nothing more is written because of it.
    reader : Reader or None
        Which symbols its client may read, where it is to every symbol; None for all.
    """

    __slots__ = (
        *("_head", "_length", "_start", "client", "fail", "format", "has_ended", "outlet"),
        "reader",
    )

    def __init__(
        self,
        client: Client,
        outlet: Outlet,
        format: Format,  # noqa: A002 - the word of the field
        head: bytes = b"",
        fail: Callable[[MdtoolError], None] = lambda _: None,
    ) -> None:
        self.client = client
        self.outlet = outlet
        self.format = format
        self.fail = fail
        self.has_ended = False
        self.reader: Reader | None = None
        self._head = head
        self._length = -1
        self._start = b""

    def update(self, payload: bytes, state: Hashable) -> Update:
        """Return a payload as what the outlet writes."""
        length = len(payload)
        if length != self._length:  # most payloads are as long as the one before
            self._length = length
            self._start = self.outlet.header(len(self._head) + length) + self._head
        return self, state, self._start + payload

    def missed(self, symbol: str, count: int | None) -> bytes:
        """Return the frame that so many events of a symbol were dropped."""
        return self.update(self.format.missed(symbol, count), None)[2]


class Hub:
    """Topics and their subscriptions; a topic exists while it has subscribers.

    What is published is written in rounds, in one write a client: five symbols that change at once
    cost little more than one. A round is written in slices, between which readers and requests
    have their turn. What is published meanwhile waits for the next round: of each state the latest,
    and of each topic the last `MAX_EVENTS` events.

    Attributes
    ----------
    snapshots : Snapshots
        What new subscriptions get first. It is written between rounds, so that no round brings an
        older state after it.
    rounds : int
        Rounds so far.
    conflated, dropped : int
        States that a later one replaced, and events that were dropped, before a round wrote them.
    """

    def __init__(self, now_s: Callable[[], float] = time.perf_counter) -> None:
        self.snapshots = Snapshots()
        self.rounds = self.conflated = self.dropped = 0
        self._now_s = now_s
        self._topics: dict[Hashable, dict[Subscription, None]] = {}
        self._published: dict[Hashable, _Unwritten] = {}
        self._waiting: list[Callable[[], None]] = []
        self._written: list[Callable[[], None]] = []
        self._round: Iterator[None] | None = None
        self._round_began_s = 0.0
        self._gap_ends_s = 0.0
        self._is_scheduled = False

    def __len__(self) -> int:
        return len(self._topics)

    def __contains__(self, topic: Hashable) -> bool:
        return topic in self._topics

    def subscribe(self, topic: Hashable, subscription: Subscription) -> Callable[[], None]:
        """Add a subscription to a topic; return what ends it.

        Events that were published by now are left out: its snapshot has them.
        """
        self._topics.setdefault(topic, {})[subscription] = None
        if topic in self._published:
            self._published[topic].add_late(subscription)

        def end() -> None:
            subscription.has_ended = True
            subscriptions = self._topics[topic]
            with contextlib.suppress(KeyError):
                del subscriptions[subscription]
            subscription.outlet.forget(subscription)
            if not subscriptions:
                del self._topics[topic]

        return end

    def begin_snapshot(self, outlet: Outlet, updates: Iterable[Update]) -> Callable[[], None]:
        """Write a snapshot, its first states at once; return what ends that early."""
        end = self.snapshots.begin(outlet, updates)
        if self.snapshots:
            self._schedule()
        return end

    def publish(self, topic: Hashable, payload: bytes, state: Hashable = None) -> None:
        """Write a payload to every subscription of a topic, behind its head.

        Parameters
        ----------
        topic : hashable
        payload : bytes
            UTF-8.
        state : hashable
            What this is the latest of: only the last is written. An `Event` is never replaced.
        """
        if topic not in self._topics:
            return
        unwritten = self._published.get(topic)
        if unwritten is None:
            unwritten = self._published[topic] = _Unwritten()
            self._schedule()
        if isinstance(state, Event):
            self.dropped += unwritten.add(state, payload)
        else:
            self.conflated += state in unwritten.states
            unwritten.states[state] = payload

    def when_ready(self, publish: Callable[[], None]) -> None:
        """Call a function before the next round begins, such as one that publishes for it."""
        self._waiting.append(publish)
        self._schedule()

    def when_written(self, note: Callable[[], None]) -> None:
        """Call a function once everything that is published by now was written."""
        self._written.append(note)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        """Write a slice of a round, or begin one."""
        try:
            self._write_slice()
        finally:
            self._is_scheduled = False  # what was published in this turn is in it, or waits
        if self._round or self._published or self._waiting or self._written or self.snapshots:
            self._schedule()

    def _write_slice(self) -> None:
        began_s = self._now_s()
        if self._round is None:
            if self.snapshots.resume() and began_s < self._gap_ends_s:
                return
            self._round_began_s = began_s
            self._round = self._begin()
        for _ in self._round:
            if self._now_s() - began_s >= SLICE_S:
                break
        else:
            self._round = None
            ended_s = self._now_s()
            # Snapshots get as much time as rounds, where there are any.
            self._gap_ends_s = 2 * ended_s - self._round_began_s

    def _begin(self) -> Iterator[None]:
        """Return a round of what is published by now, to who subscribes by now."""
        waiting, self._waiting = self._waiting, []
        for publish in waiting:
            publish()
        published, self._published = self._published, {}
        written, self._written = self._written, []
        self.rounds += bool(published)
        if len(published) == 1:
            ((topic, unwritten),) = published.items()
            following = list(self._topics.get(topic, ()))
            messages = unwritten.messages(following[0].format) if following else ()
            if len(messages) == 1 and not unwritten.late:
                return _write_one(*messages[0], following, written)
        parts: dict[Outlet, _Part | list[_Part]] = {}
        for topic, unwritten in published.items():
            subscriptions = self._topics.get(topic)
            if subscriptions:
                messages = unwritten.messages(next(iter(subscriptions)).format)
                for subscription in subscriptions:
                    its = messages
                    if subscription in unwritten.late:
                        its = unwritten.messages_since(subscription)
                    part = subscription, its
                    # Most outlets have one part: a list for each would take as long as its write.
                    before = parts.setdefault(subscription.outlet, part)
                    if before is part:
                        continue
                    if isinstance(before, list):
                        before.append(part)
                    else:
                        parts[subscription.outlet] = [before, part]
        return _write(parts, written)


_Message = tuple[Hashable, bytes]
"""A state, or an Event, and its payload."""
_Part = tuple[Subscription, Sequence[_Message]]
"""What one subscription gets of a round."""


def _write_one(
    state: Hashable,
    payload: bytes,
    subscriptions: Sequence[Subscription],
    written: Sequence[Callable[[], None]],
) -> Iterator[None]:
    """Write one message to each subscription, and stop now and then."""
    for begin in range(0, len(subscriptions), _UPDATES_AT_ONCE):
        for subscription in subscriptions[begin : begin + _UPDATES_AT_ONCE]:
            if not subscription.has_ended:
                subscription.outlet.send(subscription.update(payload, state))
        yield
    for note in written:
        note()


def _write(
    parts: Mapping[Outlet, _Part | list[_Part]],
    written: Sequence[Callable[[], None]],
) -> Iterator[None]:
    """Write each outlet's part, and stop now and then."""
    count = 0
    for outlet, its_parts in parts.items():
        if isinstance(its_parts, tuple) and len(its_parts[1]) == 1:
            subscription, ((state, payload),) = its_parts
            if not subscription.has_ended:
                outlet.send(subscription.update(payload, state))
            count += 1
        else:
            updates = [
                subscription.update(payload, state)
                for subscription, messages in _listed(its_parts)
                if not subscription.has_ended
                for state, payload in messages
            ]
            if len(updates) == 1:
                outlet.send(updates[0])
            elif updates:
                outlet.send_all(updates)
            count += len(updates)
        if count >= _UPDATES_AT_ONCE:
            count = 0
            yield
    for note in written:
        note()


def _listed(parts: _Part | list[_Part]) -> Sequence[_Part]:
    return parts if isinstance(parts, list) else [parts]


class _Unwritten:
    """What is published of a topic, and not in a round yet."""

    __slots__ = ("_dropped", "_events", "_missed", "late", "states")

    def __init__(self) -> None:
        self.states: dict[Hashable, bytes] = {}
        self.late: dict[Subscription, int] = {}
        """Who subscribed meanwhile, and how many events there had been by then."""
        self._events: deque[tuple[Event, bytes]] = deque()
        self._dropped = 0
        self._missed: dict[str, int | None] = {}

    def add(self, event: Event, payload: bytes) -> int:
        """Add an event; return how many older ones are dropped for it (0 or 1)."""
        self._events.append((event, payload))
        if len(self._events) <= MAX_EVENTS:
            return 0
        oldest, _ = self._events.popleft()
        self._dropped += 1
        count = self._missed.get(oldest.symbol, 0)
        self._missed[oldest.symbol] = (
            None if count is None or oldest.count is None else count + oldest.count
        )
        return 1

    def add_late(self, subscription: Subscription) -> None:
        """Note that a subscription gets only the events from now on."""
        self.late[subscription] = self._dropped + len(self._events)

    def messages(self, format_: Format) -> Sequence[_Message]:
        """Return everything, what was missed first."""
        missed = [
            (Event(symbol, count), format_.missed(symbol, count))
            for symbol, count in self._missed.items()
        ]
        return [*missed, *self.states.items(), *self._events]

    def messages_since(self, late: Subscription) -> Sequence[_Message]:
        """Return the states, and the events since a subscription, what it missed of them first."""
        before = self.late[late] - self._dropped
        if before >= 0:
            return [*self.states.items(), *islice(self._events, before, None)]
        symbols = self._missed  # whose events were dropped, some of them before it
        missed = [(Event(symbol, None), late.format.missed(symbol, None)) for symbol in symbols]
        return [*missed, *self.states.items(), *self._events]


class Changes(Generic[T]):
    """Collects what changed while a round is written, and publishes it once, before the next.

    Parameters
    ----------
    hub : Hub
    publish : callable
        Called with what changed, each once.
    """

    def __init__(self, hub: Hub, publish: Callable[[Collection[T]], None]) -> None:
        self._hub = hub
        self._publish = publish
        self._changed: dict[T, None] = {}

    def add(self, changed: Iterable[T]) -> None:
        """Have changes published when the hub is ready."""
        if not self._changed:
            self._hub.when_ready(self._publish_all)
        self._changed.update(dict.fromkeys(changed))

    def _publish_all(self) -> None:
        changed, self._changed = self._changed, {}
        if changed:
            self._publish(changed.keys())
