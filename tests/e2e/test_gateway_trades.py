"""The gateway's history of trades, over real sockets, before a store that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re

import pytest
from yarl import URL

from mdtool.adapters import stores
from mdtool.adapters.stores.errors import StoreError, StoreFormatError, StoreUnavailableError
from mdtool.core.errors import ConfigError
from mdtool.services.gateway import history
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.server import Gateway
from mdtool.wire.cursors import Cursor, encode_cursor
from tests.reference.market_source import MarketSource
from tests.reference.trade_history import STORES, PlainStore
from tests.support.gateways import gateway_of
from tests.support.waiting import bounded

MS = 10**6
TIME_MS = 1_735_201_234_567
TIME_NS = TIME_MS * MS + 123_456
TRADES = "/api/v1/trades/AAPL"
SYMBOLS = "/api/v1/symbols"
NOBODY = "127.0.0.1:1"
"""No aggregator: history is there without one."""
LASTING = {"upstream_requests_per_s": 0}


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setitem(stores.SCHEMES, "plain", "tests.reference.trade_history")
    monkeypatch.setitem(STORES, "it", PlainStore())
    store = STORES["it"]
    for sequence in range(5):
        store.add("AAPL", TIME_NS, sequence, 187_250_000_000 + sequence, 100 + sequence)
    store.add("AAPL", TIME_NS + 10**9, 5, 190 * 10**9, 7)
    store.add("MSFT", TIME_NS, 6, 1, 2**62)
    return store


@pytest.fixture
async def client(store):
    async with gateway_of(NOBODY, store="plain:it", **LASTING) as client:
        yield client


async def pages(client, limit, path=TRADES, until=None):
    """The prices of each page, walked by cursors."""
    found, cursor = [], None
    while not found or cursor is not None:
        before = f"&before={cursor}" if cursor else ""
        status, answer = await client.answer(f"{path}?limit={limit}{before}")
        assert status == 200
        found.append([trade["price"] for trade in answer["data"]["data"]])
        cursor = answer["data"]["pagination"]["next_cursor"]
        if until is not None:
            until(found)
    return found


async def test_trades_come_newest_first_in_the_envelope(client):
    async with client.get(f"{TRADES}?limit=2") as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        assert "Warning" not in response.headers
        answer = await response.json()
    cursor = answer["data"]["pagination"]["next_cursor"]
    assert answer == {
        "data": {
            "data": [
                {"timestamp": "2024-12-26T08:20:35.567123456Z", "price": "190", "volume": "7"},
                {
                    "timestamp": "2024-12-26T08:20:34.567123456Z",
                    "price": "187.250000004",
                    "volume": "104",
                },
            ],
            "pagination": {"next_cursor": cursor},
        },
        "error": None,
        "message": None,
    }
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]+", cursor)


async def test_symbols_come_in_order_in_the_envelope(client):
    assert await client.answer(SYMBOLS) == (
        200,
        {
            "data": {
                "available": [
                    {
                        "symbol": "AAPL",
                        "trade_count": 6,
                        "last_trade_at": "2024-12-26T08:20:35.567123456Z",
                    },
                    {
                        "symbol": "MSFT",
                        "trade_count": 1,
                        "last_trade_at": "2024-12-26T08:20:34.567123456Z",
                    },
                ]
            },
            "error": None,
            "message": None,
        },
    )


@pytest.mark.parametrize("limit", range(1, 8))
async def test_pages_hold_every_trade_once_and_the_last_says_so(client, limit):
    found = await pages(client, limit)
    assert list(itertools.chain(*found)) == [
        "190",
        *(f"187.25000000{n}" for n in (4, 3, 2, 1)),
        "187.25",
    ]
    assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert 1 <= len(found[-1]) <= limit


async def test_pages_stay_what_they_were_while_trades_pour_in(store, client):
    numbers = itertools.count(1_000)

    def trade(found):
        for _ in range(3):
            store.add("AAPL", TIME_NS, next(numbers), 1)  # the same moment, a later trade
            store.add("AAPL", TIME_NS + 2 * 10**9, next(numbers), 1)

    before = list(itertools.chain(*await pages(client, 2)))
    assert list(itertools.chain(*await pages(client, 2, until=trade))) == before


async def test_before_takes_a_time_too(client):
    for before_ms, n in (
        (TIME_MS, 0),
        (TIME_MS + 1, 5),
        (TIME_MS + 1_000, 5),
        (TIME_MS + 1_001, 6),
    ):
        status, answer = await client.answer(f"{TRADES}?before={before_ms}")
        assert status == 200
        assert len(answer["data"]["data"]) == n
        assert answer["data"]["pagination"] == {"next_cursor": None}


@pytest.mark.parametrize("symbol", ["aapl", "%20AaPl%09"])
async def test_symbols_are_trimmed_and_of_any_case(client, symbol):
    _, answer = await client.answer(URL(f"/api/v1/trades/{symbol}?limit=1", encoded=True))
    cursor = answer["data"]["pagination"]["next_cursor"]
    status, answer = await client.answer(f"{TRADES}?before={cursor}")
    assert (status, len(answer["data"]["data"])) == (200, 5)


AAPL_CURSOR = encode_cursor(Cursor("AAPL", TIME_NS, 1, 3))


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        *((f"limit={limit}", "limit") for limit in ("0", "-1", "1001", "1e3", "9" * 1_000)),
        *((f"before={place}", "before") for place in ("0", "-5", "9223372036855", "%00")),
        ("before=yesterday", "before"),
        ("before=%D9%A3", "before"),
        ("before=" + "9" * 5_000, "before"),
        ("before=" + "A" * 5_000, "before"),
        (f"before={AAPL_CURSOR[:-1]}", "before"),
        (f"before={AAPL_CURSOR}A", "before"),
        (f"before={AAPL_CURSOR[:-5]}AAAAA", "before"),
        ("before=" + encode_cursor(Cursor("MSFT", TIME_NS, 1, 6)), "before"),
    ],
)
async def test_a_bad_query_is_400(client, query, parameter):
    status, answer = await client.answer(URL(f"{TRADES}?{query}", encoded=True))
    assert (status, answer["data"], answer["error"]) == (400, None, "bad_parameter")
    assert answer["message"].startswith(f"{parameter}: ")


@pytest.mark.parametrize("symbol", ["%00", "%20", "A" * 71, "%E2%82%AC"])
async def test_what_can_be_no_symbol_is_400(client, symbol):
    status, answer = await client.answer(URL(f"/api/v1/trades/{symbol}", encoded=True))
    assert (status, answer["error"]) == (400, "bad_parameter")
    assert answer["message"].startswith("symbol: ")


@pytest.mark.parametrize("query", ["", f"?before={TIME_MS}"])
async def test_an_unknown_symbol_is_404(client, query):
    assert await client.answer(f"/api/v1/trades/none{query}") == (
        404,
        {"data": None, "error": "not_found", "message": "no trade of NONE is stored"},
    )


async def test_without_a_store_there_is_no_history():
    async with gateway_of(NOBODY) as client:
        for path in (TRADES, SYMBOLS):
            async with client.get(path) as response:
                assert response.status == 503
                assert "Retry-After" in response.headers
                answer = await response.json()
            assert (answer["data"], answer["error"]) == (None, "unavailable")
            assert "start the gateway with a store" in answer["message"]
        assert (await client.answer("/health"))[1]["store"] is None
        async with client.get("/metrics") as response:
            assert "mdtool_store" not in await response.text()


@pytest.mark.parametrize("url", ["oracle://x", "nothing", "plain"])
def test_a_store_of_no_kind_stops_the_gateway_at_its_start(url):
    with pytest.raises(ConfigError, match="no such store"):
        Gateway(GatewayConfig(store=url))


async def test_a_store_that_is_away_is_503_and_picked_up_when_it_comes(store):
    there = STORES.pop("it")
    settings = {**LASTING, "attempts": 1, "breaker_least": 1_000, "breaker_window": 1_000}
    async with gateway_of(NOBODY, store="plain:it", **settings) as client:
        for path in (TRADES, SYMBOLS):
            status, answer = await client.answer(path)
            assert (status, answer["error"]) == (503, "unavailable")
            assert answer["message"] == "plain it: there is no such store yet"
        STORES["it"] = there
        for path in (TRADES, SYMBOLS):
            assert (await client.answer(path))[0] == 200
        there.error = StoreUnavailableError("its disk is gone")
        assert (await client.answer(TRADES))[0] == 503
        there.error = None
        assert (await client.answer(TRADES))[0] == 200


async def test_a_store_that_comes_back_in_time_is_not_missed(store):
    there = STORES.pop("it")
    settings = LASTING | {"retry_ms": 50, "attempts": 100}
    settings |= {"breaker_least": 1_000, "breaker_window": 1_000}
    async with gateway_of(NOBODY, store="plain:it", **settings) as client:
        asking = asyncio.create_task(client.answer(TRADES))
        async with bounded():
            while not dict(await outcomes(client))["failed"]:
                pass
        STORES["it"] = there
        assert (await asking)[0] == 200


async def test_a_store_that_keeps_failing_is_left_alone(store):
    store.error = StoreUnavailableError("its disk is gone")
    settings = LASTING | {"attempts": 1, "breaker_open_ms": 600_000}
    async with gateway_of(NOBODY, store="plain:it", **settings) as client:
        for _ in range(5):
            assert (await client.answer(TRADES))[0] == 503
        async with client.get(TRADES) as response:
            assert response.status == 503
            assert 1 <= int(response.headers["Retry-After"]) <= 600
            assert "next request in" in (await response.json())["message"]
        assert dict(await outcomes(client)) == {"answered": 0, "failed": 5, "refused": 1}


@pytest.mark.parametrize("error", [StoreError("a page is torn"), StoreFormatError("is no store")])
async def test_a_store_that_is_broken_is_502(store, client, error):
    store.error = error
    status, answer = await client.answer(TRADES)
    assert (status, answer["data"], answer["error"]) == (502, None, "bad_gateway")
    assert str(error) in answer["message"]


async def test_a_store_that_takes_too_long_is_504_and_its_thread_is_free_again(store):
    settings = LASTING | {"timeout_ms": 50, "breaker_least": 1_000, "breaker_window": 1_000}
    store.hold(is_held=True)
    async with gateway_of(NOBODY, store="plain:it", **settings) as client:
        for path in (TRADES, SYMBOLS, TRADES) * history.THREADS:
            status, answer = await client.answer(path)
            assert (status, answer["data"], answer["error"]) == (504, None, "timeout")
            assert answer["message"] == "plain it did not answer in time"
        store.hold(is_held=False)
        await asyncio.to_thread(store.wait_for_readers, 0)
        assert store.interrupted >= history.THREADS
    async with gateway_of(NOBODY, store="plain:it", **LASTING) as client:
        assert (await client.answer(TRADES))[0] == 200


async def test_others_are_served_while_one_waits(store):
    async with gateway_of(NOBODY, store="plain:it", **LASTING) as client:
        assert (await client.answer(SYMBOLS))[0] == 200
        store.hold(is_held=True)
        held = [asyncio.create_task(client.answer(TRADES)) for _ in range(history.THREADS + 2)]
        await asyncio.to_thread(store.wait_for_readers, history.THREADS)
        assert (await client.answer("/api/v1/marketdata"))[0] == 503  # from memory, at once
        assert (await client.answer("/openapi.json"))[0] == 200
        store.hold(is_held=False)
        assert [status for status, _ in await asyncio.gather(*held)] == [200] * len(held)
        assert store.interrupted == 0


async def test_the_gateway_stops_while_a_store_is_held(store):
    async with gateway_of(NOBODY, store="plain:it", **LASTING) as client:
        store.hold(is_held=True)
        asking = asyncio.create_task(client.answer(TRADES))
        await asyncio.to_thread(store.wait_for_reader_of, "AAPL")
    with contextlib.suppress(Exception):  # it may be answered or cut off
        await asking
    await asyncio.to_thread(store.wait_for_readers, 0)
    assert store.interrupted >= 1


async def test_what_reaches_the_store_is_limited(store, no_refill):
    settings = LASTING | {"upstream_requests_per_s": 1, "upstream_burst": 3}
    async with gateway_of(NOBODY, store="plain:it", **settings) as client:
        left = []
        for path in (TRADES, SYMBOLS, TRADES):
            async with client.get(path) as response:
                assert response.status == 200
                left.append(response.headers["RateLimit"])
        assert left == ['"upstream";r=2', '"upstream";r=1', '"upstream";r=0;t=1']
        for path in (TRADES, SYMBOLS):
            async with client.get(path) as response:
                assert response.status == 429
                assert 1 <= int(response.headers["Retry-After"]) <= 3
                assert response.headers["RateLimit-Policy"] == '"upstream";q=3;w=3'
                assert response.headers["RateLimit"].startswith('"upstream";r=0;t=')
                answer = await response.json()
            assert (answer["data"], answer["error"]) == (None, "too_many_requests")
        # What is wrong before it reaches the store is told first.
        assert (await client.answer(f"{TRADES}?limit=0"))[0] == 400


async def outcomes(client):
    """What became of the questions to the store."""
    async with client.get("/metrics") as response:
        text = await response.text()
    found = re.findall(r'mdtool_store_calls_total\{outcome="(\w+)"\} (\d+)', text)
    return [(outcome, int(count)) for outcome, count in found]


async def until_store(client, *, is_there):
    """What /health says of the store, as soon as that is so."""
    while True:
        store = (await client.answer("/health"))[1]["store"]
        if store["connected"] == is_there:
            return store


async def test_health_metrics_and_the_log_tell_of_the_store(store, monkeypatch, caplog):
    monkeypatch.setattr("mdtool.services.gateway.history.CHECK_S", 0.01)
    caplog.set_level(logging.INFO, history.__name__)
    there = STORES.pop("it")
    async with gateway_of(NOBODY, store="plain:it", **LASTING) as client:
        told = await until_store(client, is_there=False)
        while told["message"] == "not checked yet":
            told = await until_store(client, is_there=False)
        message = "plain it: there is no such store yet"
        assert told == {"address": "plain it", "connected": False, "message": message}
        async with client.get("/metrics") as response:
            assert "mdtool_store_up 0.0" in await response.text()
        STORES["it"] = there
        told = await until_store(client, is_there=True)
        assert told == {"address": "plain it", "connected": True, "message": None}
        async with client.get("/metrics") as response:
            assert "mdtool_store_up 1.0" in await response.text()
        there.error = StoreUnavailableError("plain it: its disk is gone")
        assert "its disk is gone" in (await until_store(client, is_there=False))["message"]
    assert [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == history.__name__
    ] == [
        ("INFO", f"store {message}; waiting for it"),
        ("INFO", "store plain it: connected"),
        (
            "WARNING",
            "store plain it: its disk is gone; reconnecting, and serving no history",
        ),
    ]


async def graphql(client, query, **variables):
    """The answer to a GraphQL query."""
    async with client.post("/graphql", json={"query": query, "variables": variables}) as response:
        assert response.status == 200
        return await response.json()


PAGE = """query ($symbol: String! = "AAPL", $limit: Int! = 100, $before: String) {
  trades(symbol: $symbol, limit: $limit, before: $before) {
    trades { timestamp price volume } nextCursor
  }
}"""


async def test_graphql_has_the_same_pages_and_cursors(client):
    cursor = None
    for n in (4, 2):
        before = {"before": cursor} if cursor else {}
        answer = await graphql(client, PAGE, limit=4, **before)
        page = answer["data"]["trades"]
        query = "&".join([f"{TRADES}?limit=4", *(f"before={cursor}" for _ in before)])
        _, rest = await client.answer(query)
        assert page["trades"] == rest["data"]["data"]
        assert len(page["trades"]) == n
        assert page["nextCursor"] == rest["data"]["pagination"]["next_cursor"]
        cursor = page["nextCursor"]
    assert cursor is None


async def test_graphql_has_the_same_symbols(client):
    answer = await graphql(client, "{ storedSymbols { symbol tradeCount lastTradeAt } }")
    _, rest = await client.answer(SYMBOLS)
    assert [
        {
            "symbol": each["symbol"],
            "trade_count": int(each["tradeCount"]),
            "last_trade_at": each["lastTradeAt"],
        }
        for each in answer["data"]["storedSymbols"]
    ] == rest["data"]["available"]


async def test_graphql_has_null_for_an_unknown_symbol(client):
    assert await graphql(client, PAGE, symbol="NONE") == {"data": {"trades": None}}


@pytest.mark.parametrize(
    "variables",
    [
        {"limit": 0},
        {"limit": 1_001},
        {"before": "rubbish"},
        {"before": AAPL_CURSOR, "symbol": "MSFT"},
        {"symbol": ""},
    ],
)
async def test_graphql_tells_what_is_bad(client, variables):
    answer = await graphql(client, PAGE, **variables)
    assert answer["data"] == {"trades": None}
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_graphql_tells_that_there_is_no_history():
    async with MarketSource().serving() as source, gateway_of(source.address) as client:
        answer = await graphql(client, "{ storedSymbols { symbol } symbols }")
        assert answer["data"]["storedSymbols"] is None
        assert "UNAVAILABLE" in {error["extensions"]["code"] for error in answer["errors"]}


async def test_graphql_is_told_in_time_and_shares_the_limit(store, no_refill):
    settings = LASTING | {"timeout_ms": 50, "upstream_requests_per_s": 1, "upstream_burst": 1}
    store.hold(is_held=True)
    async with gateway_of(NOBODY, store="plain:it", **settings) as client:
        answer = await graphql(client, PAGE)
        assert answer["errors"][0]["extensions"]["code"] == "TIMEOUT"
        answer = await graphql(client, PAGE)
        assert answer["errors"][0]["extensions"]["code"] == "TOO_MANY_REQUESTS"
