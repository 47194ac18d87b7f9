"""A STOMP client, whatever it is connected by: its session, and what it follows."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Protocol

from mdtool.services.gateway.closing import CloseCode
from mdtool.services.gateway.hub import Subscriber
from mdtool.services.gateway.stomp.messages import Message, Wrapping
from mdtool.wire.stomp_session import StompSession, Subscription


class Outlet(Subscriber, Protocol):
    """The writing side of a connection."""

    def post(self, text: bytes) -> None:
        """Take an event, without waiting."""
        ...


class Broker(Protocol):
    """What connections are for. Its methods refuse by raising a MdtoolError."""

    def follow(self, member: Member) -> Callable[[], None]:
        """Tell a subscription of its destination, until what is returned is called."""
        ...

    def take(self, connection: Connection, destination: str, body: bytes) -> None:
        """Take what a client sends."""
        ...

    def forget(self, connection: Connection) -> None:
        """Learn that a client is gone; its subscriptions have ended."""
        ...


class Connection:
    """One client.

    Parameters
    ----------
    broker : Broker
        What it is connected to.
    outlet : Outlet
        Where it is written to.
    wrapping : Wrapping
        What STOMP is wrapped in there.
    end : callable
        Closes what it is connected by, with a code and a reason, once everything is written.
    now_s, heart_beat_s : float
        See StompSession.

    Attributes
    ----------
    name : str
        Which nobody can guess.
    """

    __slots__ = (
        *("_broker", "_end", "_ends", "_has_ended", "_session"),
        *("name", "outlet", "wrapping"),
    )

    def __init__(
        self,
        broker: Broker,
        outlet: Outlet,
        wrapping: Wrapping,
        end: Callable[[CloseCode, str], None],
        now_s: float,
        heart_beat_s: float,
    ) -> None:
        self._broker = broker
        self.outlet = outlet
        self.wrapping = wrapping
        self._end = end
        self.name = secrets.token_hex(8)
        self._ends: dict[str, Callable[[], None]] = {}
        self._has_ended = False
        self._session = StompSession(self, self._write, self.name, now_s, heart_beat_s)

    def receive(self, data: bytes, now_s: float) -> None:
        """Take what came from the client, in pieces of any size."""
        self._session.receive(data, now_s)
        self._end_if_over()

    def tick(self, now_s: float) -> None:
        """Beat, and give up who is silent for too long."""
        self._session.tick(now_s)
        self._end_if_over()

    def fail(self, message: str) -> None:
        """End the session with an ERROR."""
        self._session.fail(message)
        self._end_if_over()

    def leave(self, code: CloseCode, reason: str) -> None:
        """End the session without a word of its own."""
        if not self._has_ended:
            self._has_ended = True
            self._end(code, reason)

    def close(self) -> None:
        """End all that the client follows: its connection is gone."""
        self._has_ended = True
        self._session.close()
        self._broker.forget(self)

    def subscribe(self, subscription: Subscription) -> None:
        """Have the broker tell of a destination; called by the session, as are those below."""
        self._ends[subscription.key] = self._broker.follow(Member(self, subscription))

    def unsubscribe(self, subscription: Subscription) -> None:
        """Have it tell no more."""
        self._ends.pop(subscription.key)()

    def send(self, destination: str, body: bytes) -> None:
        """Hand over what the client says."""
        self._broker.take(self, destination, body)

    def _write(self, frame: bytes) -> None:
        self.outlet.post(self.wrapping.whole(frame))

    def _end_if_over(self) -> None:
        if self._session.is_over and not self._has_ended:
            self._has_ended = True
            error = self._session.error
            if error is None:
                self._end(CloseCode.NORMAL, "disconnected")
            else:
                self._end(CloseCode.PROTOCOL_ERROR, error)


class Member:
    """A client's subscription, as that sees it which tells of its destination."""

    __slots__ = ("connection", "head", "subscription")

    def __init__(self, connection: Connection, subscription: Subscription) -> None:
        self.connection = connection
        self.subscription = subscription
        self.head = connection.wrapping.head(subscription.head)

    def post(self, message: Message) -> None:
        """Tell of an event, which no later one stands for."""
        tail = message.tail(self.connection.wrapping, self.subscription.version)
        self.connection.outlet.post(self.head + tail)

    def fail(self, message: str) -> None:
        """Refuse the subscription after all, which ends the session."""
        self.connection.fail(f"SUBSCRIBE: {message}")
