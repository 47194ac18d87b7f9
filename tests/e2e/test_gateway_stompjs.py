"""`@stomp/stompjs` under Node, over each transport of `sockjs-client` and over a WebSocket."""

from __future__ import annotations

import contextlib
import json

import pytest

from mdtool.services.gateway.protocols import sockjs
from tests.support.gateways import gateway_of
from tests.support.node_clients import node_script
from tests.support.stomp_peers import PATH, StompPeer
from tests.support.waiting import WITHIN_S

TRANSPORTS = [
    "websocket",
    "sockjs:websocket",
    "sockjs:xhr-streaming",
    "sockjs:xhr-polling",
    "sockjs:eventsource",
]
TOPIC = "/topic/market-data/AAPL"


@pytest.fixture(autouse=True)
def _patient_sessions(monkeypatch):
    """Keep sessions whose next request is long in coming, as on a busy machine."""
    monkeypatch.setattr(sockjs, "_ABSENCE_S", WITHIN_S)


@contextlib.asynccontextmanager
async def stompjs(client, transport: str, destination: str, version: str = "1.2"):
    """A client that is connected and follows a destination."""
    url = f"http://{client.host}:{client.port}"
    async with node_script("stomp_client.cjs", url, transport, version, destination) as script:
        assert await script.event() == {"event": "connected", "version": version}
        yield script


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_updates_receipts_and_a_clean_end(source, client, transport):
    async with stompjs(client, transport, TOPIC) as script:
        told = await script.event()
        assert (told["destination"], told["body"]["volume"]) == (TOPIC, "400")
        for volume in range(401, 405):
            source.trade("AAPL", 187.5, 1)
            assert (await script.event())["body"]["volume"] == str(volume)
        await script.do("unsubscribe")
        assert await script.event() == {"event": "unsubscribed"}
        source.trade("AAPL", 187.5, 1)
        await script.do("disconnect")
        # After the receipt of its DISCONNECT, stompjs closes by itself.
        assert await script.event() == {"event": "disconnected"}
        assert (await script.event())["event"] == "closed"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_older_versions(source, client, version):
    async with stompjs(client, "websocket", TOPIC, version) as script:
        assert (await script.event())["body"]["volume"] == "400"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_error_is_told_before_the_connection_is_closed(client, transport):
    async with stompjs(client, transport, "/topic/nothing") as script:
        told = await script.event()
        assert told["event"] == "error"
        assert "'/topic/nothing': unknown destination" in told["message"]
        told = await script.event()
        assert told["event"] == "closed"
        assert told["code"] == 1002


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_signals_travel_between_transports(client, transport):
    room = "/topic/signaling/desk"
    async with (
        stompjs(client, "websocket", room) as other,
        stompjs(client, transport, room) as script,
    ):
        await other.do("send", to="/app/signal/desk", body='{"type":"JOIN","senderId":"other"}')
        join = {"type": "JOIN", "senderId": "other"}
        assert (await other.event())["body"] == join
        signal = {"type": "OFFER", "senderId": "ü", "targetId": "other", "sdp": "v=0\r\n\x00\u2028"}
        await script.do("send", to="/app/signal/desk", body=json.dumps(signal))
        assert (await other.event())["body"] == signal


async def test_transactions_are_held_back_or_dropped(client):
    room = "/topic/signaling/desk"
    async with stompjs(client, "websocket", room) as script:
        bodies = [json.dumps({"type": kind, "senderId": "a"}) for kind in ("JOIN", "LEAVE")]
        await script.do("transaction", to="/app/signal/desk", bodies=bodies, ends="abort")
        await script.do("transaction", to="/app/signal/desk", bodies=bodies, ends="commit")
        told = [(await script.event())["body"]["type"] for _ in bodies]
        assert told == ["JOIN", "LEAVE"]


async def test_heart_beats_of_both_sides_are_kept(source):
    async with (
        gateway_of(source.address, stomp_heart_beat_ms=3_000) as client,
        stompjs(client, "websocket", "/topic/market-data/NEW") as script,
        client.ws_connect(PATH) as socket,
    ):
        await StompPeer(socket).connect(**{"heart-beat": "0,3000"})
        for _ in range(3):  # stompjs gives up a server that is silent for 6 s
            assert await socket.receive_str() == "\n"
        source.trade("NEW", 1.0, 1)
        assert (await script.event())["body"]["symbol"] == "NEW"
