"""Subscriptions to topics: a payload is encoded once, and written once a client and turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

from mdtool.core.errors import MdtoolError
from mdtool.services.client import Client
from mdtool.services.gateway.backlog import Owner, Update


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
    """

    __slots__ = ("_head", "_length", "_start", "client", "fail", "format", "outlet")

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
    """Topics and their subscriptions; a topic exists while somebody subscribes to it.

    What is published in one turn of the event loop is written at its end, in one write a client:
    five symbols that change at once cost little more than one.
    """

    def __init__(self) -> None:
        self._topics: dict[Hashable, dict[Subscription, None]] = {}
        self._published: dict[Hashable, dict[Hashable, bytes]] = {}

    def __len__(self) -> int:
        return len(self._topics)

    def __contains__(self, topic: Hashable) -> bool:
        return topic in self._topics

    def subscribe(self, topic: Hashable, subscription: Subscription) -> Callable[[], None]:
        """Add a subscription to a topic; return what ends it."""
        self._topics.setdefault(topic, {})[subscription] = None

        def end() -> None:
            subscriptions = self._topics[topic]
            with contextlib.suppress(KeyError):
                del subscriptions[subscription]
            subscription.outlet.forget(subscription)
            if not subscriptions:
                del self._topics[topic]

        return end

    def publish(self, topic: Hashable, payload: bytes, state: Hashable = None) -> None:
        """Write a payload to every subscription of a topic, behind its head.

        Parameters
        ----------
        topic : hashable
        payload : bytes
            UTF-8.
        state : hashable
            What this is the latest of: a slow client gets only the last. An `Event` is never
            replaced.
        """
        if topic in self._topics:
            if not self._published:
                asyncio.get_running_loop().call_soon(self._deliver)
            self._published.setdefault(topic, {})[state] = payload

    def _deliver(self) -> None:
        """Write what was published in this turn."""
        published, self._published = self._published, {}
        messages = [
            (topic, state, payload)
            for topic, states in published.items()
            for state, payload in states.items()
        ]
        if len(messages) == 1:
            topic, state, payload = messages[0]
            for subscription in self._topics.get(topic, ()):
                subscription.outlet.send(subscription.update(payload, state))
            return
        updates: dict[Outlet, list[Update]] = {}
        for topic, state, payload in messages:
            for subscription in self._topics.get(topic, ()):
                update = subscription.update(payload, state)
                updates.setdefault(subscription.outlet, []).append(update)
        for outlet, its_updates in updates.items():
            outlet.send_all(its_updates)
