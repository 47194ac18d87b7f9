"""Who sees what beside the gateway: every gRPC call and VWAP subscription, in every role."""

from __future__ import annotations

import logging

import grpc
import grpc.aio
import pytest

from mdtool.adapters import rpc
from mdtool.core.permissions import Grant
from mdtool.services.dbn_access import FEED_OF_SCHEMA
from mdtool.services.gateway.table import TABLE
from mdtool.wire._pb import marketdata_pb2, tick_pb2
from mdtool.wire.dbn_records import RTYPES
from tests.reference.permissions import may_read, may_write
from tests.support.aggregators import NOON_NS, aggregator, message, tick
from tests.support.services import logged
from tests.support.tokens import ROLES, Keys
from tests.support.vwap_feeds import connected, vwap_feed
from tests.support.waiting import bounded

FIRST, LATER, LAST = ("AAPL", "MSFT"), "SECRET", "NEW"
SYMBOLS = (*FIRST, LATER, LAST)
OF_FEEDS = {f"of-{feed}": {"read": ["*"], "feeds": [feed]} for feed in TABLE}
FURTHER = {**OF_FEEDS, "feeder": {"read": ["*"], "write": ["*"]}}
EVERY_ROLE = {**ROLES, **FURTHER}


@pytest.fixture
def keys(tmp_path, monkeypatch):
    """Keys of roles, among them one for each feed, and one that has all of them and no right."""
    for name, grant in FURTHER.items():
        monkeypatch.setitem(ROLES, name, grant)
    return Keys(tmp_path)


def readable(role, feed):
    grants = [Grant.parse(EVERY_ROLE[role])]
    return {symbol for symbol in SYMBOLS if may_read(grants, feed, symbol)}


def reads_all(role, feed):
    """Whether a role may read any symbol there could be."""
    grant = Grant.parse(EVERY_ROLE[role])
    return not grant.deny and may_read([grant], feed, "ANY.OTHER")


class Market:
    """An aggregator, and calls of it with the token of a role."""

    def __init__(self, running, token) -> None:
        self._running = running
        self._stub = rpc.Stub(running.channel)
        self._metadata = [("authorization", f"Bearer {token}")]

    def call(self, name, sent):
        return getattr(self._stub, name)(sent, metadata=self._metadata)

    async def of_each(self, name, make):
        """The symbols that a call with a single answer has."""
        shown = set()
        for symbol in SYMBOLS:
            try:
                await self.call(name, make(symbol))
                shown.add(symbol)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
        return shown

    async def streamed(self, name, sent, symbols_of):
        """The symbols that a call with many answers has, up to the last one that is sent."""
        call, shown = self.call(name, sent), set()
        while LAST not in shown:
            answer = await call.read()
            if answer is grpc.aio.EOF:
                await call
            shown |= set(symbols_of(answer))
        call.cancel()
        return shown


def aggregate(symbol=""):
    return marketdata_pb2.AggregateRequest(symbol=symbol)


def bars(symbol):
    return marketdata_pb2.BarsRequest(symbol=symbol, interval="1m")


UPDATES = marketdata_pb2.UpdatesRequest()
BAR_UPDATES = marketdata_pb2.BarUpdatesRequest(interval="1m")
READS = {
    "GetAggregate": ("aggregates", lambda m: m.of_each("GetAggregate", aggregate)),
    "GetSession": ("aggregates", lambda m: m.of_each("GetSession", aggregate)),
    "GetBars": ("bars", lambda m: m.of_each("GetBars", bars)),
    "StreamAggregates": (
        "aggregates",
        lambda m: m.streamed("StreamAggregates", aggregate(), lambda each: [each.symbol]),
    ),
    "StreamBars": (
        "bars",
        lambda m: m.streamed("StreamBars", BAR_UPDATES, lambda each: each.new_symbols),
    ),
}
"""Calls that show the symbols which may be read: their feed, and what they show."""
WHOLE = {
    "StreamUpdates": ("aggregates", lambda: UPDATES),
    "StreamTrades": ("trades", lambda: iter([marketdata_pb2.TradesRequest()])),
}
"""Calls for who may read every symbol of a feed."""
OF_STREAMS = {
    "StreamTickBatches": lambda: iter([]),
    "GetStreamPosition": lambda: marketdata_pb2.StreamPositionRequest(stream_id="s"),
    "ClaimStream": lambda: marketdata_pb2.StreamClaim(stream_id="s", principal="key:a"),
}
"""Calls for who may move the streams of others, of every symbol."""


