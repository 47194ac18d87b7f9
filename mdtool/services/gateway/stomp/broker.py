"""Which destination is whose: topics that clients follow, and what they send to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from mdtool.services.gateway.stomp.connection import Connection, Member
from mdtool.wire.stomp import StompError


class Family(Protocol):
    """Topics whose destinations begin alike."""

    def follow(self, name: str, member: Member) -> Callable[[], None]:
        """Tell of the topic whose destination ends in `name`; see `Broker.follow`."""
        ...


class Receiver(Protocol):
    """What clients send to."""

    def take(self, name: str, connection: Connection, body: bytes) -> None:
        """Take what was sent to the destination that ends in `name`; refuse with a MdtoolError."""
        ...

    def forget(self, connection: Connection) -> None:
        """Learn that a client is gone."""
        ...


class DestinationBroker:
    """Hands what clients ask for to what knows of it.

    Parameters
    ----------
    families, receivers : mapping
        By how the destinations begin: `/topic/quotes/` stands for those that go on after that,
        `/app/signal` for this one alone.
    """

    def __init__(self, families: Mapping[str, Family], receivers: Mapping[str, Receiver]) -> None:
        self._families = families
        self._receivers = receivers

    def follow(self, member: Member) -> Callable[[], None]:
        """Tell a subscription of its destination, until what is returned is called.

        Raises
        ------
        MdtoolError
            When there is no such destination.
        """
        prefix, name = _find(self._families, member.subscription.destination)
        return self._families[prefix].follow(name, member)

    def take(self, connection: Connection, destination: str, body: bytes) -> None:
        """Take what a client sends.

        Raises
        ------
        MdtoolError
            When there is no such destination, or it does not take this.
        """
        prefix, name = _find(self._receivers, destination)
        self._receivers[prefix].take(name, connection, body)

    def forget(self, connection: Connection) -> None:
        """Learn that a client is gone."""
        for receiver in set(self._receivers.values()):
            receiver.forget(connection)


def _find(prefixes: Mapping[str, object], destination: str) -> tuple[str, str]:
    """Return how a destination begins and how it ends."""
    if destination in prefixes:
        return destination, ""
    for prefix in prefixes:
        if prefix.endswith("/") and destination.startswith(prefix):
            return prefix, destination.removeprefix(prefix)
    known = ", ".join(prefixes)
    raise StompError(f"nothing is at {destination!r:.120}; destinations begin with {known}")
