"""Pages of trades out of stores that another process goes on writing."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import pytest

from mdtool.adapters.stores import open_history
from tests.support.gateways import gateway_of
from tests.support.stores import NOON_NS, STORES, share

ROOT = Path(__file__).parents[2]
NOBODY = "127.0.0.1:1"
SETTINGS = {"upstream_requests_per_s": 0, "memory_requests_per_s": 0}


@contextlib.asynccontextmanager
async def pouring(url: str):
    """What has a process write more trades meanwhile, while the block lasts."""
    writer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.trade_writer", url, str(stored_first(url))),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert await writer.stdout.readline() == b"ready\n"
        yield lambda: writer.stdin.write(b"\n")
    finally:
        writer.stdin.close()
        assert await writer.wait() == 0


@pytest.fixture(params=STORES)
def url(request, tmp_path):
    with STORES[request.param](tmp_path) as new_url:
        yield new_url()


def stored_first(url: str) -> int:
    """How many trades there are before the first page is read, more than it has."""
    return 3_000 // share(url)


def number(price: str) -> int:
    """How many trades were written before the one with this price."""
    return round(float(price) * 10**9) - 1


async def rest_page(client, cursor):
    before = f"&before={cursor}" if cursor else ""
    status, answer = await client.answer(f"/api/v1/trades/AAPL?limit=100{before}")
    assert status == 200
    page = answer["data"]
    return page["data"], page["pagination"]["next_cursor"]


async def graphql_page(client, cursor):
    query = """query ($before: String) {
      trades(symbol: "AAPL", before: $before) { trades { timestamp price } nextCursor }
    }"""
    body = {"query": query, "variables": {"before": cursor}}
    async with client.post("/graphql", json=body) as response:
        page = (await response.json())["data"]["trades"]
    return page["trades"], page["nextCursor"]


@pytest.mark.parametrize("read", [rest_page, graphql_page])
async def test_a_walk_has_every_trade_once_while_another_process_writes(url, read):
    first = stored_first(url)
    async with gateway_of(NOBODY, store=url, **SETTINGS) as client:
        async with pouring(url) as pour:
            found, cursor = await read(client, None)
            while cursor is not None:
                pour()
                trades, cursor = await read(client, cursor)
                found += trades
        numbers = [number(trade["price"]) for trade in found]
        assert len(set(numbers)) == len(numbers)
        assert set(range(first)) <= set(numbers)
        times = [trade["timestamp"] for trade in found]
        assert times == sorted(times, reverse=True)

    with open_history(url) as history:
        (total,) = history.symbols()
        stored = history.page("AAPL", total.trade_count)
    # In each five of those that came later two took place after the first, and two at their moment.
    assert len(stored) == total.trade_count >= first + 5 * (len(found) - first)
    assert max(stored.trades.ts_event.tolist()) == total.last_trade_at_ns == NOON_NS + 10**6


async def test_a_store_that_comes_after_the_gateway_is_served(url):
    async with gateway_of(NOBODY, store=url, **SETTINGS, attempts=1, breaker_open_ms=1) as client:
        status, answer = await client.answer("/api/v1/trades/AAPL")
        assert (status, answer["error"]) == (503, "unavailable")
        async with pouring(url):
            trades, cursor = await rest_page(client, None)
        assert len(trades) == 100
        assert cursor is not None


async def test_what_is_no_store_is_told_of(tmp_path):
    path = tmp_path / "notes.db"
    path.write_text("I am no store. " * 1_000)
    async with gateway_of(NOBODY, store=f"sqlite:///{path}", **SETTINGS) as client:
        status, answer = await client.answer("/api/v1/trades/AAPL")
        assert (status, answer["error"]) == (502, "bad_gateway")
        assert str(path) in answer["message"]
        assert (await client.answer("/health"))[1]["store"]["connected"] is False
