"""Clients that follow a feed of the gateway, one for each protocol; they read only on request."""

from __future__ import annotations

import contextlib
import json
import socket as sockets
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, TCPConnector, WSMsgType

from mdtool.services.gateway.feeds.feed import ALL
from mdtool.services.gateway.table import TABLE, FeedRow
from mdtool.wire.graphql import SUBPROTOCOL
from mdtool.wire.stomp import Frame, StompDecoder, Version, encode
from tests.support.feed_sources import SOURCES
from tests.support.gateways import Client
from tests.support.waiting import bounded

_RECEIVE_BYTES = 4_096
"""What the system keeps for a client that does not read."""


class Update(NamedTuple):
    """A row of a symbol, or how many of its events were missed."""

    symbol: str
    row: Mapping[str, Any]
    missed: int | None = None


def bearer(token: str | None) -> Mapping[str, str]:
    """The header of a token."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


class ClosedError(Exception):
    """The gateway closed the connection, with a code."""


class RejectedError(Exception):
    """The gateway rejected a subscription."""


class Follower:
    """A connection; of one subscription at a time.

    Attributes
    ----------
    listener : str
        What metrics call its connections.
    has_unsubscribe : bool
    """

    listener = ""
    has_unsubscribe = True
    token: str | None = None

    def __init__(self, session: ClientSession, base: str) -> None:
        self._session = session
        self._base = base

    @staticmethod
    def can_follow(row: FeedRow, symbol: str) -> bool:
        """Whether the protocol has a subscription to a symbol, or to ALL."""
        return True

    async def open(self) -> None:
        """Connect, and authenticate where there is a token."""

    async def close(self) -> None:
        """Disconnect."""

    async def subscribe(self, row: FeedRow, symbol: str, number: int = 1) -> None:
        """Subscribe, without waiting for data."""
        raise NotImplementedError

    async def unsubscribe(self, number: int = 1) -> None:
        """Unsubscribe, and drop all that comes until that is done."""
        raise NotImplementedError

    async def update(self) -> Update:
        """What comes next."""
        raise NotImplementedError

    async def quiet(self) -> None:
        """Check that nothing has come."""
        raise NotImplementedError

    async def until(self, symbol: str, cents: int, source) -> Update:
        """The first update in which a symbol has a price."""
        while True:
            update = await self.update()
            if update.symbol == symbol and update.row and source.cents(update.row) == cents:
                return update


class SocketFollower(Follower):
    """A follower over WebSocket."""

    socket: ClientWebSocketResponse | None = None

    async def close(self) -> None:
        if self.socket is not None:
            await self.socket.close()

    async def connect(
        self, path: str, protocols: tuple[str, ...] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        self.socket = await self._session.ws_connect(
            f"{self._base}{path}", protocols=protocols, headers=headers
        )

    async def text(self) -> str:
        message = await self.socket.receive()
        if message.type in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING}:
            raise ClosedError(self.socket.close_code)
        assert message.type is WSMsgType.TEXT, message
        return message.data

    async def json(self) -> dict[str, Any]:
        return json.loads(await self.text())

    async def say(self, **message: Any) -> None:
        await self.socket.send_json(message)


class StreamFollower(SocketFollower):
    """`WS /stream`."""

    listener = "/stream"

    async def open(self) -> None:
        await self.connect("/stream")
        if self.token is not None:
            await self.say(op="auth", token=self.token)
            assert await self.json() == {"op": "auth", "id": None, "ok": True}

    async def subscribe(self, row: FeedRow, symbol: str, number: int = 1) -> None:
        await self.say(op="subscribe", id=number, channel=row.name, symbols=[symbol])
        reply = await self.json()
        assert reply["id"] == number
        if "error" in reply:
            raise RejectedError(reply["error"]["message"])
        self._channel = row.name
        self.unknown = reply.get("unknown", [])

    async def unsubscribe(self, number: int = 1) -> None:
        await self.say(op="unsubscribe", id=number)
        while (message := await self.json()) != {"id": number, "ok": True}:
            assert "data" in message

    async def update(self) -> Update:
        message = await self.json()
        assert message["channel"] == self._channel
        if "missed" in message:
            return Update(message["symbol"], {}, message["missed"])
        assert message["symbol"] == message["data"]["symbol"]
        return Update(message["symbol"], message["data"])

    async def quiet(self) -> None:
        await self.say(op="ping")
        assert await self.json() == {"op": "pong"}


class StompFollower(SocketFollower):
    """STOMP over a raw WebSocket."""

    listener = "/ws/websocket"

    def __init__(self, session: ClientSession, base: str) -> None:
        super().__init__(session, base)
        self._decoder = StompDecoder()
        self._decoder.version = Version.V1_2

    @staticmethod
    def can_follow(row: FeedRow, symbol: str) -> bool:
        return not row.is_whole or symbol == ALL

    async def open(self) -> None:
        await self.connect("/ws/websocket")
        await self._begin()

    async def _begin(self) -> None:
        headers = {"accept-version": "1.2"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        await self.send(encode("CONNECT", headers))
        frame = await self.frame()
        if frame.command == "ERROR":
            raise RejectedError(frame.headers["message"])
        assert frame.command == "CONNECTED"

    async def send(self, frame: bytes) -> None:
        await self.socket.send_bytes(frame)

    async def receive(self) -> list[str]:
        """Texts of STOMP that came."""
        return [await self.text()]

    async def frame(self) -> Frame:
        while (frame := self._decoder.next_frame()) is None:
            for text in await self.receive():
                self._decoder.feed(text.encode())
        return frame

    async def subscribe(self, row: FeedRow, symbol: str, number: int = 1) -> None:
        destination = row.destination
        if not row.is_whole:
            option = f"/{row.default}" if row.has_option_in_destination else ""
            destination += symbol + option
        await self.send(encode("SUBSCRIBE", {"id": str(number), "destination": destination}))

    async def unsubscribe(self, number: int = 1) -> None:
        await self.send(encode("UNSUBSCRIBE", {"id": str(number), "receipt": "gone"}))
        async with bounded():
            while (await self.frame()).command != "RECEIPT":
                pass

    async def update(self) -> Update:
        frame = await self.frame()
        if frame.command == "ERROR":
            raise RejectedError(frame.headers["message"])
        assert frame.command == "MESSAGE", frame
        row = json.loads(frame.body)
        return Update(row["symbol"], {} if "missed" in row else row, row.get("missed"))

    async def quiet(self) -> None:
        await self.send(encode("BEGIN", {"transaction": "t", "receipt": "quiet"}))
        assert (await self.frame()).headers == {"receipt-id": "quiet"}


class SockJsFollower(StompFollower):
    """STOMP over SockJS over WebSocket."""

    listener = "/ws"

    async def open(self) -> None:
        await self.connect("/ws/000/s/websocket")
        assert await self.text() == "o"
        await self._begin()

    async def send(self, frame: bytes) -> None:
        await self.socket.send_str(json.dumps([frame.decode()]))

    async def receive(self) -> list[str]:
        return _messages(await self.text())


class PollingFollower(StompFollower):
    """STOMP over SockJS over requests."""

    listener = "/ws"

    async def open(self) -> None:
        self._path = f"{self._base}/ws/000/{id(self)}"
        assert await self.receive() == []
        await self._begin()

    async def send(self, frame: bytes) -> None:
        text = json.dumps([frame.decode()])
        async with self._session.post(f"{self._path}/xhr_send", data=text) as response:
            assert response.status == 204, await response.text()

    async def receive(self) -> list[str]:
        async with self._session.post(f"{self._path}/xhr") as response:
            if response.status != 200:
                raise ClosedError(response.status)
            frames = (await response.text()).splitlines()
        return [text for frame in frames for text in _messages(frame)]


class GraphQLFollower(SocketFollower):
    """Subscriptions over graphql-transport-ws."""

    listener = "/graphql"

    async def open(self) -> None:
        await self.connect("/graphql", (SUBPROTOCOL,))
        payload = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        await self.say(type="connection_init", payload=payload)
        assert await self.json() == {"type": "connection_ack"}

    async def subscribe(self, row: FeedRow, symbol: str, number: int = 1) -> None:
        self._field = row.graphql_field
        selection = SOURCES[row.name].selection
        query = f'subscription {{ {self._field}(symbol: "{symbol}") {{ {selection} }} }}'
        await self.say(id=str(number), type="subscribe", payload={"query": query})

    async def unsubscribe(self, number: int = 1) -> None:
        await self.say(id=str(number), type="complete")
        await self.say(type="ping")
        while (message := await self.json()) != {"type": "pong"}:
            assert message["type"] == "next"

    async def update(self) -> Update:
        message = await self.json()
        if message["type"] == "error":
            raise RejectedError(message["payload"][0]["message"])
        assert message["type"] == "next", message
        payload = message["payload"]
        if "missed" in payload.get("extensions", {}):
            return Update(payload["extensions"]["symbol"], {}, payload["extensions"]["missed"])
        row = payload["data"][self._field]
        return Update(row["symbol"], row)

    async def quiet(self) -> None:
        await self.say(type="ping")
        assert await self.json() == {"type": "pong"}


class PlainFollower(SocketFollower):
    """The WebSocket that a feed has of its own."""

    has_unsubscribe = False

    @staticmethod
    def can_follow(row: FeedRow, symbol: str) -> bool:
        plain = row.socket
        return plain is not None and not (plain.requires_symbols and symbol == ALL)

    async def subscribe(self, row: FeedRow, symbol: str, number: int = 1) -> None:
        name = "symbol" if row.socket.requires_symbols else "symbols"
        query = "" if symbol == ALL else f"?{name}={symbol}"
        self.listener = row.socket.listener
        await self.connect(f"{row.socket.path}{query}", headers=bearer(self.token))

    async def update(self) -> Update:
        row = await self.json()
        return Update(row["symbol"], row)


FOLLOWERS: dict[str, type[Follower]] = {
    "stream": StreamFollower,
    "stomp": StompFollower,
    "sockjs": SockJsFollower,
    "polling": PollingFollower,
    "graphql": GraphQLFollower,
    "plain": PlainFollower,
}
"""By protocol."""


def pairs(symbol: str = "AAPL", **wanted: object) -> list[Any]:
    """Each feed with each protocol that can follow a symbol of it, as parameters of a test."""
    return [
        pytest.param(row, kind, id=f"{row.name}-{name}")
        for row in TABLE.values()
        for name, kind in FOLLOWERS.items()
        if kind.can_follow(row, symbol)
        and all(getattr(kind, each) == value for each, value in wanted.items())
    ]


@contextlib.asynccontextmanager
async def follower_of(
    kind: type[Follower], client: Client, token: str | None = None
) -> AsyncIterator[Any]:
    """A follower that is connected until the block ends."""
    async with ClientSession(connector=TCPConnector(socket_factory=_small_socket)) as session:
        follower = kind(session, f"http://{client.host}:{client.port}")
        follower.token = token
        try:
            await follower.open()
            yield follower
        finally:
            await follower.close()


def _small_socket(address: Any) -> sockets.socket:
    family, kind, protocol, _, _ = address
    socket = sockets.socket(family, kind, protocol)
    socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, _RECEIVE_BYTES)
    return socket


def _messages(frame: str) -> list[str]:
    """The messages of a SockJS frame."""
    if frame in {"o", "h"}:
        return []
    if frame.startswith("c"):
        raise ClosedError(json.loads(frame[1:])[0])
    assert frame.startswith("a"), frame
    return json.loads(frame[1:])
