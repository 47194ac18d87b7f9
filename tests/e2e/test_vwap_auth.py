"""Tokens of clients of the VWAP feed: what they see, now and later, and for how long."""

from __future__ import annotations

import asyncio
import json
import logging
import time

import pytest

from mdtool.adapters.identity import api_keys
from mdtool.adapters.identity.config import OPTIONAL
from tests.support.aggregators import aggregator, message, tick
from tests.support.services import logged
from tests.support.tokens import Keys
from tests.support.vwap_feeds import connected, vwap_feed
from tests.support.waiting import bounded


@pytest.fixture
def keys(tmp_path):
    return Keys(tmp_path)


@pytest.fixture
async def market(keys, monkeypatch, request):
    """An aggregator with trades of two symbols, and a feed that authenticates its clients."""
    async with aggregator() as running:
        keys.configure(monkeypatch, getattr(request, "param", "required"))
        with logged("mdtool.services.vwap", logging.DEBUG) as log:
            async with vwap_feed(running.address) as address:
                await log.heard("connected")
                await running.send(
                    message(0, [tick(100, 1), tick(200, 3, symbol=1)], ["AAPL", "MSFT"])
                )
                yield running, address


async def joined(client, token):
    client.say(f"AUTH {token}")
    return await client.next()


@pytest.mark.parametrize(
    "line",
    [
        "AUTH",
        "AUTH mdt_nobody",
        "AUTH Bearer x.y.z",
        "auth \N{SNOWMAN}",
        f"AUTH {'x' * 60_000}",
    ],
)
async def test_a_wrong_token_ends_the_connection(market, line):
    _, address = market
    async with bounded(), connected(address) as client:
        client.say("SUBSCRIBE *")
        assert (await client.next())["error"].startswith("token: missing")
        client.say(line)
        error = (await client.next())["error"]
        assert error.startswith("token: ")
        assert "x" * 30 not in error
        assert await client.reader.read() == b""


async def test_a_wrong_token_of_a_client_that_reads_slowly_ends_its_connection_once(market, keys):
    running, address = market
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    names = [f"{number}{'X' * 50}" for number in range(5_000)]
    ticks = [tick(100, symbol=number) for number in range(len(names))]
    async with bounded(), connected(address) as quick:
        await joined(quick, keys["all"])
        await running.send(message(2, ticks, names))
        await quick.until(symbol=names[-1])
    async with bounded(), connected(address, limit=1 << 12) as slow:
        slow.say(f"AUTH {keys['all']}", "AUTH nobody")  # handled once the states are read
        assert b'"error":"token: ' in (await slow.reader.read()).splitlines()[-1]
    assert errors == []


@pytest.mark.parametrize(
    ("role", "seen"),
    [("all", {"AAPL", "MSFT", "NEW"}), ("some", {"AAPL", "NEW"}), ("denied", {"AAPL", "NEW"})],
)
@pytest.mark.parametrize("subscription", [None, "SUBSCRIBE *", "SUBSCRIBE AAPL,MSFT,NEW"])
async def test_a_principal_sees_its_symbols_also_those_that_appear_later(
    market, keys, role, seen, subscription
):
    running, address = market
    async with bounded(), connected(address) as client:
        states = [await joined(client, keys[role])]
        if subscription is not None:
            client.say(subscription)
        await running.send(message(2, [tick(300, 1), tick(400, 3, symbol=1)], ["NEW", "MSFT"]))
        await running.send(message(4, [tick(900, 1)], ["AAPL"]))
        while states[-1]["price"] != 9:
            states.append(await client.next())
        assert {state["symbol"] for state in states} - {"AAPL"} <= seen
        while not seen <= {state["symbol"] for state in states}:
            states.append(await client.next())


async def test_without_the_feed_there_is_nothing(market, keys):
    _, address = market
    async with bounded(), connected(address) as client:
        assert "none of your roles" in (await joined(client, keys["elsewhere"]))["error"]
        assert await client.reader.read() == b""


