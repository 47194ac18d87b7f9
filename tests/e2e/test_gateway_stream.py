"""`/stream` in front of real services: trades that are resumed, and series of bars."""

from __future__ import annotations

import contextlib

import pytest

from mdtool.services.gateway.feeds.trade_starts import LATEST
from mdtool.services.gateway.table import TABLE
from tests.support.feed_followers import StreamFollower, follower_of
from tests.support.feed_sources import SOURCES, world_of

TRADES, BARS = TABLE["trades"], TABLE["bars"]


@pytest.fixture
async def world():
    async with world_of(SOURCES["trades"]) as world:
        yield world


@contextlib.asynccontextmanager
async def following(world, *symbols: str, **members):
    """A follower of trades, whose reply has come."""
    async with follower_of(StreamFollower, world.client) as follower:
        await follower.say(op="subscribe", id=1, channel="trades", symbols=[*symbols], **members)
        assert (await follower.json())["ok"] is True
        yield follower


def cents(message) -> int:
    return round(float(message["data"]["price"]) * 100)


async def traded(world, symbol: str, *prices: int) -> list[str]:
    """The sequences of trades that the gateway has by now."""
    async with following(world, symbol) as follower:
        for price in prices:
            await world.trade({symbol: price})
        sequences = []
        while len(sequences) < len(prices):
            message = await follower.json()
            if "snapshot" not in message or cents(message) in prices:
                sequences.append(message["data"]["sequence"])
        return sequences


async def test_trades_begin_with_the_latest_and_resume_behind_any_of_them(world):
    sequences = await traded(world, "AAPL", *range(1, LATEST + 11))
    async with following(world, "AAPL") as follower:
        messages = [await follower.json() for _ in range(LATEST)]
        assert [cents(message) for message in messages] == [*range(11, LATEST + 11)]
        assert all(message["snapshot"] is True for message in messages)
    async with following(world, "AAPL", after=sequences[2]) as follower:
        messages = [await follower.json() for _ in range(LATEST + 7)]
        assert [message["data"]["sequence"] for message in messages] == sequences[3:]
        assert not any("snapshot" in message for message in messages)
        await world.trade({"AAPL": 99})
        assert cents(await follower.json()) == 99
    async with following(world, "AAPL", after=sequences[-1]) as follower:
        assert cents(await follower.json()) == 99


async def test_a_trade_of_one_symbol_resumes_every_symbol(world):
    (first, _) = await traded(world, "AAPL", 1, 2)
    await traded(world, "MSFT", 3)
    for symbols in (("AAPL", "MSFT"), "*"):
        async with following(world, *symbols, after=first) as follower:
            messages = [await follower.json() for _ in range(2)]
            assert [cents(message) for message in messages] == [2, 3]


async def test_an_unknown_trade_is_followed_by_the_latest_and_an_unknown_number_missed(world):
    await traded(world, "AAPL", 1, 2)
    async with following(world, "AAPL", after="of-another-stream:7") as follower:
        head = {"id": 1, "channel": "trades", "symbol": "AAPL"}
        assert await follower.json() == {**head, "missed": None}
        messages = [await follower.json() for _ in range(2)]
        assert [(cents(message), message["snapshot"]) for message in messages] == [
            (1, True),
            (2, True),
        ]


@pytest.mark.parametrize("after", ["7", ":7", "s:", "s:x", "s:-1"])
async def test_after_must_be_a_sequence(world, after):
    async with follower_of(StreamFollower, world.client) as follower:
        request = {"channel": "trades", "symbols": ["AAPL"], "after": after}
        await follower.say(op="subscribe", id=1, **request)
        assert (await follower.json())["error"]["code"] == "bad_request"


async def test_an_interval_that_does_not_exist_is_rejected_at_once(world):
    await world.trade({"AAPL": 1})
    async with follower_of(StreamFollower, world.client) as follower:
        await follower.subscribe(BARS, "AAPL", 1)
        assert (await follower.update()).symbol == "AAPL"
        for interval, advice in [
            ("7m", ""),
            ("1w", "; mdtool aggregate INPUT --interval makes bars of 1w and 1mo"),
        ]:
            request = {"channel": "bars", "symbols": ["AAPL"], "interval": interval}
            await follower.say(op="subscribe", id=2, **request)
            error = await follower.json()
            assert (error["id"], error["error"]["code"]) == (2, "bad_request")
            assert error["error"]["message"] == f"interval: expects 1s, 1m, 5m, 1h or 1d{advice}"
        await world.trade({"AAPL": 2})
        assert SOURCES["bars"].cents((await follower.update()).row) == 2
