"""`stomp.py` as a client: over WebSocket, and over TCP with a relay in between, in each version."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue

import pytest
import stomp
from aiohttp import ClientSession
from stomp.adapter.ws import WSStompConnection
from stomp.exception import NotConnectedException
from websocket import WebSocketConnectionClosedException

from tests.reference.market_source import MarketSource
from tests.support.gateways import gateway_of
from tests.support.stomp_peers import PATH, StompPeer

TOPIC = "/topic/market-data/AAPL"
VERSIONS = {
    "1.0": stomp.StompConnection10,
    "1.1": stomp.StompConnection11,
    "1.2": stomp.StompConnection12,
}
GONE = (OSError, NotConnectedException, WebSocketConnectionClosedException)
"""What says who sends something to a server that has closed the connection."""


class Listener(stomp.ConnectionListener):
    """Keeps what the client's threads tell of."""

    def __init__(self) -> None:
        self.told: queue.Queue[tuple[str, object]] = queue.Queue()

    def on_connected(self, frame):
        self.told.put(("connected", frame.headers.get("version")))

    def on_message(self, frame):
        self.told.put(("message", json.loads(frame.body)))

    def on_receipt(self, frame):
        self.told.put(("receipt", frame.headers["receipt-id"]))

    def on_error(self, frame):
        self.told.put(("error", frame.headers["message"]))

    def on_disconnected(self):
        self.told.put(("disconnected", None))

    async def next(self) -> tuple[str, object]:
        return await asyncio.to_thread(self.told.get, timeout=60)


@contextlib.asynccontextmanager
async def relay(client):
    """A TCP port from which bytes go to a WebSocket of the gateway as they come, and back."""

    async def serve(reader, writer):
        async with ClientSession() as session:
            url = f"http://{client.host}:{client.port}{PATH}"
            async with session.ws_connect(url) as socket:

                async def forward():
                    while data := await reader.read(7):
                        await socket.send_bytes(data)
                    await socket.close()

                forwarding = asyncio.create_task(forward())
                async for message in socket:
                    writer.write(message.data.encode())
                forwarding.cancel()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def connection(made: stomp.connect.BaseConnection):
    """A client that is connected, and what it tells of."""
    listener = Listener()
    made.set_listener("test", listener)
    await asyncio.to_thread(made.connect, wait=True)
    socket = made.transport.socket
    try:
        yield listener
    finally:
        with contextlib.suppress(*GONE):  # the server may have closed it a moment ago
            if made.is_connected():
                await asyncio.to_thread(made.disconnect)
        await asyncio.to_thread(made.transport.stop)  # until its thread has ended
        if isinstance(made, WSStompConnection):
            socket.shutdown()  # it leaves open what the server closed


async def _use(made, listener: Listener, source: MarketSource) -> None:
    """Follow a symbol, in a transaction say something, and leave with a receipt."""
    await asyncio.to_thread(made.subscribe, TOPIC, id="1", ack="auto")
    assert (await listener.next())[1]["volume"] == "400"
    source.trade("AAPL", 187.5, 1)
    assert (await listener.next())[1]["volume"] == "401"
    await asyncio.to_thread(made.unsubscribe, id="1")
    await asyncio.to_thread(made.subscribe, "/topic/signaling/desk", id="2", ack="client")
    transaction = await asyncio.to_thread(made.begin)
    join = json.dumps({"type": "JOIN", "senderId": "stomp.py"})
    await asyncio.to_thread(made.send, "/app/signal/desk", join, transaction=transaction)
    await asyncio.to_thread(made.commit, transaction)
    assert await listener.next() == ("message", json.loads(join))
    await asyncio.to_thread(made.disconnect, receipt="bye")
    assert {await listener.next(), await listener.next()} == {
        ("receipt", "bye"),
        ("disconnected", None),
    }


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_version_over_a_stream_of_bytes(source, client, version):
    async with relay(client) as port:
        made = VERSIONS[version]([("127.0.0.1", port)])
        async with connection(made) as listener:
            assert await listener.next() == ("connected", version)
            await _use(made, listener, source)


async def test_websocket(source, client):
    made = WSStompConnection([(client.host, client.port)], ws_path=PATH)
    async with connection(made) as listener:
        assert await listener.next() == ("connected", "1.2")
        await _use(made, listener, source)


async def test_heart_beats_of_both_sides_are_kept(source):
    async with (
        gateway_of(source.address, stomp_heart_beat_ms=3_000) as client,
        relay(client) as port,
    ):
        made = stomp.StompConnection12(
            [("127.0.0.1", port)], heartbeats=(3_000, 3_000), heart_beat_receive_scale=2
        )
        async with connection(made) as listener:
            assert await listener.next() == ("connected", "1.2")
            async with client.ws_connect(PATH) as socket:
                await StompPeer(socket).connect(**{"heart-beat": "0,3000"})
                for _ in range(3):
                    assert await socket.receive_str() == "\n"
            await asyncio.to_thread(made.subscribe, TOPIC, id="1")
            assert (await listener.next())[0] == "message"


async def test_an_error_reaches_the_listener(client):
    made = WSStompConnection([(client.host, client.port)], ws_path=PATH)
    async with connection(made) as listener:
        await listener.next()
        await asyncio.to_thread(made.send, "/queue/nothing", "x")
        kind, message = await listener.next()
        assert kind == "error"
        assert "'/queue/nothing': unknown destination" in message
