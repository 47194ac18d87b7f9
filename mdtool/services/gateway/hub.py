"""Who follows which topic: what is published is encoded once, whoever and how many they are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable, Iterator, Sequence
from typing import Protocol

from mdtool.services.gateway.backlog import Update


class Subscriber(Protocol):
    """Somebody who follows topics."""

    def header(self, length: int) -> bytes:
        """Return what makes a frame of a text of so many bytes, when it stands before that."""
        ...

    def send(self, update: Update) -> None:
        """Take the latest of a state, without waiting."""
        ...

    def send_all(self, updates: Sequence[Update]) -> None:
        """Take the latest of several states, without waiting."""
        ...

    def forget(self, owner: Hashable) -> None:
        """Drop what was not sent yet of an owner's states."""
        ...


class Follower:
    """One subscription to a topic, the owner of what is sent because of it.

    Parameters
    ----------
    subscriber : Subscriber
        Whose it is.
    head : bytes
        What every message of it begins with.
    """

    __slots__ = ("_head", "_length", "_start", "subscriber")

    def __init__(self, subscriber: Subscriber, head: bytes) -> None:
        self.subscriber = subscriber
        self._head = head
        self._length = -1
        self._start = b""

    def send(self, payload: bytes, state: Hashable = None) -> None:
        """Send a message at once; see `Hub.publish`."""
        self.subscriber.send(self.update(payload, state))

    def update(self, payload: bytes, state: Hashable) -> Update:
        """Return what is sent of a message."""
        length = len(payload)
        if length != self._length:  # most payloads are as long as the one before
            self._length = length
            self._start = self.subscriber.header(len(self._head) + length) + self._head
        return self, state, self._start + payload


class Hub:
    """Topics and their followers; a topic is there as long as somebody follows it.

    What is published in one turn of the event loop goes out at its end, in one write a client:
    five symbols that change at once cost little more than one of them does.
    """

    def __init__(self) -> None:
        self._topics: dict[Hashable, dict[Follower, None]] = {}
        self._published: dict[Hashable, dict[Hashable, bytes]] = {}

    def __len__(self) -> int:
        return len(self._topics)

    def __contains__(self, topic: Hashable) -> bool:
        return topic in self._topics

    def follow(self, topic: Hashable, subscriber: Subscriber, head: bytes = b"") -> Follower:
        """Have a subscriber follow a topic, each message of which is to begin with `head`."""
        follower = Follower(subscriber, head)
        self._topics.setdefault(topic, {})[follower] = None
        return follower

    def leave(self, topic: Hashable, follower: Follower) -> None:
        """End what `follow` began."""
        followers = self._topics[topic]
        del followers[follower]
        follower.subscriber.forget(follower)
        if not followers:
            del self._topics[topic]

    @contextlib.contextmanager
    def subscription(self, topic: Hashable, subscriber: Subscriber) -> Iterator[Follower]:
        """Have a subscriber follow a topic within the block."""
        follower = self.follow(topic, subscriber)
        try:
            yield follower
        finally:
            self.leave(topic, follower)

    def publish(self, topic: Hashable, payload: bytes, state: Hashable = None) -> None:
        """Send everybody who follows the topic their own head and then the same bytes.

        Parameters
        ----------
        topic : hashable
            What is followed.
        payload : bytes
            The rest of a text, UTF-8.
        state : hashable
            What this is the latest of: to who does not keep up, only the last is sent. Where a
            topic is of one thing only, it need not be told.
        """
        if topic in self._topics:
            if not self._published:
                asyncio.get_running_loop().call_soon(self._deliver)
            self._published.setdefault(topic, {})[state] = payload

    def _deliver(self) -> None:
        """Send what was published in this turn."""
        published, self._published = self._published, {}
        messages = [
            (topic, state, payload)
            for topic, states in published.items()
            for state, payload in states.items()
        ]
        if len(messages) == 1:
            topic, state, payload = messages[0]
            for follower in self._topics.get(topic, ()):
                follower.send(payload, state)
            return
        updates: dict[Subscriber, list[Update]] = {}
        for topic, state, payload in messages:
            for follower in self._topics.get(topic, ()):
                update = follower.update(payload, state)
                updates.setdefault(follower.subscriber, []).append(update)
        for subscriber, its_updates in updates.items():
            subscriber.send_all(its_updates)
