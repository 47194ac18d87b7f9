"""The gateway's questions to an aggregator that fails, over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.reference.market_source import Bar, MarketSource
from tests.support.gateways import connected, gateway_of

BARS = "/api/v1/bars/AAPL"
OTHER_BARS = "/api/v1/bars/AAPL?limit=1"


@pytest.fixture
def source():
    source = MarketSource()
    source.trade("AAPL", 187.25, 400)
    source.bars["AAPL", "1m"] = [Bar(1_735_201_200 * 10**9)]
    return source


@contextlib.asynccontextmanager
async def left_behind(source, **settings):
    """A client of a gateway that asked the source for bars before the source went away."""
    settings = {"retry_ms": 0, **settings}
    async with contextlib.AsyncExitStack() as stack:
        async with source.serving():
            client = await stack.enter_async_context(gateway_of(source.address, **settings))
            await connected(client)
            _, answer = await client.answer(BARS)
            assert "stale" not in answer
        yield client


async def test_bars_that_were_known_are_served_and_marked(source):
    async with left_behind(source) as client:
        async with client.get(BARS) as response:
            assert response.status == 200
            assert response.headers["Warning"].startswith("110 ")
            answer = await response.json()
        assert answer["stale"] is True
        assert len(answer["data"]) == 1
        assert (await client.answer(OTHER_BARS))[0] == 503


async def test_an_aggregator_that_is_silent_leaves_the_last_known_bars(source):
    settings = {"timeout_ms": 100, "breaker_least": 10_000, "breaker_window": 10_000}
    settings |= {"upstream_requests_per_s": 0}
    async with source.serving(), gateway_of(source.address, **settings) as client:
        await connected(client)
        while (await client.answer(BARS))[0] != 200:
            pass  # a busy machine may take longer now and then
        source.is_silent = True
        status, answer = await client.answer(BARS)
        assert (status, answer["stale"]) == (200, True)
        assert (await client.answer(OTHER_BARS))[0] == 504


async def test_the_circuit_opens_and_says_until_when(source):
    async with left_behind(source, breaker_open_ms=3_600_000) as client:
        for _ in range(2):
            assert (await client.answer(OTHER_BARS))[0] == 503
        async with client.get(OTHER_BARS) as response:
            assert response.status == 503
            assert 3_000 < int(response.headers["Retry-After"]) <= 3_600
            assert "next request in" in (await response.json())["message"]
        _, health = await client.answer("/health")
        assert health["circuit"] == {
            "state": "open",
            "opened": 1,
            "answered": 1,
            "failed": 4,
            "repeated": 2,
            "refused": 2,
        }
        async with client.get("/metrics") as response:
            exposition = await response.text()
        for line in (
            'mdtool_circuit{state="open"} 1.0',
            'mdtool_circuit{state="closed"} 0.0',
            "mdtool_circuit_opened_total 1.0",
            'mdtool_upstream_calls_total{outcome="failed"} 4.0',
            "mdtool_upstream_repeats_total 2.0",
        ):
            assert line in exposition
        assert (await client.answer(BARS))[1]["stale"] is True


async def test_the_circuit_closes_when_the_aggregator_is_back(source):
    async with left_behind(source, breaker_open_ms=1, upstream_requests_per_s=0) as client:
        for _ in range(4):
            await client.answer(OTHER_BARS)
        async with source.serving():
            while (await client.answer("/health"))[1]["circuit"]["state"] != "closed":
                await client.answer(OTHER_BARS)
            status, answer = await client.answer(OTHER_BARS)
            assert status == 200
            assert "stale" not in answer


async def test_an_aggregator_that_comes_back_meanwhile_is_asked_again(source):
    settings = {"retry_ms": 200, "attempts": 100, "breaker_least": 10_000}
    async with left_behind(source, **settings) as client:
        question = asyncio.create_task(client.answer(OTHER_BARS))
        while not (await client.answer("/health"))[1]["circuit"]["repeated"]:
            assert not question.done()
        async with source.serving():
            status, answer = await question
        assert status == 200
        assert "stale" not in answer


async def test_refused_questions_do_not_open_the_circuit(source):
    async with source.serving(), gateway_of(source.address) as client:
        await connected(client)
        for _ in range(15):
            assert (await client.answer("/api/v1/bars/NONE"))[0] == 404
        _, health = await client.answer("/health")
        assert (health["circuit"]["state"], health["circuit"]["answered"]) == ("closed", 15)
