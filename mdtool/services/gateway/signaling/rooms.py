"""`/app/signal` to `/topic/signaling`: who hears what of whom, in which room."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from mdtool.core.throttle import Throttle
from mdtool.services.gateway.stomp.connection import Connection, Member
from mdtool.services.gateway.stomp.messages import Message
from mdtool.wire.signaling import Signal, SignalError, encode_signal, parse_room, parse_signal

TOPIC: Final = "/topic/signaling"
DESTINATION: Final = "/app/signal"
SIGNALS_PER_S: Final = 20
SIGNALS_AT_ONCE: Final = 100
"""What a client may say; connecting to a peer takes some twenty signals."""

_COMMON: Final = ""
"""The room of who names none."""


class Rooms:
    """Relays the signals of each client to those who listen in the same room.

    A client is known by the senderId that it used first, which nobody else can use while it is
    connected. Who sends a signal hears it too, unless it is for another one: so all hear the JOINs
    of a room in the same order, and know which of two peers is to make the offer. For a client that
    is gone without a LEAVE, or that was never there, a LEAVE is made up.

    Parameters
    ----------
    max_listeners : int
        How many may listen in a room.
    clock : callable
        Gives the time in ns.
    """

    def __init__(self, max_listeners: int, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._max_listeners = max_listeners
        self._clock = clock
        self._listeners: dict[str, dict[Member, None]] = {}
        self._clients: dict[Connection, _Client] = {}
        self._ids: dict[str, Connection] = {}
        self._throttle = Throttle(SIGNALS_PER_S, SIGNALS_AT_ONCE)

    def follow(self, name: str, member: Member) -> Callable[[], None]:
        """Let a subscription hear what is said in a room, until the result is called.

        Raises
        ------
        SignalError
            When there is no such room, or no place in it.
        """
        room = parse_room(name) if name else _COMMON
        listeners = self._listeners.get(room, {})
        if len(listeners) >= self._max_listeners:
            raise SignalError(f"{self._max_listeners:,} clients listen there already")
        listeners[member] = None
        self._listeners[room] = listeners

        def leave() -> None:
            del listeners[member]
            if not listeners:
                del self._listeners[room]

        return leave

    def take(self, name: str, connection: Connection, body: bytes) -> None:
        """Relay what a client says in a room.

        Raises
        ------
        SignalError
            When it is no signal, or a senderId that is not this client's, or too much.
        """
        room = parse_room(name) if name else _COMMON
        if self._throttle.spend(connection.name, self._clock()):
            raise SignalError(f"more than {SIGNALS_PER_S} signals a second")
        signal = parse_signal(body)
        client = self._identify(connection, signal.sender_id)
        if signal.type == "JOIN":
            client.rooms.add(room)
        elif signal.type == "LEAVE":
            client.rooms.discard(room)
        if not self._relay(room, signal) and signal.target_id is not None:
            absence = Signal("LEAVE", signal.target_id, signal.sender_id)
            self._relay(room, absence)

    def forget(self, connection: Connection) -> None:
        """Tell the rooms of a client that it is gone."""
        client = self._clients.pop(connection, None)
        if client is not None:
            del self._ids[client.id]
            for room in client.rooms:
                self._relay(room, Signal("LEAVE", client.id))

    def _identify(self, connection: Connection, sender_id: str) -> _Client:
        client = self._clients.get(connection)
        if client is None:
            if sender_id in self._ids:
                raise SignalError(f"senderId: {sender_id!r} is another client's")
            client = self._clients[connection] = _Client(sender_id)
            self._ids[sender_id] = connection
        elif client.id != sender_id:
            raise SignalError(f"senderId: {sender_id!r} is not this client's, {client.id!r}")
        return client

    def _relay(self, room: str, signal: Signal) -> int:
        """Tell those in a room whom a signal is for; return how many there are."""
        listeners = list(self._listeners.get(room, ()))
        if signal.target_id is not None:
            target = self._ids.get(signal.target_id)
            listeners = [member for member in listeners if member.connection is target]
        destination = f"{TOPIC}/{room}" if room else TOPIC
        message = Message(destination, encode_signal(signal))
        for member in listeners:
            member.post(message)
        return len(listeners)


@dataclass(slots=True)
class _Client:
    id: str
    rooms: set[str] = field(default_factory=set)
    """Where it joined and did not leave."""
