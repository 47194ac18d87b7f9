"""The gateway's WebSockets, over real sockets, in front of a real gRPC server."""

from __future__ import annotations

import asyncio
import socket as sockets

import pytest
from aiohttp import ClientSession, WSMsgType, WSServerHandshakeError

from tests.support.gateways import gateway_of

PATH = "/ws/marketdata?symbol="


async def test_a_client_is_told_at_once_and_on_each_update(source, client):
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


async def test_an_unknown_symbol_is_told_from_its_first_trade_on(source, client):
    async with client.ws_connect(f"{PATH}NEW") as socket:
        source.trade("AAPL", 1.0, 1)
        source.trade("NEW", 2.0, 3)
        assert (await socket.receive_json())["symbol"] == "NEW"


async def test_clients_are_told_of_their_own_symbol_only(source, client):
    async with (
        client.ws_connect(f"{PATH}AAPL") as apple,
        client.ws_connect(f"{PATH}MSFT") as microsoft,
    ):
        await apple.receive_json()
        source.trade("MSFT", 2.0, 3)
        source.trade("AAPL", 2.0, 3)
        assert (await apple.receive_json())["symbol"] == "AAPL"
        assert (await microsoft.receive_json())["symbol"] == "MSFT"


async def test_every_client_of_a_symbol_is_told(source, client):
    async with (
        client.ws_connect(f"{PATH}AAPL") as first,
        client.ws_connect(f"{PATH}AAPL") as second,
    ):
        await asyncio.gather(first.receive_json(), second.receive_json())
        await first.close()
        source.trade("AAPL", 2.0, 3)
        assert (await second.receive_json())["volume"] == 403


async def test_a_client_that_does_not_read_skips_states_but_not_the_last(source, client):
    reader, writer = await _raw_socket(client, "AAPL", receive_bytes=4_096)
    writer.transport.pause_reading()
    async with client.ws_connect(f"{PATH}AAPL") as brisk:
        volume = (await brisk.receive_json())["volume"]
        while await _conflated(client) == 0:
            for _ in range(1_000):
                source.trade("AAPL", 2.0, 1)
                volume += 1
            while (await brisk.receive_json())["volume"] < volume:
                pass
    writer.transport.resume_reading()
    received = b""
    while b'"volume":%d,' % volume not in received:
        received = received[-100:] + await reader.read(1 << 16)
    writer.close()


async def test_messages_of_clients_are_read_and_left_at_that(source, client):
    async with client.ws_connect(f"{PATH}AAPL") as socket:
        await socket.receive_json()
        await socket.send_str("\x00 anything")
        await socket.send_bytes(bytes(range(256)))
        await socket.ping(b"still there?")
        source.trade("AAPL", 2.0, 1)
        assert (await socket.receive_json())["volume"] == 401


async def test_a_client_that_says_too_much_is_closed(source, client):
    async with client.ws_connect(f"{PATH}AAPL") as socket:
        await socket.receive_json()
        await socket.send_str("x" * 5_000)
        assert (await socket.receive()).type is WSMsgType.CLOSE
        assert socket.close_code == 1009
    assert (await client.answer("/health"))[0] == 200


@pytest.mark.parametrize("query", ["", "?symbol=", "?symbol=%00", "?symbol=" + "A" * 1_000])
async def test_a_bad_symbol_is_400(client, query):
    with pytest.raises(WSServerHandshakeError) as error:
        await client.ws_connect(f"/ws/marketdata{query}")
    assert error.value.status == 400


async def test_a_request_that_is_no_upgrade_is_told_so(client):
    async with client.get(f"{PATH}AAPL") as response:
        assert response.status == 426
        assert response.headers["Upgrade"] == "websocket"
        assert (await response.json())["error"] == "upgrade_required"


async def test_sockets_are_bounded(source):
    async with (
        gateway_of(source.address, max_sockets=1) as client,
        client.ws_connect(f"{PATH}AAPL") as socket,
    ):
        await socket.receive_json()
        with pytest.raises(WSServerHandshakeError) as error:
            await client.ws_connect(f"{PATH}AAPL")
        assert error.value.status == 503
        metrics = await (await client.get("/metrics")).text()
        assert 'mdtool_sockets_refused_total{path="/ws/marketdata"} 1.0' in metrics


async def test_clients_are_told_that_a_stopping_gateway_goes_away(source):
    async with ClientSession() as session:
        async with gateway_of(source.address) as client:
            socket = await session.ws_connect(f"http://{client.host}:{client.port}{PATH}AAPL")
            await socket.receive_json()
            closed = asyncio.create_task(socket.receive())
        message = await closed
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)


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
