"""What every feed of the table owes the clients of every protocol, through a running gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from aiohttp import WSServerHandshakeError

from mdtool.services.gateway.feeds.feed import ALL
from mdtool.services.gateway.table import TABLE
from tests.reference.market_source import MarketSource
from tests.support.feed_followers import (
    FOLLOWERS,
    ClosedError,
    PlainFollower,
    RejectedError,
    StreamFollower,
    follower_of,
    pairs,
)
from tests.support.feed_sources import SOURCES, world_of
from tests.support.gateways import gateway_of
from tests.support.waiting import bounded

pytestmark = pytest.mark.usefixtures("kernels", "books_are_polled_often", "clients_may_pause")

ROWS = list(TABLE.values())
SOCKETS = [kind for kind in FOLLOWERS if kind != "polling"]
SLOW_ROUNDS = 30
SLOW_SYMBOLS = [f"S{number}" for number in range(300)]
"""So many of each that neither the system nor the client's library can keep all of it."""


def can_change(pair) -> bool:
    """Whether a symbol is published more than once."""
    (row, _) = pair.values
    return row.name not in SOURCES or not SOURCES[row.name].is_once


@contextlib.asynccontextmanager
async def known(row, **cents: int):
    """A world in which some symbols of a feed are known, with prices in cents, and its source."""
    source = SOURCES[row.name]
    async with world_of(source) as world:
        if cents:
            await source.change(world, cents)
            await seen(world, row, **cents)
        yield world, source


async def seen(world, row, **cents: int) -> None:
    """Wait until the gateway publishes symbols with prices."""
    source = SOURCES[row.name]
    async with follower_of(StreamFollower, world.client) as follower:
        for number, (symbol, price) in enumerate(cents.items()):
            await follower.subscribe(row, symbol, number)
            await follower.until(symbol, source.shown(price), source)
            await follower.unsubscribe(number)


def test_every_feed_of_the_table_is_tested():
    assert set(SOURCES) == set(TABLE)


@pytest.mark.parametrize(("row", "kind"), pairs())
async def test_a_subscription_begins_with_the_current_state_and_has_each_change(row, kind):
    async with (
        known(row, AAPL=101, MSFT=555) as (world, source),
        follower_of(kind, world.client) as follower,
    ):
        await follower.subscribe(row, "AAPL")
        first = await follower.update()
        assert first.symbol == "AAPL"
        assert source.cents(first.row) == source.shown(101)
        if not source.is_once:
            for cents in (102, 103, 104):
                await source.change(world, {"MSFT": cents})
                await source.change(world, {"AAPL": cents})
                update = await follower.update()
                assert (update.symbol, source.cents(update.row)) == ("AAPL", cents)


@pytest.mark.parametrize(("row", "kind"), pairs())
async def test_an_unknown_symbol_is_followed_from_its_first_data_on(row, kind):
    async with (
        known(row, AAPL=101) as (world, source),
        follower_of(kind, world.client) as follower,
    ):
        await follower.subscribe(row, "NEW")
        if kind is PlainFollower:
            assert (await follower.update()).row["error"] == "not_found"
        await source.change(world, {"AAPL": 102})
        await source.change(world, {"NEW": 203})
        update = await follower.update()
        assert update.symbol == "NEW"
        assert source.cents(update.row) == source.shown(203)


@pytest.mark.parametrize(("row", "kind"), pairs(ALL))
async def test_every_symbol_can_be_followed_at_once(row, kind):
    async with (
        known(row, AAPL=101, MSFT=102) as (world, source),
        follower_of(kind, world.client) as follower,
    ):
        await follower.subscribe(row, ALL)
        current = [await follower.update() for _ in range(2)]
        assert sorted(update.symbol for update in current) == ["AAPL", "MSFT"]
        await source.change(world, {"NEW": 203})
        update = await follower.update()
        assert update.symbol == "NEW"
        assert source.cents(update.row) == source.shown(203)


