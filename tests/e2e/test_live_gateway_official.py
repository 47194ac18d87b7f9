"""The official Python client, unchanged, against the live gateway."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path

import databento_dbn as dbn
import pytest

from mdtool.adapters.dbn_files import open_source
from tests.support.dbn_files import MAY_1, decoded, header, order, trade, write
from tests.support.live_clients import gateway
from tests.support.official_clients import closed, databento, live, off_the_loop, relay
from tests.support.waiting import WITHIN_S, wait_until

N_RECORDS = 3_000
NAMES = {"AAPL": {1: 1}, "MSFT": {1: 2}}


@pytest.fixture
def trades(tmp_path) -> Path:
    records = [trade(1 + at % 2, MAY_1 + at * 10**5, 10, 1) for at in range(N_RECORDS)]
    return write(tmp_path / "trades.dbn", header(NAMES), *records)


async def test_iteration_to_the_end(trades):
    def read(address: str) -> tuple[list, dict]:
        client = live(address)
        client.subscribe("XNAS.ITCH", "trades", ["AAPL"])
        return list(client), dict(client.symbology_map)

    async with gateway(trades) as address:
        records, symbols = await off_the_loop(read, address)
    assert sum(isinstance(each, dbn.TradeMsg) for each in records) == N_RECORDS // 2
    assert symbols == {1: "AAPL"}


@pytest.mark.parametrize("compression", [dbn.Compression.NONE, dbn.Compression.ZSTD])
@pytest.mark.parametrize("has_ts_out", [False, True])
async def test_callbacks_and_a_file_that_is_complete(trades, tmp_path, compression, has_ts_out):
    path = tmp_path / "recorded.dbn"

    def record(address: str) -> list:
        seen: list = []
        client = live(address, compression=compression, ts_out=has_ts_out)
        client.add_callback(seen.append)
        client.add_stream(path)
        client.subscribe("XNAS.ITCH", "trades", "AAPL")
        client.subscribe("XNAS.ITCH", "trades", "MSFT")
        client.start()
        closed(client)
        return seen

    async with gateway(trades) as address:
        seen = await off_the_loop(record, address)
    times = [each.ts_event for each in seen if isinstance(each, dbn.TradeMsg)]
    assert times == [MAY_1 + at * 10**5 for at in range(N_RECORDS)]
    assert all(each.ts_out > MAY_1 for each in seen if has_ts_out)
    with open_source(str(path)) as source:
        recorded = sum(len(batch) for batch in source if batch.rtype == 0)
    assert recorded == N_RECORDS


async def test_bare_is_written_byte_for_byte(trades, tmp_path):
    path = tmp_path / "recorded.dbn"

    def record(address: str) -> None:
        client = live(address)
        client.add_stream(path)
        client.subscribe("XNAS.ITCH", "trades", "AAPL")
        client.start()
        closed(client)

    async with gateway(trades, bare=True) as address:
        await off_the_loop(record, address)
    assert path.read_bytes() == trades.read_bytes()
    assert len(decoded(path.read_bytes())) == N_RECORDS


async def test_two_clients_and_a_client_that_is_used_again(trades):
    def read(address: str) -> list[int]:
        counts = []
        first, second = live(address), live(address)
        for client in (first, second, first):
            seen: list = []
            client.add_callback(seen.append)
            client.subscribe("XNAS.ITCH", "trades", "ALL_SYMBOLS", start=0)
            client.start()
            closed(client)
            counts.append(sum(isinstance(each, dbn.TradeMsg) for each in seen))
        return counts

    async with gateway(trades) as address:
        assert await off_the_loop(read, address) == [N_RECORDS] * 3


async def test_a_key_that_is_not_known(trades, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("alice " + "a" * 32)
    keys.chmod(0o600)

    def subscribe(address: str) -> None:
        live(address).subscribe("XNAS.ITCH", "trades", "AAPL")

    async with gateway(trades, keys=str(keys)) as address:
        with pytest.raises(databento.BentoError, match="authentication failed"):
            await off_the_loop(subscribe, address)


async def test_every_stype_and_thousands_of_symbols(tmp_path):
    names = {f"S{number}": {1: number} for number in range(1, 3_951)}
    path = write(tmp_path / "many.dbn", header(names), trade(3_950, MAY_1 + 1, 10, 1))

    def read(address: str) -> tuple[int, int]:
        client = live(address)
        client.subscribe("XNAS.ITCH", "trades", list(names))
        client.subscribe("XNAS.ITCH", "trades", [7], stype_in="instrument_id")
        records = list(client)
        return len(client.symbology_map), sum(isinstance(each, dbn.TradeMsg) for each in records)

    async with gateway(path) as address:
        assert await off_the_loop(read, address) == (3_950, 1)


async def test_a_subscription_from_a_callback(tmp_path):
    path = write(tmp_path / "mbo.dbn", header(NAMES, "mbo"), order(1, MAY_1, "A", "B", 5, 1, 9))

    def read(address: str) -> list[str]:
        acknowledged: list[str] = []
        client = live(address)

        def called(record) -> None:
            if isinstance(record, dbn.SystemMsg):
                acknowledged.append(record.msg)
                if len(acknowledged) == 1:
                    client.subscribe("XNAS.ITCH", "mbo", "MSFT")
                else:
                    client.stop()

        client.add_callback(called)
        client.subscribe("XNAS.ITCH", "mbo", "AAPL")
        client.start()
        closed(client)
        return acknowledged

    async with gateway(path, at_end="hold") as address:
        acknowledged = await off_the_loop(read, address)
    assert acknowledged == [
        f"Subscription request {number} for mbo data succeeded" for number in range(2)
    ]


async def test_it_reconnects_and_subscribes_again(trades):
    begun, again, reconnected = threading.Event(), threading.Event(), threading.Event()
    acknowledged: list[str] = []

    def called(record) -> None:
        if isinstance(record, dbn.SystemMsg) and not record.is_heartbeat():
            acknowledged.append(record.msg)
            (again if begun.is_set() else begun).set()

    def read(address: str) -> None:
        client = live(address, reconnect_policy="reconnect")
        client.add_callback(called)
        client.add_reconnect_callback(lambda _before, _after: reconnected.set())
        client.subscribe("XNAS.ITCH", "trades", "AAPL")
        client.start()
        assert reconnected.wait(WITHIN_S)
        assert again.wait(WITHIN_S)
        client.stop()
        closed(client)

    async with gateway(trades, at_end="hold") as behind, relay(behind) as (address, reset):
        reading = asyncio.create_task(off_the_loop(read, address))
        assert await off_the_loop(begun.wait, WITHIN_S)
        reset()
        await reading
    assert acknowledged == ["Subscription request 0 for trades data succeeded"] * 2


async def test_waiting_for_the_close_in_a_loop(trades):
    async def read(address: str) -> int:
        seen: list = []
        client = live(address)
        client.add_callback(seen.append)
        client.subscribe("XNAS.ITCH", "trades", "ALL_SYMBOLS")
        client.start()
        await client.wait_for_close(timeout=WITHIN_S)
        return sum(isinstance(each, dbn.TradeMsg) for each in seen)

    async with gateway(trades) as address:
        assert await off_the_loop(lambda: asyncio.run(read(address))) == N_RECORDS


async def test_derived_schemas(tmp_path):
    orders = [
        order(1, MAY_1 + 1, "A", "B", 5, 1, 9),
        order(1, MAY_1 + 2, "A", "A", 6, 1, 10),
        order(1, MAY_1 + 3, "T", "A", 6, 1, 10),
    ]
    path = write(tmp_path / "mbo.dbn", header(NAMES, "mbo"), *orders)
    schemas = ("trades", "tbbo", "mbp-1", "mbp-10", "bbo-1s", "bbo-1m")
    bars = tuple(f"ohlcv-{interval}" for interval in ("1s", "1m", "1h", "1d"))

    def read(address: str) -> tuple[Counter, Counter]:
        client = live(address)
        for schema in (*schemas, *bars):
            client.subscribe("XNAS.ITCH", schema, "AAPL", start=0)
        records = list(client)
        kinds = Counter(type(each).__name__ for each in records)
        ends = Counter(
            each.msg.rpartition(" ")[2]
            for each in records
            if isinstance(each, dbn.SystemMsg) and each.msg.startswith("End of interval")
        )
        return kinds, ends

    async with gateway(path) as address:
        kinds, ends = await off_the_loop(read, address)
    expected = {"TradeMsg": 1, "MBP1Msg": 4, "MBP10Msg": 3, "BBOMsg": 2, "OHLCVMsg": 4}
    assert {name: kinds[name] for name in expected} == expected
    assert ends == dict.fromkeys(("bbo-1s", "bbo-1m", *bars), 1)


async def test_it_reconnects_after_a_reset_on_demand(trades):
    reconnected = threading.Event()

    def read(address: str) -> int:
        seen: list = []
        client = live(address, reconnect_policy="reconnect")
        client.add_callback(seen.append)
        client.add_reconnect_callback(lambda _before, _after: reconnected.set())
        client.subscribe("XNAS.ITCH", "trades", "AAPL")
        client.start()
        assert reconnected.wait(WITHIN_S)
        wait_until(lambda: sum(isinstance(each, dbn.SystemMsg) for each in seen) >= 2)
        client.stop()
        closed(client)
        return sum(isinstance(each, dbn.TradeMsg) for each in seen)

    async with gateway(trades, at_end="hold", faults="reset after=5 session=1") as address:
        assert await off_the_loop(read, address) <= 5
