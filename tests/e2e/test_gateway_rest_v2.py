"""REST version 2: one envelope, lists and histories by pages, over real services."""

from __future__ import annotations

import contextlib

import pytest

from tests.support.aggregators import NOON_NS, aggregator, message, tick
from tests.support.feed_sources import GATEWAY_FOLLOWS, followers_of_trades
from tests.support.gateways import connected, gateway_of
from tests.support.vwap_feeds import vwap_feed
from tests.support.waiting import bounded

NOON = "2024-12-26T12:00:00.000000000Z"
ANY_RATE = {"memory_requests_per_s": 0, "upstream_requests_per_s": 0}
SYMBOLS = [f"S{number:03}" for number in range(300)]


@contextlib.asynccontextmanager
async def market_of(**settings):
    """A client of a gateway, and the aggregator behind it, in which AAPL has traded three times."""
    store = {"store": settings["store"]} if "store" in settings else {}
    with followers_of_trades() as followers:
        async with (
            aggregator(**store) as running,
            gateway_of(running.address, **ANY_RATE | settings) as client,
        ):
            for _ in range(1 if store else GATEWAY_FOLLOWS):
                await followers.acquire()
            ticks = [tick(18_725, 100), tick(18_850, 2, at_s=60), tick(18_700, 3, at_s=61)]
            await running.send(message(0, ticks, ["AAPL"]))
            await connected(client)
            yield client, running


async def data(client, path):
    """The data of an answer, and its cursor."""
    status, answer = await client.answer(path)
    assert status == 200, answer
    assert answer["error"] is None
    assert list(answer) == ["data", "next", "error"]
    return answer["data"], answer["next"]


async def pages(client, path, **query):
    """The data of all pages."""
    found, cursor = [], None
    sign = "&" if "?" in path else "?"
    while not found or cursor is not None:
        rows, cursor = await data(client, path + (f"{sign}cursor={cursor}" if cursor else ""))
        found.append(rows)
    return found


async def test_an_aggregate_has_exact_decimals_and_times_with_nanoseconds():
    async with market_of() as (client, _):
        assert await data(client, "/api/v2/aggregates/aapl") == (
            {
                "symbol": "AAPL",
                "open": "187.25",
                "high": "188.5",
                "low": "187",
                "close": "187",
                "volume": "105",
                "trades": "3",
                "timestamp": "2024-12-26T12:01:01.000000000Z",
            },
            None,
        )


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("none", 404, "not_found"),
        ("aggregates/NONE", 404, "not_found"),
        ("aggregates/*", 404, "not_found"),
        ("aggregates/%00", 400, "bad_parameter"),
        ("aggregates?limit=0", 400, "bad_parameter"),
        ("aggregates?limit=10001", 400, "bad_parameter"),
        ("aggregates?order=up", 400, "bad_parameter"),
        ("aggregates?cursor=none", 400, "bad_parameter"),
        ("bars/AAPL?interval=x", 400, "bad_parameter"),
        ("bars/AAPL?interval=7m", 400, "bad_parameter"),
        ("bars/AAPL?from=yesterday", 400, "bad_parameter"),
        ("bars/AAPL?cursor=none", 400, "bad_parameter"),
        ("bars/NONE", 404, "not_found"),
        ("bars/*", 404, "not_found"),
        ("trades/*", 404, "not_found"),
        ("trades/NONE", 404, "not_found"),
        ("trades/AAPL?to=1e9", 400, "bad_parameter"),
        ("quotes/NONE", 404, "not_found"),
        ("books/AAPL", 503, "unavailable"),
        ("books/AAPL?depth=101", 400, "bad_parameter"),
        ("vwap/AAPL", 503, "unavailable"),
    ],
)
async def test_errors_have_a_code_and_a_message(path, status, code):
    async with market_of(attempts=1, vwap="127.0.0.1:1") as (client, _):
        found, answer = await client.answer(f"/api/v2/{path}")
        assert (found, answer["data"], answer["next"]) == (status, None, None)
        assert answer["error"]["code"] == code
        assert answer["error"]["message"]


async def test_a_client_over_its_limit_is_told_so_in_the_same_envelope(no_refill):
    async with market_of(memory_requests_per_s=5) as (client, _):
        for _ in range(20):
            status, answer = await client.answer("/api/v2/symbols")
        assert (status, answer["error"]["code"]) == (429, "too_many_requests")


