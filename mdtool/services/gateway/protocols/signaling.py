"""WebRTC signaling over STOMP: rooms in which peers find each other, and their ICE servers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from aiohttp import web

from mdtool.core.addresses import listed
from mdtool.core.errors import ConfigError
from mdtool.core.throttle import Throttle
from mdtool.services.gateway.protocols import Paths
from mdtool.services.gateway.protocols.stomp import Dialect, message_number
from mdtool.services.http.answers import answer, encode_object
from mdtool.wire.signaling import Signal, SignalError, encode_signal, parse_room, parse_signal

SIGNALS_PER_S: Final = 20
SIGNALS_AT_ONCE: Final = 100
"""Signals of one client at once; connecting to a peer takes about twenty."""

_COMMON: Final = ""
"""The room of clients that name none."""
_SCHEMES: Final = {"stun": ("stun:", "stuns:"), "turn": ("turn:", "turns:")}


class Sender(Protocol):
    """A client, as rooms know it."""

    @property
    def name(self) -> str:
        """A random name, which cannot be guessed."""
        ...


class Listener(Protocol):
    """A client's subscription to a room."""

    @property
    def connection(self) -> Sender:
        """The client."""
        ...

    @property
    def dialect(self) -> Dialect:
        """The dialect of messages to it."""
        ...

    def post(self, message: bytes) -> None:
        """Write a message of its dialect."""
        ...


class Rooms:
    """Relays the signals of each client to the subscribers of the same room.

    A client is known by the senderId that it used first, which no other client can use while it is
    connected. The sender of a signal gets it too, unless it has a target: so all peers get the
    JOINs of a room in the same order, and know which of two makes the offer. For a client that
    disconnects without a LEAVE, and for a target that does not exist, the gateway sends a LEAVE.

    Parameters
    ----------
    max_listeners : int
        Of one room.
    clock : callable
        Gives the time in ns.
    number : callable
        Gives each message an identity.
    """

    topic = "/topic/signaling"
    destination = "/app/signal"

    def __init__(
        self,
        max_listeners: int,
        clock: Callable[[], int] = time.monotonic_ns,
        number: Callable[[], int] = message_number,
    ) -> None:
        self._max_listeners = max_listeners
        self._clock = clock
        self._number = number
        self._listeners: dict[str, dict[Listener, None]] = {}
        self._peers: dict[Sender, _Peer] = {}
        self._ids: dict[str, Sender] = {}
        self._throttle = Throttle(SIGNALS_PER_S, SIGNALS_AT_ONCE)

    def follow(self, name: str, member: Listener) -> Callable[[], None]:
        """Relay the signals of a room to a subscription; return what ends that.

        Raises
        ------
        SignalError
            When the room's name is not valid, or the room is full.
        """
        room = parse_room(name) if name else _COMMON
        listeners = self._listeners.get(room, {})
        if len(listeners) >= self._max_listeners:
            raise SignalError(f"limit of {self._max_listeners:,} listeners in this room reached")
        listeners[member] = None
        self._listeners[room] = listeners

        def leave() -> None:
            del listeners[member]
            if not listeners:
                del self._listeners[room]

        return leave

    def send(self, name: str, connection: Sender, body: bytes) -> None:
        """Relay a signal of a client in a room.

        Raises
        ------
        SignalError
            When it is not a signal, its senderId is another client's, or the rate is exceeded.
        """
        room = parse_room(name) if name else _COMMON
        if self._throttle.spend(connection.name, self._clock()):
            raise SignalError(f"rate limit of {SIGNALS_PER_S} signals a second exceeded")
        signal = parse_signal(body)
        peer = self._identify(connection, signal.sender_id)
        if signal.type == "JOIN":
            peer.rooms.add(room)
        elif signal.type == "LEAVE":
            peer.rooms.discard(room)
        if not self._relay(room, signal) and signal.target_id is not None:
            absence = Signal("LEAVE", signal.target_id, signal.sender_id)
            self._relay(room, absence)

    def forget(self, connection: Sender) -> None:
        """Send a LEAVE to the rooms of a client that is disconnected."""
        peer = self._peers.pop(connection, None)
        if peer is not None:
            del self._ids[peer.id]
            for room in peer.rooms:
                self._relay(room, Signal("LEAVE", peer.id))

    def _identify(self, connection: Sender, sender_id: str) -> _Peer:
        peer = self._peers.get(connection)
        if peer is None:
            if sender_id in self._ids:
                raise SignalError(f"senderId: {sender_id!r} is another client's")
            peer = self._peers[connection] = _Peer(sender_id)
            self._ids[sender_id] = connection
        elif peer.id != sender_id:
            raise SignalError(f"senderId: {sender_id!r} is not this client's, {peer.id!r}")
        return peer

    def _relay(self, room: str, signal: Signal) -> int:
        """Send a signal to those in a room whom it is for; return how many there are."""
        listeners = list(self._listeners.get(room, ()))
        if signal.target_id is not None:
            target = self._ids.get(signal.target_id)
            listeners = [member for member in listeners if member.connection is target]
        destination = f"{self.topic}/{room}" if room else self.topic
        body, number = encode_signal(signal), self._number()
        messages: dict[Dialect, bytes] = {}
        for member in listeners:
            message = messages.get(member.dialect)
            if message is None:
                message = member.dialect.message(destination, body, number)
                messages[member.dialect] = message
            member.post(message)
        return len(listeners)


