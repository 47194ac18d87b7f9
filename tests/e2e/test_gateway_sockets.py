"""The plain WebSocket of aggregates: the shape of its messages, and what its clients send."""

from __future__ import annotations

import asyncio
import re
import socket as sockets
import time

import pytest
from aiohttp import WSMsgType, WSServerHandshakeError

from tests.support.gateways import connected, gateway_of
from tests.support.waiting import bounded

PATH = "/ws/marketdata?symbol="


async def test_the_aggregate_is_sent_at_once_and_on_each_update(source, client):
    async with client.ws_connect(f"{PATH}aapl") as socket:
        first = await socket.receive_json()
        assert first == {
            "symbol": "AAPL",
            "open": 187.25,
            "high": 187.25,
            "low": 187.25,
            "close": 187.25,
            "volume": 400,
            "timestamp": 1735201234567,
        }
        for volume in range(401, 411):
            source.trade("AAPL", 187.5, 1)
            assert (await socket.receive_json())["volume"] == volume


@pytest.mark.parametrize("query", ["symbol=AAPL,zzz", "symbols=zzz,%20AAPL"])
async def test_several_symbols_may_be_followed(source, client, query):
    source.trade("ZZZ", 2.0, 3)
    async with client.ws_connect(f"/ws/marketdata?{query}") as socket, bounded():
        symbols = set()
        while symbols != {"AAPL", "ZZZ"}:
            symbols.add((await socket.receive_json())["symbol"])


async def test_an_unknown_symbol_is_answered_and_followed(source, client):
    async with client.ws_connect(f"{PATH}NOVEL") as socket, bounded():
        assert await socket.receive_json() == {
            "error": "not_found",
            "symbol": "NOVEL",
            "message": "no data of NOVEL yet; the first is sent when it comes",
        }
        source.trade("NOVEL", 2.0, 3)
        assert (await socket.receive_json())["volume"] == 3


async def test_a_client_that_does_not_read_skips_states_but_not_the_last(source):
    async with gateway_of(source.address, slow_client_s=3_600) as client:
        await connected(client)
        reader, writer = await _raw_socket(client, "AAPL", receive_bytes=4_096)
        writer.transport.pause_reading()
        async with client.ws_connect(f"{PATH}AAPL") as brisk:
            volume = (await brisk.receive_json())["volume"]
            while await _conflated(client) == 0:
                for _ in range(1_000):
                    source.trade("AAPL", 2.0, 1)
                    volume += 1
                async with bounded():
                    while (await brisk.receive_json())["volume"] < volume:
                        pass
        writer.transport.resume_reading()
        received = b""
        while b'"volume":%d,' % volume not in received:
            received = received[-100:] + (data := await reader.read(1 << 16))
            assert data
        writer.close()


async def test_messages_of_clients_are_ignored(source, client):
    async with client.ws_connect(f"{PATH}AAPL") as socket:
        await socket.receive_json()
        await socket.send_str("\x00 anything")
        await socket.send_bytes(bytes(range(256)))
        await socket.ping(b"still there?")
        source.trade("AAPL", 2.0, 1)
        assert (await socket.receive_json())["volume"] == 401


async def test_a_client_that_sends_too_much_is_closed(source, client):
    async with client.ws_connect(f"{PATH}AAPL") as socket:
        await socket.receive_json()
        await socket.send_str("x" * 40_000)
        assert (await socket.receive()).type is WSMsgType.CLOSE
        assert socket.close_code == 1009
    assert (await client.answer("/health"))[0] == 200


@pytest.mark.parametrize("query", ["", "?symbol=", "?symbol=%00", "?symbol=" + "A" * 1_000])
async def test_a_bad_symbol_is_400(client, query):
    with pytest.raises(WSServerHandshakeError) as error:
        await client.ws_connect(f"/ws/marketdata{query}")
    assert error.value.status == 400


async def test_a_request_without_an_upgrade_is_426(client):
    async with client.get(f"{PATH}AAPL") as response:
        assert response.status == 426
        assert response.headers["Upgrade"] == "websocket"
        assert (await response.json())["error"] == "upgrade_required"


async def _raw_socket(client, symbol: str, receive_bytes: int):
    """Open a WebSocket without a library that would read ahead."""
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, receive_bytes)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, (client.host, client.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=receive_bytes)
    writer.write(
        f"GET {PATH}{symbol} HTTP/1.1\r\nHost: {client.host}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def _conflated(client) -> float:
    text = await (await client.get("/metrics")).text()
    prefix = 'mdtool_socket_conflated_total{path="/ws/marketdata"} '
    return next(
        float(line.removeprefix(prefix)) for line in text.splitlines() if line.startswith(prefix)
    )


@pytest.mark.parametrize(("ahead_s", "status"), [(3_600, "ok"), (-3_600, "degraded")])
async def test_clocks_an_hour_apart_change_ages_and_nothing_else(source, client, ahead_s, status):
    async with bounded(), client.ws_connect(f"{PATH}AAPL") as socket:
        await socket.receive_json()
        source.sessions["AAPL"].ingest_timestamp = time.time_ns() + ahead_s * 10**9
        source.trade("AAPL", 187.5, 1)
        assert (await socket.receive_json())["close"] == 187.5
        async with client.get("/metrics") as response:
            text = await response.text()
        (age_s,) = re.findall(r"^mdtool_update_age_recent_seconds (\S+)$", text, re.MULTILINE)
        assert (float(age_s) == 0.0) == (ahead_s > 0)
        assert (await client.answer("/health"))[1]["status"] == status
        assert (await client.answer("/readyz"))[0] == 200
