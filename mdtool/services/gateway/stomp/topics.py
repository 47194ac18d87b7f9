"""Topics of states, such as a symbol's aggregate: their followers among STOMP clients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from mdtool.services.gateway.hub import Hub
from mdtool.services.gateway.introductions import Introductions
from mdtool.services.gateway.stomp.connection import Member
from mdtool.services.gateway.stomp.messages import Message, Wrapping
from mdtool.wire.stomp import Version


class Topics:
    """Publishes each message once for all that are written to in the same way."""

    def __init__(self) -> None:
        self._hub = Hub()
        self._introductions = Introductions()
        self._followed: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._followed)

    def __contains__(self, topic: str) -> bool:
        return topic in self._followed

    def follow(self, topic: str, member: Member, current: Iterable[Message]) -> Callable[[], None]:
        """Tell a subscription of a topic, from its current states on, until the result is called.

        Parameters
        ----------
        topic : str
            What is followed, whether or not there is something of it yet.
        member : Member
            Who is told.
        current : iterable of Message
            What there is of it, each made when it is asked for.
        """
        wrapping, version = member.connection.wrapping, member.subscription.version
        outlet = member.connection.outlet
        key = (topic, wrapping, version is Version.V1_0)
        follower = self._hub.follow(key, outlet, member.head)
        self._followed[topic] += 1
        end = self._introductions.begin(
            outlet,
            (
                follower.update(message.tail(wrapping, version), message.state)
                for message in current
            ),
        )

        def leave() -> None:
            end()
            self._hub.leave(key, follower)
            self._followed[topic] -= 1
            if not self._followed[topic]:
                del self._followed[topic]

        return leave

    def publish(self, message: Message, *topics: str) -> None:
        """Tell who follows one of some topics of the latest of a state."""
        for topic in topics:
            if topic not in self._followed:
                continue
            for wrapping in Wrapping:
                for version in (Version.V1_0, Version.V1_2):
                    key = (topic, wrapping, version is Version.V1_0)
                    if key in self._hub:
                        tail = message.tail(wrapping, version)
                        self._hub.publish(key, tail, message.state)
