"""The gateway's REST paths, over real sockets, in front of a real gRPC server."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest
from yarl import URL

from mdtool.services.http import listening
from tests.reference.market_source import Bar, MarketSource
from tests.support.gateways import connected, gateway_of
from tests.support.waiting import bounded

MINUTE_MS = 60_000
START_MS = 1_735_201_200_000


@pytest.fixture
async def source():
    async with MarketSource().serving() as source:
        source.trade("AAPL", 187.25, 400)
        source.trade("AAPL", 188.5, 300)
        source.trade("AAPL", 186.1, 200)
        source.trade("AAPL", 187.33, 100)
        yield source


@pytest.fixture
async def client(source):
    async with gateway_of(source.address) as client:
        await connected(client)
        yield client


async def test_an_aggregate_has_volume_and_time_as_strings(client):
    async with client.get("/api/v1/marketdata/AAPL") as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        assert "Warning" not in response.headers
        assert await response.json() == {
            "symbol": "AAPL",
            "open": 187.25,
            "high": 188.5,
            "low": 186.1,
            "close": 187.33,
            "volume": "1000",
            "timestamp": "1735201234567",
        }


@pytest.mark.parametrize("symbol", ["aapl", "%20AaPl%09", "AAPL"])
async def test_symbols_are_trimmed_and_of_any_case(client, symbol):
    status, answer = await client.answer(f"/api/v1/marketdata/{symbol}")
    assert (status, answer["symbol"]) == (200, "AAPL")


async def test_a_read_sees_the_latest_update(source, client):
    async with client.ws_connect("/ws/marketdata?symbol=AAPL") as socket:
        await socket.receive_json()
        for volume in (1_001, 1_002):
            source.trade("AAPL", 190.0, 1)
            assert (await socket.receive_json())["volume"] == volume
            _, answer = await client.answer("/api/v1/marketdata/AAPL")
            assert (answer["volume"], answer["high"]) == (str(volume), 190)


async def first_state(socket):
    """The first state of a symbol, which may have been unknown when it was subscribed."""
    async with bounded():
        while "error" in (state := await socket.receive_json()):
            pass
    return state


async def test_prices_keep_all_their_decimals(source, client):
    async with client.ws_connect("/ws/marketdata?symbol=ODD") as socket:
        source.sessions["ODD"] = type(source.sessions["AAPL"])(
            9_007_199_254_740_993_123, 9_007_199_254_740_993_123, 1, 1, 9_007_199_254_740_993
        )
        source.trade("ODD", 1e-9, 1)
        await first_state(socket)
        async with client.get("/api/v1/marketdata/ODD") as response:
            text = await response.text()
    assert '"open":9007199254.740993123' in text
    assert '"low":0.000000001' in text
    assert '"volume":"9007199254740994"' in text


async def test_a_symbol_may_hold_what_json_and_paths_escape(source, client):
    async with client.ws_connect("/ws/marketdata", params={"symbol": 'A"\\/B%'}) as socket:
        source.trade('A"\\/B%', 1.0, 1)
        assert (await first_state(socket))["symbol"] == 'A"\\/B%'
    status, answer = await client.answer("/api/v1/marketdata/A%22%5C%2FB%25")
    assert (status, answer["symbol"]) == (200, 'A"\\/B%')


async def test_the_list_holds_every_aggregate_in_order_of_symbol(source, client):
    async with client.ws_connect("/ws/marketdata?symbol=AA") as socket:
        source.trade("AA", 30.0, 5)
        await first_state(socket)
    status, answer = await client.answer("/api/v1/marketdata")
    assert status == 200
    assert [entry["symbol"] for entry in answer] == ["AA", "AAPL"]
    assert answer == [
        (await client.answer(f"/api/v1/marketdata/{symbol}"))[1] for symbol in ("AA", "AAPL")
    ]


async def test_a_list_may_name_its_symbols(client):
    status, answer = await client.answer("/api/v1/marketdata?symbols=none,aapl,AAPL")
    assert status == 200
    assert answer == [(await client.answer("/api/v1/marketdata/AAPL"))[1]]


async def test_symbols_that_never_traded_are_not_known():
    async with MarketSource(untraded=["GHOST"]).serving() as source:
        source.trade("AAPL", 1.0, 1)
        async with gateway_of(source.address) as client:
            await connected(client)
            assert (await client.answer("/api/v1/marketdata/GHOST"))[0] == 404
            assert len((await client.answer("/api/v1/marketdata"))[1]) == 1


async def test_an_unknown_symbol_is_404(client):
    status, answer = await client.answer("/api/v1/marketdata/NONE")
    assert status == 404
    assert answer == {"data": None, "error": "not_found", "message": "no trade of NONE yet"}


BAD_SYMBOLS = {
    "nul": "%00",
    "nul inside": "AA%00PL",
    "newline": "A%0AB",
    "unicode": "%E2%82%ACUR",
    "unicode that becomes ASCII in upper case": "%C4%B1bm",
    "blank": "%20",
    "71 characters": "A" * 71,
    "1,000 characters": "A" * 1_000,
}


@pytest.mark.parametrize("symbol", BAD_SYMBOLS.values(), ids=BAD_SYMBOLS)
@pytest.mark.parametrize("path", ["marketdata", "bars"])
async def test_what_can_be_no_symbol_is_400(client, path, symbol):
    status, answer = await client.answer(URL(f"/api/v1/{path}/{symbol}", encoded=True))
    assert (status, answer["error"]) == (400, "bad_parameter")
    assert answer["message"].startswith("symbol: ")


@pytest.mark.parametrize("symbol", ["A" * 70, "%FF%FE", "%25FF", "..%2F..%2Fetc"])
async def test_what_could_be_a_symbol_is_404(client, symbol):
    path = URL(f"/api/v1/marketdata/{symbol}", encoded=True)
    assert (await client.answer(path))[0] == 404


async def test_bars_come_newest_first_with_a_cursor(source, client):
    source.bars["AAPL", "1m"] = [Bar((START_MS + n * MINUTE_MS) * 10**6) for n in range(5)]
    pages, cursor = [], None
    while True:
        before = f"&before={cursor}" if cursor else ""
        status, answer = await client.answer(f"/api/v1/bars/aapl?interval=1m&limit=2{before}")
        assert (status, answer["error"], answer["message"]) == (200, None, None)
        pages.append([int(bar["timestamp"]) for bar in answer["data"]])
        cursor = answer["pagination"]["next_cursor"]
        if cursor is None:
            break
    assert pages == [[START_MS + n * MINUTE_MS for n in page] for page in ((4, 3), (2, 1), (0,))]


async def test_a_bar_has_volume_and_time_as_strings(source, client):
    source.bars["AAPL", "1m"] = [Bar(START_MS * 10**6)]
    _, answer = await client.answer("/api/v1/bars/AAPL")
    assert answer["data"] == [
        {
            "timestamp": str(START_MS),
            "open": 1,
            "high": 3,
            "low": 0.5,
            "close": 2,
            "volume": "7",
            "count": 2,
        }
    ]
    request = source.asked[-1]
    assert (request.interval, request.limit, request.before) == ("1m", 101, 0)


async def test_no_bars_are_an_empty_page(source, client):
    source.bars["AAPL", "1h"] = []
    status, answer = await client.answer("/api/v1/bars/AAPL?interval=1h")
    assert status == 200
    assert (answer["data"], answer["pagination"]) == ([], {"next_cursor": None})


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=1001", "limit"),
        ("limit=1e3", "limit"),
        ("limit=" + "9" * 1_000, "limit"),
        ("limit=%D9%A1", "limit"),
        ("before=0", "before"),
        ("before=-1735201200000", "before"),
        ("before=9223372036855", "before"),
        ("before=yesterday", "before"),
        ("before=%00", "before"),
        ("interval=1x", "interval"),
        ("interval=-1m", "interval"),
        ("interval=%00", "interval"),
        ("interval=" + "9" * 1_000 + "d", "interval"),
        ("interval=2m", "interval"),
    ],
)
async def test_a_bad_query_of_bars_is_400(client, query, parameter):
    status, answer = await client.answer(f"/api/v1/bars/AAPL?{query}")
    assert (status, answer["error"]) == (400, "bad_parameter")
    assert answer["message"].startswith(f"{parameter}: ")


async def test_bars_of_an_unknown_symbol_are_404(client):
    status, answer = await client.answer("/api/v1/bars/NONE")
    assert (status, answer["error"]) == (404, "not_found")


async def test_an_aggregator_that_does_not_answer_is_504(source):
    async with gateway_of(source.address, timeout_ms=50) as client:
        await connected(client)
        source.is_silent = True
        status, answer = await client.answer("/api/v1/bars/AAPL")
    assert (status, answer["error"]) == (504, "timeout")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v1", 404, "not_found"),
        ("/api/v1/marketdata/", 404, "not_found"),
        ("/api/v1/marketdata/A/B", 404, "not_found"),
        ("/api/v1/%00", 404, "not_found"),
    ],
)
async def test_unknown_paths_are_told_in_json(client, path, status, code):
    answered, answer = await client.answer(path)
    assert (answered, answer["error"], answer["data"]) == (status, code, None)


async def test_a_wrong_method_is_405_and_names_the_right_ones(client):
    async with client.post("/api/v1/marketdata/AAPL", json={}) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD, OPTIONS"
        assert (await response.json())["error"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/ws/000/a/eventsource", "/api/order-book"])
async def test_what_is_written_as_it_comes_has_no_head(client, path):
    async with client.request("HEAD", path) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET, OPTIONS"


@pytest.mark.parametrize(
    "garbage",
    [
        bytes(range(256)),
        b"GET /api/v1/marketdata/" + b"A" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /api/v1/marketdata/\xff\x00 HTTP/1.1\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_400_and_one_line_in_the_log(client, caplog, garbage):
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(garbage)
    assert (await reader.readline()).startswith(b"HTTP/1.0 400 ")
    writer.close()
    assert (await client.answer("/health"))[0] == 200
    assert all(record.exc_info is None for record in caplog.records)
    assert all("\n" not in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("length", ["", "Content-Length: 4\r\n"])
@pytest.mark.parametrize("version", ["1.0", "0.9"])
async def test_chunks_of_an_older_version_are_400_and_end_the_connection(client, length, version):
    reader, writer = await asyncio.open_connection(client.host, client.port)
    head = f"POST /graphql HTTP/{version}\r\nHost: gateway\r\nConnection: keep-alive\r\n{length}"
    hidden = "0\r\n\r\nGET /livez HTTP/1.1\r\nHost: gateway\r\n\r\n"
    writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n{hidden}".encode())
    answered = await reader.read()
    assert answered.split()[1] == b"400"
    assert b"200 OK" not in answered  # which is the answer to what is hidden
    writer.close()
    assert (await client.answer("/livez"))[0] == 200


@pytest.mark.parametrize("half", [b"", b"GET /health HTTP/1.1\r\nHost: gat"])
async def test_a_connection_without_a_request_is_closed(source, monkeypatch, half):
    monkeypatch.setattr(listening, "KEEP_ALIVE_S", 0.05)
    async with gateway_of(source.address) as client:
        reader, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(half)
        with contextlib.suppress(ConnectionResetError):  # half of it came when it was closed
            assert await reader.read() == b""
        writer.close()


async def test_half_a_request_and_a_hang_up_trouble_nobody(client, caplog):
    _, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"GET /api/v1/marketdata/AAPL HTT")
    await writer.drain()
    writer.transport.abort()
    assert (await client.answer("/health"))[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
