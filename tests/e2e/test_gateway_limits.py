"""What the gateway gives each client, over real sockets."""

from __future__ import annotations

import re

import pytest
from aiohttp import WSServerHandshakeError

from mdtool.services.gateway.protocols import sockjs
from tests.reference.market_source import Bar, MarketSource
from tests.support.gateways import connected, gateway_of
from tests.support.stomp_peers import counted
from tests.support.waiting import WITHIN_S, bounded

SOCKET = "/ws/marketdata?symbol=AAPL"
BARS = "/api/v1/bars/AAPL"
AGGREGATE = "/api/v1/marketdata/AAPL"


@pytest.fixture
async def source():
    async with MarketSource().serving() as source:
        source.trade("AAPL", 187.25, 400)
        source.bars["AAPL", "1m"] = [Bar(1_735_201_200 * 10**9)]
        yield source


async def statuses(client, path, n, **options):
    """The statuses of requests that are made one after the other."""
    found = []
    for _ in range(n):
        async with client.get(path, **options) as response:
            found.append(response.status)
    return found


async def test_what_reaches_the_aggregator_has_a_burst_of_twenty(source, no_refill):
    async with gateway_of(source.address, upstream_requests_per_s=1) as client:
        await connected(client)
        assert await statuses(client, BARS, 20) == [200] * 20
        async with client.get(BARS) as response:
            assert response.status == 429
            assert 1 <= int(response.headers["Retry-After"]) <= 20
            assert response.headers["RateLimit-Policy"] == '"upstream";q=20;w=20'
            assert re.fullmatch(r'"upstream";r=0;t=\d+', response.headers["RateLimit"])
            answer = await response.json()
        assert (answer["data"], answer["error"]) == (None, "too_many_requests")
        assert await statuses(client, AGGREGATE, 50) == [200] * 50
        assert len(source.asked) == 20


async def test_clients_on_this_machine_may_read_page_after_page(source):
    async with gateway_of(source.address) as client:
        await connected(client)
        assert await statuses(client, BARS, 100) == [200] * 100


async def test_what_is_left_is_told_with_each_answer(source, no_refill):
    async with gateway_of(source.address, upstream_requests_per_s=1) as client:
        await connected(client)
        left = []
        for _ in range(3):
            async with client.get(BARS) as response:
                left.append(response.headers["RateLimit"])
        assert left == [f'"upstream";r={n}' for n in (19, 18, 17)]


async def test_who_was_refused_is_served_again_when_there_is_room(source):
    async with gateway_of(source.address, upstream_requests_per_s=1, upstream_burst=1) as client:
        await connected(client)
        for status in (429, 200):
            async with bounded():
                while await statuses(client, BARS, 1) != [status]:
                    pass


async def test_what_memory_answers_is_limited_too(source, no_refill):
    async with gateway_of(source.address, memory_requests_per_s=10) as client:
        await connected(client)
        while True:
            async with client.get(AGGREGATE) as response:
                if response.status == 429:
                    break
                assert response.status == 200
        assert response.headers["RateLimit-Policy"] == '"memory";q=10;w=1'
        assert response.headers["Retry-After"] == "1"
        assert await statuses(client, "/health", 30) == [200] * 30
        assert await statuses(client, "/metrics", 30) == [200] * 30


async def test_clients_behind_a_proxy_are_told_apart(source, no_refill):
    settings = {"upstream_requests_per_s": 1, "upstream_burst": 1, "proxies": 1}
    async with gateway_of(source.address, **settings) as client:
        await connected(client)
        for address, status in {
            "198.51.100.1": 200,
            "203.0.113.9, 198.51.100.1": 429,  # what it says of itself does not count
            "198.51.100.2": 200,
            "2001:db8::1": 200,
            "2001:db8::2": 429,  # a host has all addresses of a network
            "2001:db8:0:1::1": 200,
            "nonsense": 200,
        }.items():
            headers = {"X-Forwarded-For": address}
            assert await statuses(client, BARS, 1, headers=headers) == [status], address


async def test_without_proxies_nobody_is_who_it_says(source, no_refill):
    settings = {"upstream_requests_per_s": 1, "upstream_burst": 1}
    async with gateway_of(source.address, **settings) as client:
        await connected(client)
        assert await statuses(client, BARS, 1, headers={"X-Forwarded-For": "192.0.2.1"}) == [200]
        assert await statuses(client, BARS, 1, headers={"X-Forwarded-For": "192.0.2.2"}) == [429]