@pytest.mark.parametrize("feed", ["aggregates", "symbols", "bars", "quotes"])
async def test_a_list_has_every_symbol_once_in_both_orders(feed):
    async with aggregator() as running, gateway_of(running.address, **ANY_RATE) as client:
        ticks = [tick(100, symbol=number) for number in range(len(SYMBOLS))]
        await running.send(message(0, ticks, SYMBOLS))
        async with bounded():
            while (await client.answer(f"/api/v2/aggregates/{SYMBOLS[-1]}"))[0] != 200:
                pass
        for order, expected in (("asc", SYMBOLS), ("desc", SYMBOLS[::-1])):
            found = await pages(client, f"/api/v2/{feed}?limit=70&order={order}")
            assert [len(page) for page in found] == [70, 70, 70, 70, 20]
            assert [row["symbol"] for page in found for row in page] == expected
        rows, cursor = await data(client, f"/api/v2/{feed}?limit=300")
        assert (len(rows), cursor) == (300, None)


@pytest.mark.parametrize("feed", ["aggregates", "quotes", "bars"])
async def test_a_list_may_name_its_symbols(feed):
    async with market_of() as (client, running):
        await running.send(message(3, [tick(18_725, 100)], ["MSFT"]))
        await connected(client)
        async with bounded():
            while len((await data(client, f"/api/v2/{feed}"))[0]) < 2:
                pass
        everything, _ = await data(client, f"/api/v2/{feed}?symbols=MSFT&symbols=none,aapl")
        assert {row["symbol"] for row in everything} == {"AAPL", "MSFT"}
        page, cursor = await data(client, f"/api/v2/{feed}?symbols=MSFT&limit=1")
        assert [row["symbol"] for row in page] == ["MSFT"]
        assert cursor is None


async def test_the_latest_trades_of_some_symbols_are_paged():
    async with market_of() as (client, running):
        await running.send(message(3, [tick(18_725, 100)], ["MSFT"]))
        await running.send(message(4, [tick(1_000, 1, at_s=9)], ["GOOG"]))
        async with bounded():
            while not (await data(client, "/api/v2/trades?symbols=goog"))[0]:
                pass
        found = await pages(client, "/api/v2/trades?symbols=MSFT&symbols=none,aapl&limit=2")
        assert [len(page) for page in found] == [2, 2]
        symbols = [trade["symbol"] for page in found for trade in page]
        assert sorted(symbols) == ["AAPL", "AAPL", "AAPL", "MSFT"]
        assert (await data(client, "/api/v2/trades?symbols=none"))[0] == []
        assert len((await data(client, "/api/v2/trades"))[0]) == 5


async def test_bars_are_paged_by_time_in_both_orders():
    async with aggregator() as running, gateway_of(running.address, **ANY_RATE) as client:
        ticks = [tick(100 + minute, at_s=60 * minute) for minute in range(10)]
        await running.send(message(0, ticks, ["AAPL"]))
        await connected(client)

        async def minutes(query):
            found = await pages(client, f"/api/v2/bars/AAPL?interval=1m&{query}")
            return [[int(bar["start"][14:16]) for bar in page] for page in found]

        assert await minutes("limit=4") == [[9, 8, 7, 6], [5, 4, 3, 2], [1, 0]]
        assert await minutes("limit=6&order=asc") == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]
        part = f"from={NOON_NS + 120 * 10**9}&to=2024-12-26T12:07:00Z"
        assert await minutes(f"limit=3&{part}") == [[6, 5, 4], [3, 2]]
        assert await minutes(f"limit=3&order=asc&{part}") == [[2, 3, 4], [5, 6]]
        rows, _ = await data(client, "/api/v2/bars/AAPL?limit=1")
        assert rows == [
            {
                "symbol": "AAPL",
                "start": "2024-12-26T12:09:00.000000000Z",
                **dict.fromkeys(("open", "high", "low", "close"), "1.09"),
                "volume": "1",
                "trades": "1",
            }
        ]


