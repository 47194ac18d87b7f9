"""Clients that disappear silently, whatever their protocol: they are noticed and forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

import pytest
from aiohttp import WSMsgType

from mdtool.services.gateway import websockets
from mdtool.wire.stomp import encode
from tests.reference.market_source import MarketSource
from tests.support.aggregators import aggregator, message, tick
from tests.support.gateways import connected, gateway_of
from tests.support.stomp_peers import DeafPeer, counted
from tests.support.waiting import bounded

PING = b"\x89\x00"
STOMP = (
    encode("CONNECT", {"accept-version": "1.2"}).decode(),
    encode("SUBSCRIBE", {"id": "0", "destination": "/topic/bars/AAPL/1s"}).decode(),
)
BARS = 'subscription { bars(symbol: "AAPL", interval: "1s") { close } }'
GRAPHQL = (
    {"type": "connection_init"},
    {"id": "0", "type": "subscribe", "payload": {"query": BARS}},
)
STREAM = {"op": "subscribe", "id": 0, "channel": "bars", "symbols": ["AAPL"], "interval": "1s"}


@pytest.mark.parametrize(
    ("path", "tally", "said", "follows_bars"),
    [
        ("/ws/marketdata?symbol=AAPL", "/ws/marketdata", (), False),
        ("/ws", "/ws quotes", (), False),
        ("/ws/websocket", "/ws/websocket", STOMP, True),
        ("/ws/000/gone/websocket", "/ws", [json.dumps([text]) for text in STOMP], True),
        ("/graphql", "/graphql", [json.dumps(content) for content in GRAPHQL], True),
        ("/stream", "/stream", [json.dumps(STREAM)], True),
    ],
    ids=["aggregates", "quotes", "stomp", "sockjs", "graphql", "stream"],
)
async def test_a_client_that_does_not_answer_pings_is_forgotten_everywhere(
    monkeypatch, caplog, path, tally, said, follows_bars
):
    async with aggregator() as running, gateway_of(running.address) as client:
        await running.send(message(0, [tick(100)], ["AAPL"]))
        await connected(client)
        readers = len(running.subscribers)
        opened = await counted(client, "mdtool_sockets_opened_total", tally)
        monkeypatch.setattr(websockets, "HEARTBEAT_S", 1.0)
        protocol = "graphql-transport-ws" if path == "/graphql" else ""
        with contextlib.closing(DeafPeer(client, path, protocol)) as gone:
            await gone.connect()
            await gone.say(*said)
            assert await counted(client, "mdtool_sockets_opened_total", tally) == opened + 1
            async with bounded():
                while follows_bars and len(running.subscribers) == readers:
                    await gone.pong()  # stays until it follows them
                    await client.answer("/health")
                if follows_bars:
                    await running.subscribers.left.wait()
                while await counted(client, "mdtool_sockets", tally):
                    pass
            assert len(running.subscribers) == readers
            sent = await counted(client, "mdtool_socket_messages_total", tally)
            await running.send(message(1, [tick(101, 2)], ["AAPL"]))
            async with bounded():
                while (await client.answer("/api/v1/marketdata/AAPL"))[1]["volume"] != "3":
                    pass
            assert await counted(client, "mdtool_socket_messages_total", tally) == sent
            assert PING in await gone.hear()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_client_that_answers_pings_stays_connected(monkeypatch):
    monkeypatch.setattr(websockets, "HEARTBEAT_S", 4.0)
    async with aggregator() as running, gateway_of(running.address) as client:
        await running.send(message(0, [tick(100)], ["AAPL"]))
        async with client.ws_connect("/ws/marketdata?symbol=AAPL", autoping=False) as socket:
            await socket.receive_json()
            for _ in range(2):
                while (ping := await socket.receive()).type is not WSMsgType.PING:
                    pass  # a state may come twice
                await socket.pong(ping.data)
            await running.send(message(1, [tick(101, 2)], ["AAPL"]))
            assert (await socket.receive_json())["volume"] == 3


@pytest.mark.parametrize(
    "request_line",
    [
        "GET /ws/marketdata?symbol=AAPL",
        "GET /ws",
        "GET /ws/websocket",
        "GET /ws/000/gone/websocket",
        "GET /graphql",
        "GET /stream",
        "GET /ws/000/gone/eventsource",
        "POST /ws/000/gone/xhr_streaming",
        "POST /ws/000/gone/xhr_send",
        "POST /graphql",
        "GET /api/v1/marketdata/AAPL",
    ],
)
async def test_a_client_that_disconnects_at_once_causes_no_errors(caplog, request_line):
    upgrade_headers = (
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Protocol: graphql-transport-ws, v12.stomp\r\n"
    )
    headers = upgrade_headers if request_line.startswith("GET") else "Content-Length: 9\r\n"
    ping = b"\x89\x80\0\0\0\0"
    async with MarketSource().serving() as source, gateway_of(source.address) as client:
        for number in range(40):
            _, writer = await asyncio.open_connection(client.host, client.port)
            writer.write(f"{request_line} HTTP/1.1\r\nHost: gateway\r\n{headers}\r\n".encode())
            writer.write(ping * (number % 4))
            if number % 3 == 0:
                await client.answer("/health")
            writer.transport.abort()
        async with bounded():
            while (await client.answer("/health"))[1]["sockets"]:
                pass
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []
