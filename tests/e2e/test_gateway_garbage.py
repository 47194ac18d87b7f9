"""Whatever one client sends, other clients receive everything, and the log is quiet."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random

import pytest

from mdtool.wire.stomp import encode
from mdtool.wire.websocket import CloseCode
from tests.reference.market_source import MarketSource
from tests.support.gateways import connected, gateway_of
from tests.support.stomp_peers import stomp

PATHS = (
    "/ws",
    "/ws/marketdata?symbol=AAPL",
    "/ws/websocket",
    "/ws/000/garbage/websocket",
    "/graphql",
    "/stream",
)
REQUESTS = (
    "GET /api/v1/marketdata/%00",
    "GET /api/v1/bars/AAPL?limit=-5&before=x",
    "GET /v1/quotes?symbol=%F0%9F%98%80",
    "GET /graphql?query=%7B",
    "GET /ws/000/garbage/eventsource",
    "POST /graphql",
    "POST /ws/000/garbage/xhr",
    "POST /ws/000/garbage/xhr_streaming",
    "POST /ws/000/garbage/xhr_send",
    "BREW /",
)
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Protocol: graphql-transport-ws, v12.stomp\r\n"
)
CONNECT = encode("CONNECT", {"accept-version": "1.0,1.1,1.2"})
DESTINATIONS = (
    *("/topic/market-data/*", "/topic/bars/*/1s", "/topic/bars/x", "/topic/quotes/\u20ac"),
    *("/topic/signaling/a", "/app/signal", "/app/signal/a b", "/nowhere", ""),
)
COMMANDS = ("SUBSCRIBE", "UNSUBSCRIBE", "SEND", "BEGIN", "COMMIT", "ACK", "HELLO", "DISCONNECT")
CONTENTS = (
    b'{"type":"connection_init"}',
    b'{"type":"subscribe","id":"\\ud800","payload":{"query":"{symbols}"}}',
    b'{"type":"subscribe","id":"1","payload":{"query":"subscription{quote(symbol:1){ts}}"}}',
    b'{"type":"OFFER","senderId":"a","sdp":' + b"9" * 5_000 + b"}",
    b'["\\ud800"]',
    b'{"op":"subscribe","id":"\\ud800","channel":"quotes","symbols":["*"]}',
    b'{"op":"subscribe","id":1,"channel":{},"symbols":[[]]}',
    b'{"op":"unsubscribe","id":1e999}',
    b"[" * 9_000,
    b"\n" * 9_000,
    b"SEND\n" + b"a:b\n" * 5_000,
    b"SEND\ncontent-length:-1\n\n\0",
    b"SUBSCRIBE\nid\\x:\\q\n\n\0",
    b"x" * 70_000,
    b"",
)


class Vandal:
    """Sends what is not valid, or not there; the same for the same seed."""

    def __init__(self, client, seed: int) -> None:
        self._client = client
        self._random = random.Random(seed)

    async def visit(self) -> None:
        """Connect, send something, and disconnect sooner or later."""
        chance = self._random
        reader, writer = await asyncio.open_connection(self._client.host, self._client.port)
        with contextlib.suppress(ConnectionError):
            if chance.random() < 0.3:
                body = self._content()
                head = f"{chance.choice(REQUESTS)} HTTP/1.1\r\nHost: gateway\r\n"
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            else:
                head = f"GET {chance.choice(PATHS)} HTTP/1.1\r\nHost: gateway\r\n"
                writer.write(f"{head}{UPGRADE}\r\n".encode())
                for _ in range(chance.randrange(1, 5)):
                    writer.write(self._frame(self._content()))
            await writer.drain()
            if chance.random() < 0.5:
                await reader.read(1_000)
        writer.transport.abort()

    def _content(self) -> bytes:
        chance = self._random
        kind = chance.randrange(4)
        if kind == 0:
            return chance.randbytes(chance.randrange(300))
        if kind == 1:
            return chance.choice(CONTENTS)
        names = ("id", "receipt", "transaction", "ack", "content-length")
        headers = {name: chance.choice(("1", "x", "auto")) for name in names[: chance.randrange(6)]}
        headers["destination"] = chance.choice(DESTINATIONS)
        frame = CONNECT + encode(chance.choice(COMMANDS), headers)
        return frame if kind == 2 else json.dumps([frame.decode()]).encode()

    def _frame(self, data: bytes) -> bytes:
        """Return a WebSocket frame, seldom a valid one."""
        chance = self._random
        opcode = chance.choice((1, 1, 1, 2, 2, 2, 0, 3, 8, 9, 10))
        length = 127 if chance.random() < 0.95 else chance.randrange(256)
        first = opcode | (0x80 if chance.random() < 0.95 else chance.randrange(256))
        return bytes((first, 0x80 | length)) + len(data).to_bytes(8, "big") + bytes(4) + data


@pytest.mark.parametrize("seed", range(3))
async def test_garbage_disturbs_nobody(caplog, seed):
    async with MarketSource().serving() as source:
        source.trade("AAPL", 187.25, 1)
        async with gateway_of(source.address) as client, stomp(client) as peer:
            await connected(client)
            await peer.follow("/topic/market-data/AAPL")
            assert (await peer.message())[1]["volume"] == "1"
            aggregates = await client.ws_connect("/ws/marketdata?symbol=AAPL")
            quotes = await client.ws_connect("/ws")
            assert (await aggregates.receive_json())["volume"] == 1
            assert (await quotes.receive_json())["last"] == 187.25
            vandal = Vandal(client, seed)
            for volume in range(2, 300):
                await vandal.visit()
                source.trade("AAPL", volume, 1)
                assert (await peer.message())[1]["volume"] == str(volume)
                assert (await aggregates.receive_json())["volume"] == volume
                assert (await quotes.receive_json())["last"] == volume
                assert (await client.answer("/api/v1/marketdata/AAPL"))[1]["volume"] == str(volume)
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []


@pytest.mark.parametrize(
    "path",
    [
        "/ws/marketdata?symbol=AAPL",
        "/ws",
        "/ws/websocket",
        "/ws/000/a/websocket",
        "/graphql",
        "/stream",
    ],
)
@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x83\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR),  # an unknown opcode
        (b"\xc1\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR),  # compressed, which was not agreed on
        (b"\x80\x80\0\0\0\0", CloseCode.PROTOCOL_ERROR),  # the rest of nothing
        (b"\x81\x82\0\0\0\0\xff\xfe", CloseCode.NO_TEXT),
        (b"\x82\xff" + (2**40).to_bytes(8, "big") + bytes(4), CloseCode.TOO_BIG),
    ],
)
async def test_invalid_frames_are_closed_with_their_code(path, frame, code):
    async with MarketSource().serving() as source, gateway_of(source.address) as client:
        reader, writer = await asyncio.open_connection(client.host, client.port)
        with contextlib.closing(writer):
            head = f"GET {path} HTTP/1.1\r\nHost: gateway\r\n{UPGRADE}\r\n"
            writer.write(head.encode() + frame)
            await reader.readuntil(b"\r\n\r\n")
            reason = b"a message takes more than" if code == CloseCode.TOO_BIG else b""
            assert code.to_bytes(2, "big") + reason in await reader.read(-1)
