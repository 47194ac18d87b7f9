"""Tokens of gRPC clients: who may call what, and which symbols exist for whom."""

from __future__ import annotations

import contextlib
import json
import time

import grpc
import grpc.aio
import pytest

from mdtool.adapters import rpc
from mdtool.adapters.aggregator import AggregatorClient
from mdtool.adapters.identity import api_keys
from mdtool.wire._pb import marketdata_pb2, tick_pb2
from tests.support.aggregators import NOON_NS, aggregator, message, tick
from tests.support.tokens import Keys
from tests.support.waiting import WITHIN_S, bounded

SECRET = "of-this-run"
ALL = marketdata_pb2.AggregateRequest()


@pytest.fixture
def keys(tmp_path):
    return Keys(tmp_path)


@pytest.fixture
async def market(keys, monkeypatch):
    """An aggregator that knows the services of its run, with trades of two symbols."""
    keys.configure(monkeypatch)
    monkeypatch.setenv("MDTOOL_AUTH_SERVICES_SECRET", SECRET)
    async with aggregator() as running, bounded():
        await running.send(message(0, [tick(100, 1), tick(200, 3, symbol=1)], ["AAPL", "MSFT"]))
        yield running


@contextlib.contextmanager
def fails(code):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield caught
    assert caught.value.code() is code, caught.value.details()


def as_(token):
    return {"metadata": [("authorization", f"Bearer {token}")]}


@pytest.fixture
def stub(market, monkeypatch):
    """Calls without a token of their own."""
    monkeypatch.delenv("MDTOOL_AUTH_SERVICES_SECRET")
    return rpc.Stub(market.channel)


def request(symbol):
    return marketdata_pb2.AggregateRequest(symbol=symbol)


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("authorization", "")],
        [("authorization", "Bearer ")],
        [("authorization", "Bearer mdt_nobody")],
        [("authorization", "Basic YTpi")],
        [("authorization", f"Bearer {'x' * 7_000}")],
        [("authorization", "Bearer a.b.c"), ("authorization", f"Bearer {SECRET}")],
        [("authorization", f"Bearer {SECRET} ."[:-2] + "x")],
    ],
)
async def test_without_a_valid_token_no_call_is_answered(stub, metadata):
    with fails(grpc.StatusCode.UNAUTHENTICATED) as caught:
        await stub.GetAggregate(request("AAPL"), metadata=metadata)
    assert "x" * 30 not in caught.value.details()
    with fails(grpc.StatusCode.UNAUTHENTICATED):
        async for _ in stub.StreamUpdates(marketdata_pb2.UpdatesRequest(), metadata=metadata):
            pytest.fail("an update")


@pytest.mark.parametrize("role", ["all", "some", "denied"])
@pytest.mark.parametrize("symbol", ["AAPL", "MSFT", "msft ", "NONE"])
async def test_a_symbol_that_may_not_be_read_does_not_exist(stub, keys, role, symbol):
    calls = (
        (stub.GetAggregate, request(symbol)),
        (stub.GetSession, request(symbol)),
        (stub.GetBars, marketdata_pb2.BarsRequest(symbol=symbol, interval="1m")),
    )
    exists = symbol == "AAPL" or (symbol != "NONE" and role == "all")
    for call, message_ in calls:
        if exists:
            await call(message_, **as_(keys[role]))
            continue
        with fails(grpc.StatusCode.NOT_FOUND) as caught:
            await call(message_, **as_(keys[role]))
        assert caught.value.details() == f"no trades of symbol {symbol!r}"


@pytest.mark.parametrize(
    ("role", "seen"), [("all", {"AAPL", "MSFT", "NEW"}), ("some", {"AAPL", "NEW"})]
)
async def test_streams_show_what_may_be_read_also_what_appears_later(
    market, stub, keys, role, seen
):
    bars = stub.StreamBars(marketdata_pb2.BarUpdatesRequest(interval="1m"), **as_(keys[role]))
    aggregates = stub.StreamAggregates(ALL, **as_(keys[role]))
    shown = {(await aggregates.read()).symbol}
    names = [*(await bars.read()).new_symbols]
    await market.send(message(2, [tick(300, 3), tick(1, 1, symbol=1)], ["MSFT", "NEW"]))
    while not seen <= shown:
        shown.add((await aggregates.read()).symbol)
    while not seen <= {*names}:
        names += (await bars.read()).new_symbols
    assert shown == {*names} == seen
    aggregates.cancel()
    bars.cancel()


async def test_a_principal_writes_the_symbols_of_its_roles(stub, keys):
    def ticks():
        for symbol in ("AAPL", "aapl", "MSFT", "OTHER"):
            yield tick_pb2.Tick(symbol=symbol, price=1, volume=1, exchange_timestamp=NOON_NS)

    ack = await stub.StreamTicks(ticks(), **as_(keys["some"]))
    assert ack.message == "Received 2 ticks, refused 2 (2 symbol)"
    with fails(grpc.StatusCode.NOT_FOUND):
        await stub.GetAggregate(request("OTHER"), **as_(keys["all"]))