async def test_zero_is_no_limit(source):
    settings = {"upstream_requests_per_s": 0, "memory_requests_per_s": 0, "client_sockets": 0}
    async with gateway_of(source.address, **settings) as client:
        await connected(client)
        assert await statuses(client, BARS, 60) == [200] * 60
        async with client.get(BARS) as response:
            assert "RateLimit" not in response.headers


async def test_one_client_has_so_many_sockets_until_it_closes_some(source):
    async with gateway_of(source.address, client_sockets=2) as client:
        first = await client.ws_connect(SOCKET)
        await first.receive_json()  # the gateway knows of the trade
        second = await client.ws_connect(SOCKET)
        with pytest.raises(WSServerHandshakeError) as refused:
            await client.ws_connect(SOCKET)
        assert refused.value.status == 429
        assert refused.value.headers["Retry-After"] == "1"
        with pytest.raises(WSServerHandshakeError):
            await client.ws_connect("/graphql", protocols=["graphql-transport-ws"])
        assert await statuses(client, AGGREGATE, 1) == [200]
        await first.close()
        while (await client.answer("/health"))[1]["sockets"] > 1:
            pass  # each question gives the gateway time to notice
        await (await client.ws_connect(SOCKET)).close()
        await second.close()


TRANSPORTS = ["POST xhr", "POST xhr_streaming", "GET eventsource"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_sessions_of_sockjs_count_as_sockets(source, monkeypatch, transport):
    monkeypatch.setattr(sockjs, "_ABSENCE_S", WITHIN_S)
    method, name = transport.split()
    async with gateway_of(source.address, client_sockets=1) as client:
        async with client.ws_connect(SOCKET) as socket:
            await socket.receive_json()
            for session in ("a", "b"):
                async with client.request(method, f"/ws/000/{session}/{name}") as refused:
                    assert refused.status == 429
                    assert refused.headers["Retry-After"] == "1"
            await socket.close()
        async with bounded():
            while (await client.answer("/health"))[1]["sockets"]:
                pass
        async with client.request(method, f"/ws/000/a/{name}") as session:
            await session.content.readuntil(b"o")
            assert (await client.answer("/health"))[1]["sockets"] == 1
            with pytest.raises(WSServerHandshakeError) as refused:
                await client.ws_connect(SOCKET)
            assert refused.value.status == 429
            session.close()
        for period in ("_ABSENCE_S", "_BEAT_S", "_POLL_S"):
            monkeypatch.setattr(sockjs, period, 0.05)
        if name == "xhr":  # its absence begins with the end of a poll
            async with client.request(method, f"/ws/000/a/{name}") as last:
                assert await last.text() == "h\n"
        async with bounded():
            while (await client.answer("/health"))[1]["sockets"]:
                pass
        await (await client.ws_connect(SOCKET)).close()
        assert await counted(client, "mdtool_sockets_opened_total", "/ws") == 1
        assert await counted(client, "mdtool_sockets_refused_total", "/ws") == 2


async def test_all_clients_have_so_many_sockets_together_whatever_they_speak(source):
    async with (
        gateway_of(source.address, max_sockets=1, proxies=1) as client,
        client.ws_connect(SOCKET) as socket,
    ):
        await socket.receive_json()
        somebody = {"X-Forwarded-For": "198.51.100.1"}
        for path in ("/ws", "/ws/websocket", "/ws/000/a/websocket", "/graphql", "/stream"):
            with pytest.raises(WSServerHandshakeError) as refused:
                await client.ws_connect(path, headers=somebody)
            assert refused.value.status == 503
        for transport in TRANSPORTS:
            method, name = transport.split()
            path = f"/ws/000/a/{name}"
            async with client.request(method, path, headers=somebody) as answer:
                assert answer.status == 503
                assert (await answer.json())["error"] == "unavailable"


async def test_health_and_metrics_tell_what_was_refused(source, no_refill):
    settings = {"upstream_requests_per_s": 1, "upstream_burst": 1, "client_sockets": 1}
    async with gateway_of(source.address, **settings) as client:
        async with client.ws_connect(SOCKET) as socket:
            await socket.receive_json()
            with pytest.raises(WSServerHandshakeError):
                await client.ws_connect(SOCKET)
        await statuses(client, BARS, 2)
        await statuses(client, "/health", 1, headers={"Origin": "https://elsewhere.example"})
        _, health = await client.answer("/health")
        assert health["refused"] == {"requests": 0, "upstream": 1, "sockets": 1, "origins": 1}
        async with client.get("/metrics") as response:
            exposition = await response.text()
        for limit, count in health["refused"].items():
            assert f'mdtool_refused_total{{limit="{limit}"}} {count:.1f}' in exposition
