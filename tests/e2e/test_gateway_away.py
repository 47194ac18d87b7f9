"""What the gateway serves while the aggregator is away, over real sockets."""

from __future__ import annotations

import contextlib

import pytest

from tests.reference.market_source import MarketSource
from tests.support.gateways import connected, gateway_of

WARNING = '110 mdtool "Response is Stale"'
SOCKET = "/ws/marketdata?symbol="


@pytest.fixture
def source():
    source = MarketSource()
    source.trade("AAPL", 187.25, 400)
    source.trade("MSFT", 410.5, 100)
    return source


@contextlib.asynccontextmanager
async def left_behind(source, **settings):
    """A client of a gateway that knew the source's state before the source went away."""
    async with contextlib.AsyncExitStack() as stack:
        async with source.serving():
            client = await stack.enter_async_context(gateway_of(source.address, **settings))
            await connected(client)
            socket = await client.ws_connect(f"{SOCKET}AAPL")
            await socket.receive_json()
        assert (await socket.receive_json())["stale"] is True
        await socket.close()
        yield client


async def test_the_last_known_state_is_served_and_marked(source):
    async with left_behind(source) as client:
        async with client.get("/api/v1/marketdata/aapl") as response:
            assert response.status == 200
            assert response.headers["Warning"] == WARNING
            answer = await response.json()
        assert (answer["volume"], answer["stale"]) == ("400", True)
        async with client.get("/api/v1/marketdata") as response:
            assert response.headers["Warning"] == WARNING
            assert [entry["stale"] for entry in await response.json()] == [True, True]


async def test_what_is_not_known_is_503_and_never_404(source):
    async with left_behind(source) as client:
        async with client.get("/api/v1/marketdata/NONE") as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) >= 1
            assert (await response.json())["error"] == "unavailable"
        status, answer = await client.answer("/api/v1/bars/AAPL")
        assert (status, answer["error"]) == (503, "unavailable")


async def test_bad_parameters_stay_400(source):
    async with left_behind(source) as client:
        for path in ("/api/v1/marketdata/%00", "/api/v1/bars/AAPL?limit=-1"):
            assert (await client.answer(path))[0] == 400


async def test_new_sockets_are_told_the_marked_state(source):
    async with left_behind(source) as client, client.ws_connect(f"{SOCKET}MSFT") as socket:
        assert await socket.receive_json() == {
            "symbol": "MSFT",
            "open": 410.5,
            "high": 410.5,
            "low": 410.5,
            "close": 410.5,
            "volume": 100,
            "timestamp": 1735201234567,
            "stale": True,
        }


async def test_sockets_outlive_the_aggregator(source):
    async with left_behind(source) as client, client.ws_connect(f"{SOCKET}AAPL") as socket:
        assert (await socket.receive_json())["stale"] is True
        source.trade("AAPL", 188.0, 1)
        async with source.serving():
            fresh = await socket.receive_json()
            assert fresh["volume"] == 401
            assert "stale" not in fresh
            assert "Warning" not in (await client.get("/api/v1/marketdata/AAPL")).headers
            source.trade("AAPL", 188.0, 1)
            assert (await socket.receive_json())["volume"] == 402


async def test_a_symbol_that_the_aggregator_lost_stays_stale(source):
    async with left_behind(source) as client, client.ws_connect(f"{SOCKET}MSFT") as socket:
        await socket.receive_json()
        other = MarketSource(address=source.address)
        other.trade("MSFT", 1.0, 7)
        async with other.serving():
            assert (await socket.receive_json())["volume"] == 7
            _, apple = await client.answer("/api/v1/marketdata/AAPL")
            _, microsoft = await client.answer("/api/v1/marketdata/MSFT")
            assert apple["stale"] is True
            assert "stale" not in microsoft
            _, health = await client.answer("/health")
            assert (health["status"], health["symbols"]) == ("ok", {"known": 2, "stale": 1})


