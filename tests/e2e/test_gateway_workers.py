"""A gateway of several processes: one port, limits and measurements in common, shared sessions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal

import pytest
from aiohttp import ClientSession, TCPConnector, WSMsgType, WSServerHandshakeError

from mdtool.adapters.identity import api_keys
from mdtool.core.addresses import parse_address
from mdtool.core.errors import StartupError
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.server import Gateway
from mdtool.wire.stomp import Frame, StompDecoder, encode
from mdtool.wire.websocket import CloseCode
from tests.reference.market_source import MarketSource
from tests.support.feed_followers import bearer
from tests.support.gateways import Client, gateway_of
from tests.support.services import logged, running
from tests.support.stomp_peers import stomp
from tests.support.tokens import Keys
from tests.support.waiting import bounded

SOCKET = "/ws/marketdata?symbol=AAPL"
MANY = 30
"""Connections, of which each worker has some; that one has none, once in 500 million runs."""
CHILDREN = "mdtool.services.supervisor.child"


@pytest.fixture
async def source():
    async with MarketSource().serving() as source:
        source.trade("AAPL", 187.25, 400)
        yield source


@pytest.fixture
def keys(tmp_path, monkeypatch):
    made = Keys(tmp_path)
    made.configure(monkeypatch)
    return made


@contextlib.asynccontextmanager
async def workers_of(source: MarketSource, headers=None, **settings):
    """A client of a gateway of two workers, which connects anew for each request."""
    config = GatewayConfig(
        aggregator=source.address, port=0, workers=2, timeout_ms=60_000, **settings
    )
    async with running(Gateway(config)) as (addresses, _):
        connector = TCPConnector(force_close=True)
        async with ClientSession(
            f"http://{addresses['http']}", connector=connector, headers=headers
        ) as session:
            client = Client(session, *parse_address(addresses["http"]))
            async with open_sockets(client, MANY):  # each worker has the aggregator's state
                pass
            yield client


@contextlib.asynccontextmanager
async def open_sockets(client: Client, count: int):
    """Sockets that have their first message."""
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(client.ws_connect(SOCKET)) for _ in range(count)]
        for socket in sockets:
            await socket.receive_json()
        yield sockets


def process_ids(log) -> dict[str, int]:
    """The latest process of each worker."""
    found = (re.fullmatch(r"(gateway \d): started as process (\d+)", line) for line in log.lines)
    return {match[1]: int(match[2]) for match in found if match}


async def test_health_and_metrics_are_those_of_all_workers(source):
    async with workers_of(source) as client, open_sockets(client, MANY):
        async with bounded():
            while (health := (await client.answer("/health"))[1])["sockets"] != MANY:
                pass
        assert health["workers"] == 2
        for _ in range(MANY):
            await client.answer("/api/v1/marketdata/AAPL")
        async with client.get("/metrics") as response:
            lines = (await response.text()).splitlines()
        count = 'request_seconds_count{route="/api/v1/marketdata/{symbol}",status="200"}'
        assert f"mdtool_{count} {MANY}.0" in lines
        assert f'mdtool_sockets{{path="/ws/marketdata"}} {MANY}.0' in lines
        assert "mdtool_symbols 1.0" in lines
        assert "mdtool_stream_up 1.0" in lines


async def test_a_limit_counts_the_connections_to_all_workers(source):
    async with (
        workers_of(source, client_sockets=MANY) as client,
        contextlib.AsyncExitStack() as stack,
        bounded(),
    ):
        opened = 0
        while opened < MANY:  # those closed before are counted off a little later
            with contextlib.suppress(WSServerHandshakeError):
                await stack.enter_async_context(client.ws_connect(SOCKET))
                opened += 1
        refused = 0
        while refused < MANY:  # in a row
            try:
                async with client.ws_connect(SOCKET):
                    refused = 0
            except WSServerHandshakeError:
                refused += 1


async def test_a_sockjs_session_is_one_whichever_worker_gets_its_requests(source):
    async def poll(session: str) -> list[Frame]:
        async with client.post(f"{session}/xhr") as response:
            (frame,) = (await response.text()).splitlines()
        if frame == "o":
            return []
        for text in json.loads(frame.removeprefix("a")):
            decoder.feed(text.encode())
        return list(iter(decoder.next_frame, None))

    async def say(session: str, frame: bytes) -> None:
        body = json.dumps([frame.decode()])
        async with client.post(f"{session}/xhr_send", data=body) as response:
            assert response.status == 204

    follow = encode("SUBSCRIBE", {"id": "0", "destination": "/topic/market-data/AAPL"})
    async with workers_of(source) as client:
        for number in range(MANY):
            session, decoder = f"/ws/000/session{number}", StompDecoder()
            assert await poll(session) == []
            await say(session, encode("CONNECT", {"accept-version": "1.2"}))
            (frame,) = await poll(session)
            assert frame.command == "CONNECTED"
            await say(session, follow)
            (frame,) = await poll(session)
            assert json.loads(frame.body)["volume"] == "400"


async def test_a_connection_that_was_handed_over_goes_on(source):
    config = GatewayConfig(aggregator=source.address, port=0, workers=2)
    async with (
        running(Gateway(config)) as (addresses, _),
        ClientSession(f"http://{addresses['http']}", connector=TCPConnector(limit=1)) as session,
    ):
        for number in range(MANY):
            async with session.post(f"/ws/000/{number}/xhr") as response:
                assert await response.text() == "o\n"
            body = json.dumps([encode("CONNECT", {"accept-version": "1.2"}).decode()])
            headers = {"Expect": "100-continue"} if number % 2 else {}
            async with session.post(
                f"/ws/000/{number}/xhr_send", data=body, headers=headers
            ) as response:
                assert response.status == 204
            async with session.get("/ws") as response:
                assert await response.text() == "Welcome to SockJS!\n"


async def test_a_client_of_an_older_version_gets_no_chunks_wherever_it_is_served(source):
    async with workers_of(source) as client, bounded():
        for number in range(MANY):
            reader, writer = await asyncio.open_connection(client.host, client.port)
            writer.write(b"POST /ws/000/%d/xhr HTTP/1.0\r\nHost: gateway\r\n\r\n" % number)
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.0 200 ")
            assert body == b"o\n"
            writer.close()


async def test_signals_reach_the_peers_of_all_workers_in_one_order(source):
    room = "/topic/signaling/lobby"
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(workers_of(source))
        peers = [await stack.enter_async_context(stomp(client)) for _ in range(MANY)]
        for peer in peers:
            await peer.subscribe(room)
        for number, peer in enumerate(peers):
            join = json.dumps({"type": "JOIN", "senderId": f"peer{number}"})
            await peer.send("SEND", {"destination": "/app/signal/lobby"}, join.encode())
        orders = []
        for peer in peers:
            heard = [await peer.message() for _ in peers]
            assert {destination for destination, _ in heard} == {room}
            orders.append([signal["senderId"] for _, signal in heard])
        assert sorted(orders[0]) == sorted(f"peer{number}" for number in range(MANY))
        assert all(order == orders[0] for order in orders)
        for peer in peers[1:]:  # the name of another worker's client, too
            join = json.dumps({"type": "JOIN", "senderId": "peer0"})
            await peer.send("SEND", {"destination": "/app/signal/lobby"}, join.encode())
            while (frame := await peer.receive()).command == "MESSAGE":
                assert json.loads(frame.body)["type"] == "LEAVE"
            assert frame.command == "ERROR"
            assert "this client's" in frame.headers["message"]


async def test_a_room_that_is_full_ends_the_session(source):
    async with workers_of(source, signaling_listeners=1) as client, stomp(client) as first:
        await first.subscribe("/topic/signaling")
        for _ in range(MANY):
            async with stomp(client) as other:
                await other.follow("/topic/signaling")
                assert "limit of 1 listeners" in await other.error()


async def test_a_worker_that_is_killed_is_restarted_and_everyone_else_is_served_on(source):
    with logged(CHILDREN) as log:
        async with workers_of(source) as client, open_sockets(client, MANY) as sockets:
            os.kill(process_ids(log)["gateway 1"], signal.SIGKILL)
            await log.heard("gateway 1 was killed by SIGKILL")
            source.trade("AAPL", 187.5, 1)
            messages = [await socket.receive() for socket in sockets]
            volumes = [
                json.loads(message.data)["volume"]
                for message in messages
                if message.type is WSMsgType.TEXT
            ]
            assert 0 < len(volumes) < MANY
            assert set(volumes) == {401}
            await log.heard("gateway 1: running again")
            async with bounded():
                while (await client.answer("/health"))[1]["workers"] != 2:
                    pass
            async with open_sockets(client, MANY), bounded():
                sockets_open = MANY + len(volumes)
                while (await client.answer("/health"))[1]["sockets"] != sockets_open:
                    pass


async def test_peers_of_a_worker_that_is_killed_leave_their_rooms(source):
    async with contextlib.AsyncExitStack() as stack:
        log = stack.enter_context(logged(CHILDREN))
        client = await stack.enter_async_context(workers_of(source))
        peers = [await stack.enter_async_context(stomp(client)) for _ in range(MANY)]
        for number, peer in enumerate(peers):
            await peer.subscribe("/topic/signaling")
            join = json.dumps({"type": "JOIN", "senderId": f"peer{number}"})
            await peer.send("SEND", {"destination": "/app/signal"}, join.encode())
        for _ in range(MANY):  # whoever has not joined does not leave
            await peers[0].message()
        os.kill(process_ids(log)["gateway 0"], signal.SIGKILL)
        heard: dict[int, set[str]] = {}
        gone: set[str] = set()
        changed = asyncio.Event()

        async def hear(number: int) -> None:
            left = heard.setdefault(number, set())
            with contextlib.suppress(AssertionError):
                while True:
                    _, signal_ = await peers[number].message()
                    if signal_["type"] == "LEAVE":
                        left.add(signal_["senderId"])
                        changed.set()
            gone.add(f"peer{number}")
            del heard[number]
            changed.set()

        hearing = [asyncio.create_task(hear(number)) for number in range(MANY)]
        async with bounded():
            while not gone or any(left != gone for left in heard.values()):
                changed.clear()
                await changed.wait()
        assert 0 < len(gone) < MANY
        for task in hearing:
            task.cancel()


async def test_a_ticket_of_any_worker_opens_one_socket_of_any_worker(source, keys):
    async with workers_of(source, bearer(keys["all"])) as client, bounded():
        for _ in range(MANY):
            async with client.post("/api/v2/tickets", headers=bearer(keys["some"])) as response:
                ticket = (await response.json())["data"]["ticket"]
            url = f"http://{client.host}:{client.port}{SOCKET}&ticket={ticket}"
            async with ClientSession() as nobody:
                async with nobody.ws_connect(url) as socket:
                    assert (await socket.receive_json())["symbol"] == "AAPL"
                with pytest.raises(WSServerHandshakeError) as caught:
                    await nobody.ws_connect(url)
                assert caught.value.status == 401


async def test_a_quota_counts_the_subscriptions_at_all_workers(source, keys):
    keys.add_settings("[quotas.default]\nsubscriptions = 40\n")

    async def subscribed(socket, number) -> bool:
        symbol = f"S{number}"
        request = {"op": "subscribe", "id": number, "channel": "quotes", "symbols": [symbol]}
        await socket.send_json(request)
        while (reply := await socket.receive_json()).get("id") != number:
            pass
        if "error" in reply:
            assert reply["error"]["code"] == "limit"
        return "error" not in reply

    async with contextlib.AsyncExitStack() as stack, bounded():
        client = await stack.enter_async_context(workers_of(source, bearer(keys["all"])))
        first, *others = [
            await stack.enter_async_context(
                client.ws_connect("/stream", headers=bearer(keys["some"]))
            )
            for _ in range(MANY)
        ]
        for number in range(40):
            assert await subscribed(first, number)
        refused, number = 0, 0
        while refused < len(others):  # in a row, once all workers have the news
            number += 1
            socket = others[refused]
            if await subscribed(socket, number):
                await socket.send_json({"op": "unsubscribe", "id": number})
                refused = 0
            else:
                refused += 1
        async with client.ws_connect("/stream") as other:
            assert await subscribed(other, 1)


async def test_a_revoked_key_closes_its_sockets_of_all_workers(source, keys):
    async with contextlib.AsyncExitStack() as stack, bounded():
        client = await stack.enter_async_context(workers_of(source, bearer(keys["all"])))
        sockets = [
            await stack.enter_async_context(client.ws_connect(SOCKET, headers=bearer(keys["some"])))
            for _ in range(MANY)
        ]
        other = await stack.enter_async_context(client.ws_connect(SOCKET))
        api_keys.revoke(keys.path, "some")
        for socket in sockets:
            while (message := await socket.receive()).type is WSMsgType.TEXT:
                pass
            assert message.data == CloseCode.UNAUTHORIZED
        assert not other.closed


async def test_a_port_in_use_is_a_startup_error(source):
    async with gateway_of(source.address) as client:
        config = GatewayConfig(aggregator=source.address, port=client.port, workers=2)
        with pytest.raises(StartupError, match=str(client.port)):
            async with running(Gateway(config)):
                pass
