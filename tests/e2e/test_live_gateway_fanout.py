"""Many sessions at the live point: each is sent what a session by itself would choose."""

from __future__ import annotations

import asyncio
from collections import Counter

import databento_dbn as dbn
import numpy as np
import pytest

from mdtool.core.records import index_timestamps
from mdtool.engine.simulate import Exchange
from mdtool.services.live_gateway.stream import Stream
from mdtool.wire.live import ALL_SYMBOLS, Start, Unsubscribe
from tests.support.dbn_files import DAY, MAY_1, header, trade, write
from tests.support.live_clients import (
    BOTH_DAYS,
    client,
    controlled,
    gateway,
    session,
    texts,
    wants,
)

ABOUT_THE_SESSION = (dbn.Metadata, dbn.SystemMsg, dbn.SymbolMappingMsg)
SCHEMAS = ("mbo", "trades", "tbbo", "mbp-1", "mbp-10", "ohlcv-1s")
SYMBOLS = (("1",), ("2", "3"), ("1", "4", "5"), (ALL_SYMBOLS,))
STANDING = 1e-9
"""A speed at which only what is of the first moment comes."""


@pytest.fixture
def counts(monkeypatch):
    """How often records were forwarded to a session, and how often it saw to them by itself."""
    counted: Counter[bool] = Counter()
    forward = Stream.forward

    def counting(self, due):
        is_done = forward(self, due)
        counted[is_done] += 1
        return is_done

    monkeypatch.setattr(Stream, "forward", counting)
    return counted


def data(received: list) -> list[bytes]:
    return [bytes(each) for each in received if not isinstance(each, ABOUT_THE_SESSION)]


async def together(path, speed: float, requests: list, **fields) -> list[list]:
    """What sessions receive at a speed that are all at the live point before it moves."""
    async with controlled(path, speed=STANDING) as (address, control), asyncio.TaskGroup() as tasks:
        live = asyncio.Barrier(len(requests))

        async def one(request) -> list:
            async with client(address) as connected:
                await connected.login(**fields)
                connected.send(request, Start())
                await connected.until(lambda received: has_ack(received, request))
                if not await live.wait():
                    await control("POST", "/set-speed", speed=speed)
                return await connected.rest()

        running = [tasks.create_task(one(request)) for request in requests]
    return [each.result() for each in running]


def has_ack(received: list, request) -> bool:
    """Whether a session is live: its subscription is acknowledged, and its replay is over."""
    n_texts = 1 if request.start_ns is None else 2
    return sum(isinstance(each, dbn.SystemMsg) for each in received) >= n_texts


@pytest.fixture
def orders(tmp_path):
    """A file of four seconds of orders."""
    exchange = Exchange(seed=5, rate=100)
    records = exchange.generate(2_000)
    first = int(index_timestamps(records)[0])
    assert np.ptp(index_timestamps(records)) > 3 * 10**9
    return write(tmp_path / "orders.dbn", header({}, "mbo", start=first), records.tobytes())


@pytest.mark.parametrize("fields", [{}, {"compression": "zstd"}])
async def test_different_subscriptions(orders, counts, fields):
    requests = [
        wants(*symbols, schema=schema, stype_in="instrument_id", start_ns=0)
        for schema in SCHEMAS
        for symbols in SYMBOLS
    ]
    async with gateway(orders) as address:
        alone = [data(await session(address, request)) for request in requests]
    assert not counts
    received = await together(orders, 16.0, requests, **fields)
    assert [data(each) for each in received] == alone
    assert all(alone)
    assert counts[True]


async def test_times_of_sending(orders, counts):
    requests = [wants("1", schema="mbo", stype_in="instrument_id")] * 2
    received = await together(orders, 16.0, requests, has_ts_out=True)
    sent = [[each.ts_out for each in one if isinstance(each, dbn.MBOMsg)] for one in received]
    assert sent[0]
    for ts_out in sent:
        assert ts_out == sorted(ts_out)
    assert counts[True]


async def test_symbols_of_another_day_and_after_an_end(tmp_path, counts):
    """A mapping comes before the first record of a day; what is unsubscribed comes no more."""
    moved = {"AAPL": {1: 1, 2: 2}, "MSFT": {1: 2, 2: 1}}
    records = [trade(1 + at % 2, MAY_1 + DAY - 10**9 + at * 10**7, 10, 1) for at in range(200)]
    path = write(tmp_path / "trades.dbn", header(moved), *records)
    requests = [wants("AAPL", start_ns=0), wants("MSFT", start_ns=0)]  # also who joins second
    (received, other) = await together(path, 2.0, requests)
    for one, names in ((received, ("AAPL", 1, 2)), (other, ("MSFT", 2, 1))):
        symbol, before, after = names
        told = texts(one)
        change = told.index(f"{symbol} = {symbol} {after}")
        assert ids(one[:change]) == [before] * 50
        assert ids(one[change:]) == [after] * 50
    assert counts[True]


async def test_subscriptions_that_come_and_go(tmp_path, counts):
    records = [trade(1 + at % 2, MAY_1 + at * 10**7, 10, 1) for at in range(10_000)]
    path = write(tmp_path / "trades.dbn", header(BOTH_DAYS), *records)
    ended = "Unsubscribed from trades data"
    async with gateway(path, speed=1.0) as address, client(address) as one:
        await one.login()
        one.send(wants("AAPL"), Start())
        await one.until(lambda received: 1 in ids(received))
        one.send(wants("MSFT"))
        await one.until(lambda received: 2 in ids(received))
        one.send(Unsubscribe("trades", "raw_symbol", ("AAPL",)))
        await one.until(lambda received: ended in texts(received))
        at = texts(one.received).index(ended)
        await one.until(lambda received: len(ids(received[at:])) >= 5)
    assert set(ids(one.received[at:])) == {2}
    assert counts[True]


def ids(received: list) -> list[int]:
    """The instruments of trades."""
    return [each.instrument_id for each in received if isinstance(each, dbn.TradeMsg)]
