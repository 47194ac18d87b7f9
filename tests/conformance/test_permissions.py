"""Who sees what: every feed of the table through every protocol, in every role."""

from __future__ import annotations

import contextlib
import json

import pytest
from aiohttp import WSServerHandshakeError

from mdtool.core.permissions import Grant
from mdtool.services.gateway import server
from mdtool.services.gateway.feeds.feed import ALL
from mdtool.services.gateway.policies import policies
from mdtool.services.gateway.table import TABLE
from mdtool.services.http.entry import OPEN
from tests.reference.permissions import may_read
from tests.support.feed_followers import (
    ClosedError,
    PlainFollower,
    RejectedError,
    StreamFollower,
    bearer,
    follower_of,
    pairs,
)
from tests.support.feed_sources import SOURCES, world_of
from tests.support.tokens import ROLES, Keys, required_by_gateways
from tests.support.waiting import bounded

pytestmark = pytest.mark.usefixtures("kernels", "books_are_polled_often", "clients_may_pause")

ROWS = list(TABLE.values())
READING = ["all", "some", "denied"]
REFUSED = (RejectedError, ClosedError, WSServerHandshakeError, AssertionError)


def may(role, row, symbol):
    grants = [Grant.parse(ROLES[role])]
    return may_read(grants, row.name, symbol)


@pytest.fixture
def keys(tmp_path, monkeypatch):
    """Keys of each role, one of which a gateway requires."""
    made = Keys(tmp_path)
    required_by_gateways(monkeypatch, made.security)
    return made


@contextlib.asynccontextmanager
async def known(keys, row, **cents):
    """A world in which a gateway knows symbols, and one who follows all of them."""
    source = SOURCES[row.name]
    async with (
        world_of(source) as world,
        follower_of(StreamFollower, world.client, keys["all"]) as all_,
    ):
        await all_.subscribe(row, ALL)

        async def change(**cents):
            await source.change(world, cents)
            for symbol, price in cents.items():
                await all_.until(symbol, source.shown(price), source)

        await change(**cents)
        yield world, change


@pytest.mark.parametrize(("row", "kind"), pairs(ALL))
async def test_of_every_symbol_those_are_followed_that_the_role_may_read(row, kind, keys):
    async with (
        known(keys, row, AAPL=101, MSFT=102) as (world, change),
        contextlib.AsyncExitStack() as stack,
    ):
        followers = {}
        for role in READING:
            follower = await stack.enter_async_context(follower_of(kind, world.client, keys[role]))
            await follower.subscribe(row, ALL)
            expected = [symbol for symbol in ("AAPL", "MSFT") if may(role, row, symbol)]
            first = [(await follower.update()).symbol for _ in expected]
            assert sorted(first) == expected, role
            followers[role] = follower
        # Symbols that appear later, the hidden one first; what comes next is in this order.
        await change(SECRET=201)
        await change(NEW=202)
        for role, follower in followers.items():
            expected = [symbol for symbol in ("SECRET", "NEW") if may(role, row, symbol)]
            assert [(await follower.update()).symbol for _ in expected] == expected, role
            if kind is not PlainFollower:
                await follower.quiet()


@pytest.mark.parametrize(("row", "kind"), pairs("MSFT"))
async def test_of_a_symbol_that_may_not_be_read_nothing_comes_and_it_looks_unknown(row, kind, keys):
    async with known(keys, row, AAPL=101, MSFT=102) as (world, change):
        for role in ("some", "denied"):
            async with follower_of(kind, world.client, keys[role]) as follower:
                # Only the plain WebSocket is to several symbols by one subscription.
                await follower.subscribe(row, "MSFT,AAPL" if kind is PlainFollower else "MSFT")
                if kind is StreamFollower:
                    assert follower.unknown == ["MSFT"]
                await change(MSFT=103 + len(role)) if not SOURCES[row.name].is_once else None
                if kind is PlainFollower:
                    assert (await follower.update()).row["error"] == "not_found"
                    assert (await follower.update()).symbol == "AAPL"
                else:
                    await follower.quiet()


@pytest.mark.parametrize(
    ("row", "kind"), pairs(ALL) + [p for p in pairs("AAPL") if p not in pairs(ALL)]
)
async def test_without_the_feed_or_a_valid_token_there_is_no_subscription(row, kind, keys):
    revoked = "mdt_0000000000000000_revoked"
    async with world_of(SOURCES[row.name]) as world:
        for token in (keys["elsewhere"], revoked, None):
            for symbol in (ALL, "AAPL"):
                if not kind.can_follow(row, symbol):
                    continue
                with pytest.raises(REFUSED):
                    await follow(kind, world, token, row, symbol)


async def follow(kind, world, token, row, symbol):
    async with follower_of(kind, world.client, token) as follower:
        await follower.subscribe(row, symbol)
        await follower.update()