def test_every_call_has_a_row_here():
    service = marketdata_pb2.DESCRIPTOR.services_by_name["MarketDataService"]
    rows = {*READS, *WHOLE, *OF_STREAMS, "StreamTicks"}
    assert {method.name for method in service.methods} == rows


def test_every_schema_of_dbn_is_of_a_feed():
    assert FEED_OF_SCHEMA.keys() == RTYPES.keys()
    assert {*FEED_OF_SCHEMA.values()} <= TABLE.keys()
    by_rtype = {}
    for schema, rtype in RTYPES.items():
        assert by_rtype.setdefault(rtype, FEED_OF_SCHEMA[schema]) == FEED_OF_SCHEMA[schema]


@pytest.fixture
async def market(keys, monkeypatch):
    """An aggregator with two symbols, and a function that has two more appear."""
    keys.configure(monkeypatch)
    monkeypatch.setenv("MDTOOL_AUTH_SERVICES_SECRET", "of-this-run")
    async with aggregator() as running, bounded():
        await running.send(message(0, [tick(100, 1), tick(200, 3, symbol=1)], [*FIRST]))
        monkeypatch.delenv("MDTOOL_AUTH_SERVICES_SECRET")

        async def more():
            await running.send(message(2, [tick(300, 1)], [LATER]))
            await running.send(message(3, [tick(400, 1)], [LAST]))

        yield running, more


@pytest.mark.parametrize("role", EVERY_ROLE)
@pytest.mark.parametrize("name", READS)
async def test_a_call_shows_what_may_be_read_also_what_appears_later(market, keys, role, name):
    running, more = market
    feed, read = READS[name]
    await more()
    expected = readable(role, feed)
    if expected:
        assert await read(Market(running, keys[role])) == expected
    else:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read(Market(running, keys[role]))
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("role", EVERY_ROLE)
@pytest.mark.parametrize("name", [*WHOLE, *OF_STREAMS])
async def test_a_call_of_services_takes_every_symbol(market, keys, role, name):
    running, _ = market
    if name in WHOLE:
        feed, make = WHOLE[name]
        is_allowed = reads_all(role, feed)
    else:
        make = OF_STREAMS[name]
        is_allowed = role == "all"
    call = Market(running, keys[role]).call(name, make())

    async def answer():
        await (call.read() if hasattr(call, "read") else call)

    if is_allowed:
        if name != "StreamTrades":  # which answers once there is another trade
            await answer()
        else:
            await call.initial_metadata()
    else:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answer()
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    call.cancel()


@pytest.mark.parametrize("role", EVERY_ROLE)
async def test_ticks_of_what_may_be_written_are_taken(market, keys, role):
    def ticks():
        for symbol in SYMBOLS:
            yield tick_pb2.Tick(symbol=symbol, price=1, volume=1, exchange_timestamp=NOON_NS)

    grants = [Grant.parse(EVERY_ROLE[role])]
    taken = sum(may_write(grants, symbol) for symbol in SYMBOLS)
    ack = await Market(market[0], keys[role]).call("StreamTicks", ticks())
    assert ack.message.startswith(f"Received {taken} ticks")


@pytest.mark.parametrize("role", EVERY_ROLE)
@pytest.mark.parametrize(
    "subscription", ["", "SUBSCRIBE *", f"SUBSCRIBE {','.join(SYMBOLS)}"], ids=["none", "*", "each"]
)
async def test_vwap_lines_are_of_what_may_be_read(keys, monkeypatch, role, subscription):
    async with aggregator() as running, bounded():
        keys.configure(monkeypatch)
        with logged("mdtool.services.vwap", logging.DEBUG) as log:
            async with vwap_feed(running.address) as address, connected(address) as client:
                await log.heard("connected")
                client.say(f"AUTH {keys[role]}")
                if subscription:
                    client.say(subscription)
                await running.send(
                    message(0, [tick(100 * n, 1, symbol=n) for n in range(4)], [*SYMBOLS])
                )
                expected = readable(role, "vwap")
                if not expected:
                    assert "none of your roles" in (await client.next())["error"]
                    return
                shown = set()
                while LAST not in shown:
                    shown.add((await client.next())["symbol"])
                assert shown == expected