@dataclass(slots=True)
class _Peer:
    id: str
    rooms: set[str] = field(default_factory=set)
    """The rooms that it has joined and not left."""


class IceServers:
    """STUN servers, and TURN servers with credentials that expire.

    A TURN server that shares the secret checks the credentials by itself, as coturn does with
    `use-auth-secret`: the user name is the time of expiry and any name, the password the HMAC of
    that.

    Parameters
    ----------
    stun_urls, turn_urls : str
        Such as `stun:stun.example.com:3478`, with commas; empty for none.
    turn_secret : str
        The secret that the TURN servers share.
    turn_ttl_s : int
        How long credentials are valid.

    Raises
    ------
    ConfigError
        When a URL is not valid, or there are TURN servers and no secret.

    References
    ----------
    draft-uberti-behave-turn-rest-00.
    """

    def __init__(self, stun_urls: str, turn_urls: str, turn_secret: str, turn_ttl_s: int) -> None:
        self._stun = _parse_urls("stun", stun_urls)
        self._turn = _parse_urls("turn", turn_urls)
        if self._turn and not turn_secret:
            raise ConfigError("turn_urls: turn_secret is missing; set the secret of the servers")
        self._secret = turn_secret.encode()
        self._ttl_s = turn_ttl_s

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {("GET", "/api/v1/ice-servers"): self.answer}

    async def answer(self, _request: web.Request) -> web.Response:
        """`GET /api/v1/ice-servers`: the configuration of an RTCPeerConnection."""
        servers = self.servers(int(time.time()), secrets.token_hex(8))
        body = encode_object({"iceServers": servers})
        return answer(body, {"Cache-Control": "no-store"})

    def servers(self, now_s: int, name: str) -> list[Mapping[str, Any]]:
        """Return the servers as RTCIceServer has them.

        Parameters
        ----------
        now_s : int
            The time, in s since the epoch.
        name : str
            Of the user, for the TURN servers.
        """
        servers: list[Mapping[str, Any]] = []
        if self._stun:
            servers.append({"urls": self._stun})
        if self._turn:
            user = f"{now_s + self._ttl_s}:{name}"
            # SHA-1 is what TURN servers compute.
            digest = hmac.new(self._secret, user.encode(), hashlib.sha1).digest()
            password = base64.b64encode(digest).decode()
            servers.append({"urls": self._turn, "username": user, "credential": password})
        return servers


def _parse_urls(kind: str, text: str) -> Sequence[str]:
    urls = listed(text)
    for url in urls:
        scheme = next((each for each in _SCHEMES[kind] if url.startswith(each)), url)
        if not url.removeprefix(scheme):
            known = " or ".join(_SCHEMES[kind])
            raise ConfigError(f"{kind}_urls: {url!r} is not a valid URL; begin it with {known}")
    return urls
