"""How sessions of the official Python client start, wait, break and end."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import databento_dbn as dbn
import pytest

from tests.support.dbn_files import MAY_1, header, order, trade, write
from tests.support.live_clients import controlled, gateway
from tests.support.official_clients import closed, databento, live, off_the_loop, relay
from tests.support.waiting import bounded, wait_until

DATASET = "XNAS.ITCH"
N_TRADES = 300
SYMBOLS = {
    "raw_symbol": "ESM4",
    "instrument_id": "1",
    "parent": "ES.FUT",
    "continuous": "ES.c.0",
}
SCHEMAS = {
    "mbo": "MBOMsg",
    "trades": "TradeMsg",
    "tbbo": "MBP1Msg",
    "mbp-1": "MBP1Msg",
    "mbp-10": "MBP10Msg",
    "bbo-1s": "BBOMsg",
    "bbo-1m": "BBOMsg",
    **dict.fromkeys(("ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d"), "OHLCVMsg"),
}


@pytest.fixture
def trades(tmp_path) -> Path:
    records = [trade(1, MAY_1 + at * 10**8, 10, 1) for at in range(N_TRADES)]
    return write(tmp_path / "trades.dbn", header({"AAPL": {1: 1}}), *records)


def subscribed(address: str, **settings):
    """A client that is subscribed to all trades, and not started."""
    client = live(address, **settings)
    client.subscribe(DATASET, "trades", "AAPL", start=0)
    return client


def trades_in(records) -> int:
    return sum(isinstance(each, dbn.TradeMsg) for each in records)


def stopped_at_the_last(address: str) -> int:
    """How many trades a client gets that stops once it has all."""
    seen = []
    client = subscribed(address)

    def called(record) -> None:
        if isinstance(record, dbn.TradeMsg):
            seen.append(record)
            if len(seen) == N_TRADES:
                client.stop()

    client.add_callback(called)
    client.start()
    closed(client)
    return len(seen)


async def test_it_starts_once_and_ends_once(trades):
    def use(address: str) -> None:
        client = live(address)
        with pytest.raises(ValueError, match=r"must call subscribe\(\)"):
            client.start()
        client.subscribe(DATASET, "trades", "AAPL")
        client.start()
        wait_until(lambda: client.metadata is not None)
        with pytest.raises(ValueError, match="already started"):
            client.start()
        client.stop()
        closed(client)
        client.stop()
        with pytest.raises(ValueError, match=r"must call subscribe\(\)"):
            client.start()

    async with gateway(trades, at_end="hold") as address:
        await off_the_loop(use, address)


@pytest.mark.parametrize("is_started", [False, True])
@pytest.mark.parametrize("timeout_s", [None, 0.01])
async def test_one_that_is_terminated_is_forgotten_and_others_go_on(trades, timeout_s, is_started):
    def leave(address: str) -> None:
        client = subscribed(address)
        if is_started:
            client.start()
        if timeout_s is None:
            client.terminate()
        else:
            client.block_for_close(timeout=timeout_s)

    async with controlled(trades, at_end="hold") as (address, control):
        await off_the_loop(leave, address)
        async with bounded():
            while (await control("GET", "/status"))[1]["sessions"]:
                pass
        assert await off_the_loop(stopped_at_the_last, address) == N_TRADES


async def test_what_it_does_not_take_yet_waits(trades):
    def read(address: str) -> int:
        client = subscribed(address)
        records = iter(client)
        while not isinstance(next(records), dbn.TradeMsg):
            pass
        wait_until(client._session._dbn_queue.is_full)
        return 1 + trades_in(records)

    async with gateway(trades) as address:
        assert await off_the_loop(read, address) == N_TRADES


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("compression", [dbn.Compression.NONE, dbn.Compression.ZSTD])
async def test_it_may_receive_a_few_bytes_at_once(trades, monkeypatch, size, compression):
    monkeypatch.setattr(databento.live.protocol, "RECV_BUFFER_SIZE", size)
    async with gateway(trades) as address:
        records = await off_the_loop(lambda: list(subscribed(address, compression=compression)))
    assert trades_in(records) == N_TRADES


@pytest.mark.filterwarnings("ignore:Timestamp.utcnow is deprecated")  # the client's own
async def test_it_reconnects_before_it_has_started(trades):
    loop = asyncio.get_running_loop()

    def read(address: str, reset) -> int:
        client = live(address, reconnect_policy="reconnect")
        client.subscribe(DATASET, "trades", "AAPL")
        first = client.session_id
        loop.call_soon_threadsafe(reset)
        wait_until(lambda: client.session_id not in {None, first})
        return trades_in(client)

    async with gateway(trades) as behind, relay(behind) as (address, reset):
        assert await off_the_loop(read, address, reset) == N_TRADES


async def test_without_a_policy_a_reset_is_an_error(trades):
    loop = asyncio.get_running_loop()

    def read(address: str, reset) -> None:
        client = subscribed(address)
        client.add_callback(lambda _record: loop.call_soon_threadsafe(reset))
        client.start()
        with pytest.raises(databento.BentoError):
            closed(client)

    async with gateway(trades, at_end="hold") as behind, relay(behind) as (address, reset):
        await off_the_loop(read, address, reset)


async def test_each_session_has_an_id_of_its_own(trades):
    def read(address: str) -> list[str]:
        client = live(address, heartbeat_interval_s=5, slow_reader_behavior="skip")
        ids = []
        for _ in range(2):
            client.subscribe(DATASET, "trades", "AAPL", start=0)
            ids.append(client.session_id)
            assert trades_in(client) == N_TRADES
        return ids

    async with gateway(trades) as address:
        first, second = await off_the_loop(read, address)
    assert first != second


@pytest.mark.parametrize("stype", SYMBOLS)
async def test_every_schema_of_every_kind_of_symbol(tmp_path, stype):
    orders = [
        order(1, MAY_1 + 1, "A", "B", 5, 1, 9),
        order(1, MAY_1 + 2, "A", "A", 6, 1, 10),
        order(1, MAY_1 + 3, "T", "A", 6, 1, 10),
    ]
    of_header = "raw_symbol" if stype == "instrument_id" else stype
    names = header({SYMBOLS[of_header]: {1: 1}}, "mbo", of_header)
    path = write(tmp_path / "mbo.dbn", names, *orders)

    def read(address: str, schema: str) -> Counter:
        client = live(address)
        client.subscribe(DATASET, schema, SYMBOLS[stype], stype_in=stype, start=0)
        return Counter(type(each).__name__ for each in client)

    async with gateway(path) as address:
        for schema, kind in SCHEMAS.items():
            kinds = await off_the_loop(read, address, schema)
            assert kinds[kind] > 0
            assert kinds["ErrorMsg"] == 0