async def test_health_tells_fresh_from_stale(source):
    async with source.serving(), gateway_of(source.address) as client:
        await connected(client)
        status, health = await client.answer("/health")
        assert (status, health["status"]) == (200, "ok")
        assert health["aggregator"] == {
            "address": source.address,
            "connected": True,
            "message": None,
        }
    async with left_behind(source) as client:
        status, health = await client.answer("/health")
        assert (status, health["status"]) == (200, "stale")
        assert source.address in health["aggregator"]["message"]


@pytest.mark.parametrize("has_name", [True, False], ids=["refused", "no name"])
async def test_an_aggregator_that_was_never_there_is_503_throughout(has_name):
    address = "no-such-host.invalid:50051"
    if has_name:
        async with MarketSource().serving() as source:
            address = source.address
    async with gateway_of(address) as client:
        for path in ("/api/v1/marketdata", "/api/v1/marketdata/AAPL", "/api/v1/bars/AAPL"):
            status, answer = await client.answer(path)
            assert (status, answer["error"]) == (503, "unavailable")
            assert address in answer["message"]
            assert not answer["message"].endswith("]")
        assert (await client.answer("/livez"))[0] == 200
        assert (await client.answer("/readyz"))[0] == 503
        status, health = await client.answer("/health")
        assert (status, health["status"]) == (503, "unavailable")
        assert (await client.get("/metrics")).status == 200


async def test_an_aggregator_that_comes_later_is_found():
    source = MarketSource()
    async with gateway_of(source.address) as client, client.ws_connect(f"{SOCKET}AAPL") as socket:
        source.trade("AAPL", 1.0, 5)
        async with source.serving():
            assert (await socket.receive_json())["volume"] == 5


async def test_a_live_aggregator_without_trades_is_an_empty_list():
    async with MarketSource().serving() as source, gateway_of(source.address) as client:
        while (await client.answer("/health"))[1]["status"] != "ok":
            pass  # each question gives the gateway time to connect
        assert await client.answer("/api/v1/marketdata") == (200, [])
        assert (await client.answer("/api/v1/marketdata/AAPL"))[0] == 404


async def test_metrics_tell_of_ticks_stream_requests_and_sockets(source):
    source.refused = {"price": 3, "timestamp": 1}
    async with source.serving(), gateway_of(source.address) as client:
        while (await client.answer("/health"))[1]["status"] != "ok":
            pass  # a socket that is there before the state may get it twice
        await connected(client)
        await client.answer("/api/v1/marketdata/AAPL")
        await client.answer("/api/v1/marketdata/NONE")
        async with client.ws_connect(f"{SOCKET}AAPL") as socket:
            await socket.receive_json()
            async with client.get("/metrics") as response:
                assert response.headers["Content-Type"].startswith("text/plain; version=")
                lines = dict(
                    line.rsplit(" ", 1)
                    for line in (await response.text()).splitlines()
                    if not line.startswith("#")
                )
    route = 'route="/api/v1/marketdata/{symbol}"'
    path = '{path="/ws/marketdata"}'
    expected = {
        "mdtool_ticks_total": 2,
        'mdtool_ticks_refused_total{reason="price"}': 3,
        'mdtool_ticks_refused_total{reason="timestamp"}': 1,
        "mdtool_stream_up": 1,
        "mdtool_stream_connections_total": 1,
        "mdtool_symbols": 2,
        "mdtool_symbols_stale": 0,
        f'mdtool_request_seconds_count{{{route},status="200"}}': 1,
        f'mdtool_request_seconds_count{{{route},status="404"}}': 1,
        f'mdtool_request_seconds_bucket{{le="+Inf",{route},status="200"}}': 1,
        f"mdtool_sockets{path}": 1,
        f"mdtool_sockets_opened_total{path}": 2,
        f"mdtool_socket_messages_total{path}": 2,
        f"mdtool_socket_conflated_total{path}": 0,
    }
    assert {name: float(lines[name]) for name in expected} == expected
    assert float(lines[f'mdtool_request_seconds_sum{{{route},status="200"}}']) > 0
