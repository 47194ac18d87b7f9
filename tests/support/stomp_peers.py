"""A STOMP client that sends exactly what a test has it send."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket as sockets

from aiohttp import ClientWebSocketResponse, WSMsgType

from mdtool.wire.stomp import Frame, StompDecoder, Version, encode
from tests.support.gateways import Client
from tests.support.waiting import bounded

PATH = "/ws/websocket"


class StompPeer:
    """One connection."""

    def __init__(self, socket: ClientWebSocketResponse, version: str = "1.2") -> None:
        self.socket = socket
        self._version = Version(version)
        self._decoder = StompDecoder()

    async def send(self, command: str, headers=None, body: bytes = b"") -> None:
        await self.send_bytes(encode(command, headers, body, self._version))

    async def send_bytes(self, data: bytes) -> None:
        await self.socket.send_bytes(data)

    async def receive(self) -> Frame:
        """The next frame."""
        while (frame := self._decoder.next_frame()) is None:
            message = await self.socket.receive()
            assert message.type is WSMsgType.TEXT, message
            self._decoder.feed(message.data.encode())
        if frame.command == "CONNECTED":
            self._decoder.version = self._version
        return frame

    async def ask(self, command: str, headers=None, body: bytes = b"") -> Frame:
        """The answer to a frame."""
        await self.send(command, headers, body)
        return await self.receive()

    async def connect(self, **headers: str) -> Frame:
        accepts = {"accept-version": self._version, "host": "gateway"}
        frame = await self.ask("CONNECT", accepts | headers)
        assert frame.command == "CONNECTED", frame
        return frame

    async def subscribe(self, destination: str, name: str = "0") -> None:
        """Subscribe to a destination; return when that is confirmed and nothing else came."""
        headers = {"id": name, "destination": destination, "receipt": f"sub {name}"}
        frame = await self.ask("SUBSCRIBE", headers)
        assert frame == Frame("RECEIPT", {"receipt-id": f"sub {name}"}), frame

    async def follow(self, destination: str, name: str = "0") -> None:
        """Subscribe to a destination, without waiting."""
        await self.send("SUBSCRIBE", {"id": name, "destination": destination})

    async def message(self) -> tuple[str, object]:
        """The destination and content of the next message."""
        frame = await self.receive()
        assert frame.command == "MESSAGE", frame
        assert frame.headers["content-type"] == "application/json"
        assert frame.headers["content-length"] == str(len(frame.body))
        return frame.headers["destination"], json.loads(frame.body)

    async def error(self, code: int = 1002) -> str:
        """The text of the ERROR that comes next, before the connection is closed."""
        frame = await self.receive()
        assert frame.command == "ERROR", frame
        assert await self.closed() == code
        return frame.headers["message"]

    async def closed(self) -> int:
        """The code of the close that comes next."""
        message = await self.socket.receive()
        assert message.type is WSMsgType.CLOSE, message
        return message.data


@contextlib.asynccontextmanager
async def stomp(client: Client, version: str = "1.2", **headers: str):
    """A client that is connected."""
    async with client.ws_connect(PATH) as socket:
        peer = StompPeer(socket, version)
        await peer.connect(**headers)
        yield peer


class DeafPeer:
    """A WebSocket client that reads only on request."""

    def __init__(self, client: Client, path: str, protocol: str = "") -> None:
        self._client = client
        self._path = path
        self._headers = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
        self._socket = sockets.socket()
        # By default the system buffers megabytes for a client that does not read.
        self._socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
        self._socket.setblocking(False)

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, (self._client.host, self._client.port))
        handshake = (
            f"GET {self._path} HTTP/1.1\r\nHost: {self._client.host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{self._headers}\r\n"
        )
        await loop.sock_sendall(self._socket, handshake.encode())
        async with bounded():
            received = b""
            while not received.endswith(b"\r\n\r\n"):
                byte = await loop.sock_recv(self._socket, 1)
                assert byte, "the connection was closed before it was upgraded"
                received += byte

    async def say(self, *payloads: str | bytes) -> None:
        """Send messages, text or binary, of fewer than 64 KB."""
        loop = asyncio.get_running_loop()
        for payload in payloads:
            data, opcode = (payload.encode(), 1) if isinstance(payload, str) else (payload, 2)
            short, length = len(data), b""
            if len(data) > 125:
                short, length = 126, len(data).to_bytes(2, "big")
            # Masked with zeros, which changes nothing.
            header = bytes((0x80 | opcode, 0x80 | short)) + length + bytes(4)
            await loop.sock_sendall(self._socket, header + data)

    async def pong(self) -> None:
        """Answer pings, whether or not one has come."""
        await asyncio.get_running_loop().sock_sendall(self._socket, b"\x8a\x80" + bytes(4))

    async def hear(self) -> bytes:
        """Everything until the connection ends."""
        received = bytearray()
        while data := await asyncio.get_running_loop().sock_recv(self._socket, 1 << 16):
            received += data
        return bytes(received)

    def close(self) -> None:
        self._socket.close()


async def counted(client: Client, name: str, path: str) -> float:
    """What the gateway has counted of a WebSocket path."""
    text = await (await client.get("/metrics")).text()
    prefix = f'{name}{{path="{path}"}} '
    return next(
        float(line.removeprefix(prefix)) for line in text.splitlines() if line.startswith(prefix)
    )