async def test_calls_of_services_are_theirs(stub, keys):
    updates, trades = marketdata_pb2.UpdatesRequest(), marketdata_pb2.TradesRequest()
    position = marketdata_pb2.StreamPositionRequest(stream_id="s")
    for role in ("some", "denied", "elsewhere"):
        for call in (
            stub.StreamUpdates(updates, **as_(keys[role])),
            stub.StreamTrades(iter([trades]), **as_(keys[role])),
            stub.StreamTickBatches(iter([]), **as_(keys[role])),
        ):
            with fails(grpc.StatusCode.PERMISSION_DENIED):
                await call.read()
        with fails(grpc.StatusCode.PERMISSION_DENIED):
            await stub.GetStreamPosition(position, **as_(keys[role]))
    with fails(grpc.StatusCode.PERMISSION_DENIED):
        await stub.GetAggregate(request("AAPL"), **as_(keys["elsewhere"]))


async def test_a_revoked_key_ends_its_calls(stub, keys):
    call = stub.StreamAggregates(ALL, **as_(keys["all"]))
    await call.read()
    api_keys.revoke(keys.path, "all")
    with fails(grpc.StatusCode.UNAUTHENTICATED) as caught:
        while True:
            await call.read()
    assert caught.value.details() == "the token has expired, or is revoked"


async def test_updates_beyond_a_quota_of_bytes_are_conflated(keys, monkeypatch):
    keys.configure(monkeypatch)
    keys.add_settings("[quotas.default]\nbytes-per-s = 40\n")
    monkeypatch.setenv("MDTOOL_AUTH_SERVICES_SECRET", SECRET)
    async with aggregator() as running, bounded():
        await running.send(message(0, [tick(100, 1)], ["AAPL"]))
        call = rpc.Stub(running.channel, keys["all"]).StreamAggregates(request("AAPL"))
        await call.read()
        for number in range(1, 400):
            ticks = [tick(100 * number + 100, 1)]
            await running.send(message(number, ticks, ["AAPL"]))
        received = 1
        while (await call.read()).volume < 400:
            received += 1
        call.cancel()
    assert received < 100


async def test_ticks_beyond_a_quota_of_bytes_are_taken_later(keys, monkeypatch):
    keys.configure(monkeypatch)
    one = tick_pb2.Tick(symbol="AAPL", price=1.5, volume=1, exchange_timestamp=NOON_NS)
    keys.add_settings(f"[quotas.default]\nbytes-per-s = {2 * one.ByteSize()}\n")
    async with aggregator() as running, bounded():
        stub = rpc.Stub(running.channel, keys["all"])
        began_s = time.monotonic()
        ack = await stub.StreamTicks(iter([one] * 5))
        assert time.monotonic() - began_s > 1
    assert ack.message == "Received 5 ticks"


async def test_answers_count_against_a_quota_of_bytes(keys, monkeypatch):
    keys.configure(monkeypatch)
    keys.add_settings("[quotas.default]\nbytes-per-s = 40\n")
    monkeypatch.setenv("MDTOOL_AUTH_SERVICES_SECRET", SECRET)
    async with aggregator() as running, bounded():
        await running.send(message(0, [tick(100, 1)], ["AAPL"]))
        stub = rpc.Stub(running.channel, keys["all"])
        began_s = time.monotonic()
        size = 0
        while size <= 100:  # a second's worth at once
            size += (await stub.GetSession(request("AAPL"))).ByteSize()
        await stub.GetSession(request("AAPL"))
        assert time.monotonic() - began_s > 1


async def test_services_of_a_run_trust_each_other(market):
    async with AggregatorClient(market.address) as client:
        await client.session("AAPL", "", WITHIN_S)


async def test_calls_are_in_the_audit_log(keys, monkeypatch, tmp_path):
    keys.configure(monkeypatch)
    file = tmp_path / "audit.jsonl"
    keys.add_settings(f"[audit]\nfile = {str(file)!r}\n")
    async with aggregator() as running, bounded():
        stub = rpc.Stub(running.channel, "")
        with fails(grpc.StatusCode.UNAUTHENTICATED):
            await stub.GetAggregate(request("AAPL"), metadata=[("authorization", "Basic YTpi")])
        with fails(grpc.StatusCode.NOT_FOUND):
            await stub.GetAggregate(request("MSFT"), **as_(keys["some"]))
        with fails(grpc.StatusCode.PERMISSION_DENIED):
            await stub.GetAggregate(request("AAPL"), **as_(keys["elsewhere"]))
    lines = map(json.loads, file.read_text().splitlines())
    assert [(line["principal"], line["what"], line["allowed"]) for line in lines] == [
        ("anonymous", "authenticate", False),
        ("key:some", "GetAggregate", True),
        ("key:elsewhere", "GetAggregate", False),
    ]