@pytest.mark.parametrize(("row", "kind"), pairs(ALL, has_unsubscribe=True))
async def test_nothing_follows_the_end_of_a_subscription(row, kind):
    async with (
        known(row, AAPL=101) as (world, source),
        follower_of(kind, world.client) as follower,
        follower_of(StreamFollower, world.client) as other,
    ):
        await follower.subscribe(row, ALL)
        await follower.update()
        await follower.unsubscribe()
        await other.subscribe(row, ALL)
        await source.change(world, {"NEW": 203})
        await other.until("NEW", source.shown(203), source)
        await follower.quiet()
        await follower.subscribe(row, ALL, 2)
        assert {(await follower.update()).symbol for _ in range(2)} == {"AAPL", "NEW"}


@pytest.mark.parametrize(("row", "kind"), [each for each in pairs(ALL) if can_change(each)])
async def test_a_slow_client_has_the_latest_states_or_the_number_of_missed_events(row, kind):
    async with (
        known(row, S0=1) as (world, source),
        follower_of(kind, world.client) as slow,
        follower_of(StreamFollower, world.client) as fast,
    ):
        await fast.subscribe(row, "S0")
        await slow.subscribe(row, ALL)
        await slow.update()  # what changes from now on is behind it
        for cents in range(2, SLOW_ROUNDS + 2):
            await source.change(world, dict.fromkeys(SLOW_SYMBOLS, cents))
            await fast.until("S0", cents, source)
        received, missed = 1, 0
        behind = set(SLOW_SYMBOLS)
        while behind:
            update = await slow.update()
            if update.row:
                received += 1
                if source.cents(update.row) == SLOW_ROUNDS + 1:
                    behind.discard(update.symbol)
            else:
                missed += update.missed
        sent = 1 + SLOW_ROUNDS * len(SLOW_SYMBOLS)
        assert received < sent
        assert received + missed == sent if row.has_events else not missed


@pytest.mark.parametrize(("row", "kind"), pairs())
async def test_a_client_that_leaves_is_forgotten(row, kind):
    async with known(row, AAPL=101) as (world, _):
        async with follower_of(kind, world.client) as follower:
            await follower.subscribe(row, "AAPL")
            await follower.update()
            await until_open(world.client, 1)  # and of others, before it, none is left
            if kind is FOLLOWERS["polling"]:
                await follower.send(b"DISCONNECT\n\n\0")
                with pytest.raises(ClosedError):
                    await follower.receive()
                return  # its session outlives it for a while
        await until_open(world.client, 0)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_rest_and_graphql_have_the_current_state(row):
    async with known(row, AAPL=101, MSFT=102) as (world, source):
        status, every = await world.client.answer(f"/api/v2/{row.name}")
        assert (status, every["error"]) == (200, None)
        assert {each["symbol"] for each in every["data"]} == {"AAPL", "MSFT"}
        if not row.is_whole:
            status, one = await world.client.answer(f"/api/v2/{row.name}/aapl")
            assert (status, one["error"]) == (200, None)
            data = one["data"][0] if row.has_history else one["data"]
            assert (data["symbol"], source.cents(data)) == ("AAPL", 101)
            assert data in every["data"]
        if not row.has_events:
            status, some = await world.client.answer(f"/api/v2/{row.name}?symbols=AAPL,NONE")
            assert [each["symbol"] for each in some["data"]] == ["AAPL"]
        rows = await graphql(world.client, row, source, "AAPL")
        assert [(each["symbol"], source.cents(each)) for each in rows] == [
            ("AAPL", source.shown(101))
        ]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_rest_and_graphql_have_nothing_of_an_unknown_symbol(row):
    async with known(row, AAPL=101) as (world, source):
        if not row.is_whole:
            status, content = await world.client.answer(f"/api/v2/{row.name}/NONE")
            assert status == 404
            assert content["data"] is content["next"] is None
            assert content["error"]["code"] == "not_found"
        assert await graphql(world.client, row, source, "NONE") == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_stream_has_the_rows_of_rest_and_names_unknown_symbols(row):
    async with (
        known(row, AAPL=101) as (world, source),
        follower_of(StreamFollower, world.client) as follower,
    ):
        await follower.say(op="subscribe", id=7, channel=row.name, symbols=["AAPL", "NEW"])
        unknown = {} if source.is_requested else {"unknown": ["NEW"]}
        assert await follower.json() == {"id": 7, "ok": True, **unknown}
        message = await follower.json()
        _, content = await world.client.answer(f"/api/v2/{row.name}")
        (data,) = content["data"]
        mark = {"snapshot": True} if row.has_events else {}
        expected = {"id": 7, "channel": row.name, "symbol": "AAPL", **mark, "data": data}
        assert message == expected