async def answered(world, path, token, **options):
    async with world.client.request(
        options.pop("method", "GET"), path, headers=bearer(token), **options
    ) as response:
        return response.status, await response.text()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_rest_shows_what_the_role_may_read_and_the_rest_is_as_if_it_were_not(row, keys):
    async with known(keys, row, AAPL=101, MSFT=102, NEW=103) as (world, _):
        path = f"/api/v2/{row.name}"
        for role in READING:
            token = keys[role]
            expected = [s for s in ("AAPL", "MSFT", "NEW") if may(role, row, s)]
            status, text = await answered(world, path, token)
            assert status == 200, text
            assert sorted(each["symbol"] for each in json.loads(text)["data"]) == expected
            # One row a page, so that each cursor is of a row that may be read.
            found, cursor = [], ""
            while cursor is not None:
                _, text = await answered(world, f"{path}?limit=1&cursor={cursor}", token)
                page = json.loads(text)
                found += [each["symbol"] for each in page["data"]]
                cursor = page["next"]
            assert sorted(found) == expected, role
            if row.is_whole:
                continue
            for symbol in ("AAPL", "MSFT", "NEW"):
                answer = await answered(world, f"{path}/{symbol}", token)
                if symbol in expected:
                    assert answer[0] == 200, answer
                elif not row.has_history or role != "all":
                    absent = await answered(world, f"{path}/ABSENT", token)
                    assert (answer[0], answer[1].replace(symbol, "ABSENT")) == absent
                    assert answer[0] == 404
                if symbol not in expected:
                    for written in (symbol.lower(), f"{symbol}%20"):
                        assert (await answered(world, f"{path}/{written}", token))[0] == 404
        assert (await answered(world, path, keys["elsewhere"]))[0] == 403
        for token in (None, "mdt_0_0", "a.b.c"):
            status, text = await answered(world, path, token)
            assert status == 401
            assert token is None or token not in text


V1 = {
    "/api/v1/marketdata": "aggregates",
    "/api/v1/marketdata/MSFT": "aggregates",
    "/api/v1/bars/MSFT": "bars",
    "/v1/quotes": "quotes",
    "/v1/quotes?symbol=MSFT": "quotes",
    "/v1/quotes?symbol=msft": "quotes",
    "/v1/quotes?symbols=AAPL,MSFT": "quotes",
    "/api/v1/marketdata?symbols=AAPL,MSFT": "aggregates",
}


@pytest.mark.parametrize("path", V1)
async def test_version_1_shows_what_the_role_may_read(path, keys):
    row = TABLE[V1[path]]
    async with known(keys, row, AAPL=101, MSFT=102) as (world, _):
        answers = {}
        for role in (*READING, *READING):  # the second time, answers may be known
            status, text = await answered(world, path, keys[role])
            if "MSFT" in path.upper() and "," not in path:
                assert (status == 200) == may(role, row, "MSFT"), role
                if status != 200:
                    absent = path.upper().replace("MSFT", "ABSENT").replace("/V1/", "/v1/")
                    absent = absent.replace("/API/", "/api/").lower().replace("absent", "ABSENT")
                    expected = await answered(world, absent, keys[role])
                    assert (status, text.replace("MSFT", "ABSENT")) == expected
            else:
                expected = [symbol for symbol in ("AAPL", "MSFT") if may(role, row, symbol)]
                assert [each["symbol"] for each in json.loads(text)] == expected
            assert answers.setdefault(role, text) == text
        assert (await answered(world, path, keys["elsewhere"]))[0] == 403
        assert (await answered(world, path, None))[0] == 401


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_graphql_shows_what_the_role_may_read(row, keys):
    source = SOURCES[row.name]
    selection = source.selection
    if source.page_field:
        selection = f"{source.page_field} {{ {selection} }}"
    query = f"query($s: String!) {{ found: {row.graphql_field}(symbol: $s) {{ {selection} }} }}"
    async with known(keys, row, AAPL=101, MSFT=102) as (world, _):

        async def ask(role, symbol):
            given = {"query": query, "variables": {"s": symbol}}
            token = keys[role] if role else None
            status, text = await answered(world, "/graphql", token, method="POST", json=given)
            return status, json.loads(text)

        for role in READING:
            for symbol in ("AAPL", "MSFT"):
                _, answer = await ask(role, symbol)
                if may(role, row, symbol):
                    assert answer["data"]["found"], answer
                else:
                    assert answer == (await ask(role, "ABSENT"))[1]
                    assert not answer["data"]["found"]
        _, answer = await ask("elsewhere", "AAPL")
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        assert (await ask(None, "AAPL"))[0] == 401
        for role in READING:
            given = {"query": "{ symbols }"}
            _, text = await answered(world, "/graphql", keys[role], method="POST", json=given)
            expected = [s for s in ("AAPL", "MSFT") if may(role, TABLE["symbols"], s)]
            assert set(json.loads(text)["data"]["symbols"]) <= set(expected)
        for field in ("symbols", "storedSymbols { symbol }"):
            given = {"query": f"{{ {field} }}"}
            _, text = await answered(
                world, "/graphql", keys["elsewhere"], method="POST", json=given
            )
            assert json.loads(text)["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_every_route_has_a_policy_and_only_those_without_data_are_open(keys, monkeypatch):
    made = []
    mount = server._mount

    def noting(protocols, *rest):
        made.extend(protocols)
        mount(protocols, *rest)

    monkeypatch.setattr(server, "_mount", noting)
    async with world_of(SOURCES["quotes"]) as world:
        routes = {route for protocol in made for route in protocol.routes}
        known_policies = policies(ROWS)
        assert routes == set(known_policies)
        for method, path in sorted(routes):
            url = path.replace("{symbol}", "AAPL").replace("{server}", "0").replace("{name}", "x")
            url = url.replace("{session}", "s").replace("{path:.+}", "x")
            url = url.replace("{version:[0-9A-Za-z_.-]*}", "")
            policy = known_policies[method, path]
            if policy.is_in_band:
                continue
            async with bounded():
                status, _ = await answered(world, url, None, method=method)
                assert (status == 401) == (policy is not OPEN), (method, path, status)
                if policy.right:
                    status, _ = await answered(world, url, keys["some"], method=method)
                    assert status == 403, (method, path)
