"""A client whose messages take long waits with its next ones, and no other client does."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from aiohttp import WSMessage, WSMsgType

from mdtool.services import client as clients
from mdtool.services.client import Admission
from mdtool.services.gateway.websockets import WebSocket
from mdtool.services.limits import Limits
from mdtool.wire.graphql import SUBPROTOCOL
from mdtool.wire.stomp import encode
from tests.reference.market_source import MarketSource
from tests.support.gateways import connected, gateway_of
from tests.support.waiting import bounded

ONE = {"X-Forwarded-For": "198.51.100.1"}
OTHER = {"X-Forwarded-For": "198.51.100.2"}
QUERY = {"query": "{ symbols }"}
INIT = '{"type":"connection_init"}'
CONNECT = encode("CONNECT", {"accept-version": "1.2"}).decode()


class ReadClock:
    """A clock that goes on whenever it is read, so that each message costs as much."""

    def __init__(self, step_ns: int) -> None:
        self._now_ns = 0
        self._step_ns = step_ns

    def monotonic_ns(self) -> int:
        self._now_ns += self._step_ns
        return self._now_ns


@pytest.fixture
async def client(monkeypatch):
    """A gateway with no time left for hours for a client that has sent anything."""
    monkeypatch.setattr(clients, "_TIME_BURST_US", 1)
    monkeypatch.setattr(clients, "time", ReadClock(10**9))
    async with MarketSource().serving() as source:
        source.trade("AAPL", 187.25, 1)
        settings = {"proxies": 1, "client_time_percent": 0.01}
        async with gateway_of(source.address, **settings) as client:
            await connected(client)
            yield client


async def over_graphql(client, headers) -> None:
    async with client.ws_connect("/graphql", protocols=[SUBPROTOCOL], headers=headers) as socket:
        await socket.send_str(INIT)
        await socket.receive_json()


async def over_http(client, headers) -> None:
    async with client.post("/graphql", json=QUERY, headers=headers) as response:
        assert response.status == 200


async def over_stomp(client, headers) -> None:
    async with client.ws_connect("/ws/websocket", headers=headers) as socket:
        await socket.send_str(CONNECT)
        assert (await socket.receive_str()).startswith("CONNECTED")


async def over_stream(client, headers) -> None:
    async with client.ws_connect("/stream", headers=headers) as socket:
        await socket.send_str('{"op":"ping"}')
        assert await socket.receive_json() == {"op": "pong"}


async def over_sockjs(client, headers) -> None:
    path = f"/ws/000/of-{headers['X-Forwarded-For']}"
    async with client.post(f"{path}/xhr", headers=headers) as response:
        assert await response.text() == "o\n"
    async with client.post(f"{path}/xhr_send", data=json.dumps([CONNECT]), headers=headers) as sent:
        assert sent.status == 204


@pytest.mark.parametrize("speak", [over_graphql, over_http, over_stomp, over_stream, over_sockjs])
async def test_a_client_that_sent_too_much_waits_whatever_its_protocol(client, speak):
    await over_http(client, ONE)
    waiting = asyncio.create_task(speak(client, ONE))
    async with bounded():
        while not (await client.answer("/health"))[1]["waits"]:
            pass
    await speak(client, OTHER)
    assert (await client.answer("/api/v1/marketdata/AAPL"))[0] == 200
    assert not waiting.done()
    assert "mdtool_client_waits_total 1.0" in await (await client.get("/metrics")).text()
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting


async def test_a_client_that_waited_gets_its_turn(monkeypatch):
    monkeypatch.setattr(clients, "_TIME_BURST_US", 1)
    monkeypatch.setattr(clients, "_LEAST_TURN_WAIT_S", 0.01)
    monkeypatch.setattr(clients, "time", ReadClock(10**6))
    async with (
        MarketSource().serving() as source,
        gateway_of(source.address, client_time_percent=5) as client,
    ):
        for waits in range(3):
            await over_http(client, {})
            assert (await client.answer("/health"))[1]["waits"] == waits


async def test_other_tasks_run_between_two_messages_of_a_client():
    class Full:
        async def receive(self) -> WSMessage:
            return WSMessage(WSMsgType.TEXT, "and", None)

    client = Admission(Limits()).client("")
    messages = WebSocket(client, Full(), None, None)
    others = asyncio.Event()
    asyncio.get_running_loop().call_soon(others.set)
    await anext(messages)
    assert others.is_set()