@pytest.mark.parametrize("market", [OPTIONAL], indirect=True)
async def test_where_tokens_are_optional_a_client_may_authenticate_later(market, keys):
    _, address = market
    async with bounded(), connected(address) as client:
        client.say("SUBSCRIBE *")
        assert "token: missing" in (await client.next())["error"]
        assert (await joined(client, keys["some"]))["symbol"] == "AAPL"


async def test_a_revoked_key_ends_its_connections_and_others_stay(market, keys):
    running, address = market
    async with bounded(), connected(address) as client, connected(address) as other:
        await joined(client, keys["some"])
        await joined(other, keys["all"])
        client.say(f"AUTH {keys['some']}")  # the same again
        api_keys.revoke(keys.path, "some")
        assert await client.until(error="the token has expired, or is revoked")
        assert await client.reader.read() == b""
        await running.send(message(2, [tick(700, 1)], ["AAPL"]))
        await other.until(symbol="AAPL", price=7)


async def test_lines_received_beyond_a_quota_of_bytes_are_handled_later(keys, monkeypatch):
    async with aggregator() as running, bounded():
        keys.configure(monkeypatch)
        keys.add_settings("[quotas.default]\nbytes-per-s = 2000\n")
        async with vwap_feed(running.address) as address, connected(address) as client:
            client.say(f"AUTH {keys['all']}", "one")
            assert "'one'" in (await client.next())["error"]
            began_s = time.monotonic()
            client.say(" " * 4_000, "two")
            assert "'two'" in (await client.next())["error"]
            assert time.monotonic() - began_s > 0.9
            client.say("three")
            assert "'three'" in (await client.next())["error"]


async def test_lines_beyond_a_quota_of_bytes_are_conflated(keys, monkeypatch):
    async with aggregator() as running, bounded():
        keys.configure(monkeypatch)
        keys.add_settings("[quotas.default]\nbytes-per-s = 100\n")
        with logged("mdtool.services.vwap", logging.DEBUG) as log:
            async with vwap_feed(running.address) as address, connected(address) as client:
                await log.heard("connected")
                client.say(f"AUTH {keys['all']}")
                for price in range(1, 401):
                    await running.send(message(price - 1, [tick(100 * price, 1)], ["AAPL"]))
                lines = [await client.next()]
                while lines[-1]["price"] != 400:
                    lines.append(await client.next())
    assert len(lines) < 100


async def test_connections_beyond_a_quota_are_closed_with_the_reason(keys, monkeypatch):
    keys.configure(monkeypatch)
    keys.add_settings("[quotas.default]\nconnections = 1\n")
    async with aggregator() as running, bounded(), vwap_feed(running.address) as address:
        limit = "connection limit of 1 for one client reached"
        async with connected(address) as first:
            first.say("SUBSCRIBE *")
            assert "token: missing" in (await first.next())["error"]
            async with connected(address) as second:
                assert await second.next() == {"error": f"{limit}; try again later"}
                assert await second.reader.read() == b""


async def test_decisions_are_in_the_audit_log(keys, monkeypatch, tmp_path):
    keys.configure(monkeypatch)
    file = tmp_path / "audit.jsonl"
    keys.add_settings(f"[audit]\nfile = {str(file)!r}\n")
    async with aggregator() as running, bounded(), vwap_feed(running.address) as address:
        for role in ("all", "elsewhere"):
            async with connected(address) as client:
                client.say(f"AUTH {keys[role]}", "SUBSCRIBE")
                assert "error" in await client.next()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines = [line for line in lines if line["service"] == "vwap"]  # it has no secret of services
    assert [(line["principal"], line["what"], line["allowed"]) for line in lines] == [
        ("key:all", "authenticate", True),
        ("key:elsewhere", "authenticate", True),
        ("key:elsewhere", "read vwap", False),
    ]