@pytest.mark.parametrize("name", FOLLOWERS)
async def test_connections_are_bounded(name):
    kind = FOLLOWERS[name]
    row = TABLE["quotes"] if kind is PlainFollower else ROWS[0]
    async with MarketSource().serving() as source:
        source.trade("AAPL", 1.0, 1)
        for setting, status in (("max_sockets", 503), ("client_sockets", 429)):
            async with (
                gateway_of(source.address, **{setting: 1}) as client,
                follower_of(kind, client) as first,
            ):
                await first.subscribe(row, "AAPL")
                await first.update()
                with pytest.raises((WSServerHandshakeError, ClosedError)) as error:
                    async with follower_of(kind, client) as second:
                        await second.subscribe(row, "AAPL")
                assert status in (getattr(error.value, "status", None), *error.value.args)
                metrics = await (await client.get("/metrics")).text()
                line = f'mdtool_sockets_refused_total{{path="{first.listener}"}} 1.0'
                assert line in metrics


@pytest.mark.parametrize("name", ["stream", "stomp", "sockjs", "polling", "graphql"])
async def test_subscriptions_of_a_connection_are_bounded(name):
    async with (
        MarketSource().serving() as source,
        gateway_of(source.address) as client,
        follower_of(FOLLOWERS[name], client) as follower,
    ):
        with pytest.raises((RejectedError, ClosedError), match="100"):
            await _subscribe_often(follower)


async def _subscribe_often(follower) -> None:
    for number in range(101):
        await follower.subscribe(ROWS[0], "NONE", number)
    await follower.update()


@pytest.mark.parametrize("name", SOCKETS)
async def test_clients_get_a_code_when_the_gateway_stops(name):
    kind = FOLLOWERS[name]
    row = TABLE["quotes"] if kind is PlainFollower else ROWS[0]
    async with MarketSource().serving() as source, contextlib.AsyncExitStack() as stack:
        source.trade("AAPL", 1.0, 1)
        async with gateway_of(source.address) as client:
            follower = await stack.enter_async_context(follower_of(kind, client))
            await follower.subscribe(row, "AAPL")
            await follower.update()
            closed = asyncio.create_task(_read_to_the_end(follower))
        with pytest.raises(ClosedError) as error:
            await closed
        assert error.value.args == (1001,)


async def _read_to_the_end(follower) -> None:
    while True:  # what changed just before the subscription may come twice
        await follower.update()


async def graphql(client, row, source, symbol: str) -> list[dict]:
    """The rows of a symbol in a query's response."""
    selection = source.selection
    if source.page_field:
        selection = f"{source.page_field} {{ {selection} }}"
    query = f'{{ {row.graphql_field}(symbol: "{symbol}") {{ {selection} }} }}'
    async with client.post("/graphql", json={"query": query}) as response:
        content = await response.json()
    assert "errors" not in content, json.dumps(content)
    data = content["data"][row.graphql_field]
    if source.page_field and data is not None:
        data = data[source.page_field]
    return [] if data is None else data if isinstance(data, list) else [data]


async def until_open(client, count: int) -> None:
    """Wait until a gateway counts so many connections; one that was closed counts a moment more."""
    async with bounded():
        while (await client.answer("/health"))[1]["sockets"] != count:
            pass
