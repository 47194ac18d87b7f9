"""Who follows which topic: what is published is encoded once, whoever and how many they are."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.scatter_kernel import scatter
from mdtool.services.gateway.tallies import SocketTally
from mdtool.wire.websocket import text_header

_NOBODY: Final = np.zeros(0, np.int64)


class Subscriber(Protocol):
    """Somebody who follows topics."""

    def descriptor(self) -> int:
        """Return the non-blocking socket that takes a WebSocket frame at once, -1 if none does."""
        ...

    def finish(self, rest: bytes) -> None:
        """Take what the socket did not take of a frame."""
        ...

    def send(self, owner: Hashable, state: Hashable, text: bytes) -> None:
        """Take the latest of a state, without waiting; `owner` is what `forget` is told."""
        ...

    def forget(self, owner: Hashable) -> None:
        """Drop what was not sent yet of an owner's states."""
        ...


class Follower:
    """One subscription to a topic.

    Parameters
    ----------
    subscriber : Subscriber
        Whose it is.
    head : bytes
        What every message of it begins with.
    """

    __slots__ = ("head", "subscriber")

    def __init__(self, subscriber: Subscriber, head: bytes) -> None:
        self.subscriber = subscriber
        self.head = head


class Hub:
    """Topics and their followers; a topic is there as long as somebody follows it.

    Parameters
    ----------
    tally : SocketTally
        Where messages are counted.
    """

    def __init__(self, tally: SocketTally) -> None:
        self._tally = tally
        self._topics: dict[Hashable, _Topic] = {}

    def __len__(self) -> int:
        return len(self._topics)

    def __contains__(self, topic: Hashable) -> bool:
        return topic in self._topics

    def follow(self, topic: Hashable, subscriber: Subscriber, head: bytes = b"") -> Follower:
        """Have a subscriber follow a topic, each message of which is to begin with `head`."""
        follower = Follower(subscriber, head)
        self._topics.setdefault(topic, _Topic()).add(follower)
        return follower

    def leave(self, topic: Hashable, follower: Follower) -> None:
        """End what `follow` began."""
        followers = self._topics[topic]
        followers.remove(follower)
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
            The rest of a text, UTF-8, not empty.
        state : hashable
            What this is the latest of: to who does not keep up, only the last is sent. Where a
            topic is of one thing only, it need not be told.
        """
        followers = self._topics.get(topic)
        if followers is None:
            return
        plan = followers.plan(len(payload))
        sockets = np.array([each.subscriber.descriptor() for each in plan.followers], np.int64)
        written = np.empty(len(sockets), np.int64)
        rest = np.frombuffer(payload, np.uint8)
        scatter(sockets, plan.starts, plan.start_ends, rest, written)
        unwritten = np.flatnonzero(written != plan.sizes)
        self._tally.sent += len(sockets) - len(unwritten)
        for index in unwritten.tolist():
            follower = plan.followers[index]
            text = follower.head + payload
            if sockets[index] < 0:
                follower.subscriber.send(follower, state, text)
            else:
                frame = text_header(len(text)) + text
                follower.subscriber.finish(frame[max(0, int(written[index])) :])


class _Plan:
    """How payloads of one length go out to the followers of a topic.

    Attributes
    ----------
    followers : list of Follower
        The n followers.
    starts : uint8[start_ends[-1]]
        What comes before the payload for each of them, one after the other.
    start_ends : int64[n]
        Where each of those ends.
    sizes : int64[n]
        How long each one's frame is.
    """

    __slots__ = ("followers", "length", "sizes", "start_ends", "starts")

    def __init__(self, followers: list[Follower], length: int) -> None:
        self.followers = followers
        self.length = length
        heads = [text_header(len(each.head) + length) + each.head for each in followers]
        self.starts: NDArray[np.uint8] = np.frombuffer(b"".join(heads), np.uint8)
        lengths = np.array([len(head) for head in heads], np.int64)
        self.start_ends: NDArray[np.int64] = np.cumsum(lengths)
        self.sizes: NDArray[np.int64] = lengths + length


class _Topic:
    """The followers of a topic, at least one."""

    __slots__ = ("_followers", "_plan")

    def __init__(self) -> None:
        self._followers: dict[Follower, None] = {}
        self._plan: _Plan | None = None

    def __bool__(self) -> bool:
        return bool(self._followers)

    def add(self, follower: Follower) -> None:
        self._followers[follower] = None
        self._plan = None

    def remove(self, follower: Follower) -> None:
        del self._followers[follower]
        self._plan = None

    def plan(self, length: int) -> _Plan:
        """Return the plan for a length; most payloads of a topic are as long as the one before."""
        if self._plan is None or self._plan.length != length:
            self._plan = _Plan(list(self._followers), length)
        return self._plan


def warm_up() -> None:
    """Have what `publish` needs compiled and loaded before somebody waits for it."""
    nothing = np.frombuffer(b"\0", np.uint8)
    scatter(_NOBODY, nothing, _NOBODY, nothing, _NOBODY.copy())