@pytest.mark.parametrize("is_stored", [False, True], ids=["in memory", "stored"])
async def test_trades_are_paged_from_memory_and_from_a_store(tmp_path, is_stored):
    settings = {"store": f"sqlite:///{tmp_path}/trades.db"} if is_stored else {}
    async with market_of(**settings) as (client, running):
        await running.send(message(3, [tick(18_800, 4, at_s=59)], ["AAPL"]))
        path = "/api/v2/trades/AAPL"
        async with bounded():
            while len((await data(client, path))[0]) < 4:
                pass
        newest, _ = await data(client, f"{path}?limit=1")
        assert newest == [
            {
                "symbol": "AAPL",
                "sequence": "s:2",
                "timestamp": "2024-12-26T12:01:01.000000000Z",
                "price": "187",
                "size": "3",
            }
        ]

        async def sequences(query):
            return [
                [int(trade["sequence"].removeprefix("s:")) for trade in page]
                for page in await pages(client, f"{path}?{query}")
            ]

        assert await sequences("limit=3") == [[2, 1, 3], [0]]
        assert await sequences("limit=3&order=asc") == [[0, 3, 1], [2]]
        assert await sequences(f"limit=1&from={NOON}&to=2024-12-26T12:01:00Z") == [[3], [0]]
        assert await sequences("limit=9&from=2024-12-26T12:01:01Z&order=asc") == [[2]]
        _, cursor = await data(client, f"{path}?limit=1")
        assert (await client.answer(f"/api/v2/trades/MSFT?cursor={cursor}"))[0] in {400, 404}
        everything, _ = await data(client, "/api/v2/trades?limit=2")
        assert is_stored or [trade["sequence"] for trade in everything] == ["s:2", "s:1"]


async def test_what_is_stale_says_so():
    async with contextlib.AsyncExitStack() as stack:
        async with aggregator() as running:
            client = await stack.enter_async_context(gateway_of(running.address, **ANY_RATE))
            await running.send(message(0, [tick(100)], ["AAPL"]))
            await connected(client)
            await data(client, "/api/v2/bars/AAPL")
        async with bounded():
            while "stale" not in (await data(client, "/api/v2/aggregates/AAPL"))[0]:
                pass
        for path in ("aggregates/AAPL", "aggregates"):
            async with client.get(f"/api/v2/{path}") as response:
                assert response.headers["Warning"].startswith("110")


async def test_an_optional_parameter_may_be_empty():
    async with market_of() as (client, _):
        for path, query in (
            ("aggregates", "limit=&order=&cursor="),
            ("bars/AAPL", "interval=&limit=&order=&cursor=&from=&to="),
            ("bars", "interval="),
            ("trades/AAPL", "limit=&order=&cursor=&from=&to="),
        ):
            expected = await data(client, f"/api/v2/{path}")
            assert await data(client, f"/api/v2/{path}?{query}") == expected
        bars = "/api/v1/bars/AAPL"
        expected = await client.answer(bars)
        assert await client.answer(f"{bars}?interval=&limit=&before=") == expected


async def test_a_wrong_method_has_the_envelope_and_names_the_right_one():
    async with market_of() as (client, _):
        async with client.post("/api/v2/aggregates/AAPL") as response:
            answer = await response.json()
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
        assert (answer["data"], answer["next"]) == (None, None)
        assert answer["error"]["code"] == "method_not_allowed"


async def test_vwap_comes_from_its_service_and_outlives_it():
    async with contextlib.AsyncExitStack() as stack:
        async with aggregator() as running, vwap_feed(running.address) as address:
            client = await stack.enter_async_context(
                gateway_of(running.address, vwap=address, **ANY_RATE)
            )
            async with bounded():
                while (await client.answer("/api/v2/vwap"))[0] == 503:
                    pass
            status, answer = await client.answer("/api/v2/vwap/AAPL")
            assert (status, answer["error"]["code"]) == (404, "not_found")
            await running.send(message(0, [tick(100, 1), tick(200, 3, at_s=1)], ["AAPL"]))
            expected = {
                "symbol": "AAPL",
                "vwap": "1.75",
                "price": "2",
                "size": "3",
                "window": "2",
                "timestamp": "2024-12-26T12:00:01.000000000Z",
            }
            async with bounded():
                while (await data(client, "/api/v2/vwap"))[0] != [expected]:
                    pass  # nothing yet, or the first trade alone
        async with bounded():
            while "stale" not in (found := (await data(client, "/api/v2/vwap/AAPL"))[0]):
                pass
        assert found == {**expected, "stale": True}
