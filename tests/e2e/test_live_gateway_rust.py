"""The official Rust client, unchanged, against the live gateway.

A program of tests/rust writes what it receives as DBN, which is compared with the file.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import databento_dbn as dbn
import pytest

from tests.support.dbn_files import MAY_1, decoded, header, order, trade, write
from tests.support.live_clients import KEY, gateway, texts
from tests.support.requirements import made_once, needs
from tests.support.waiting import bounded

pytestmark = pytest.mark.slow

FILES = Path(__file__).parents[1] / "rust"
BUILD = ("build", "--locked", "--quiet", "--jobs=2", "--target-dir=target")
NAMES = {"AAPL": {1: 1}, "MSFT": {1: 2}}
ACK = "Subscription request {} for {} data succeeded"


@pytest.fixture(scope="module")
def program() -> Path:
    files = [FILES / name for name in ("Cargo.toml", "Cargo.lock", "live_client.rs")]
    return made_once("rust", (needs("cargo"), *BUILD), files, "target/debug/live-client")


@pytest.fixture
def trades(tmp_path) -> Path:
    records = [trade(1 + at % 2, MAY_1 + at, 10, 1) for at in range(3_000)]
    return write(tmp_path / "trades.dbn", header(NAMES), *records)


@pytest.fixture
def orders(tmp_path) -> Path:
    """Two orders of AAPL before half past, its trade and an order of MSFT behind that."""
    records = [
        order(1, MAY_1 + 1, "A", "B", 5, 1, 9),
        order(1, MAY_1 + 2, "A", "A", 6, 1, 10),
        order(1, MAY_1 + 30, "T", "A", 6, 1, 10),
        order(2, MAY_1 + 31, "A", "B", 7, 1, 11),
    ]
    return write(tmp_path / "mbo.dbn", header(NAMES, "mbo"), *records)


async def output(program: Path, *arguments: str) -> tuple[bytes, str]:
    """What the program writes to standard output, and to standard error."""
    async with bounded():
        process = await asyncio.create_subprocess_exec(
            *(str(program), *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            written, failure = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return written, failure.decode()


async def received(
    program: Path, address: str, *subscriptions: str, compression="none", ts_out=False
) -> list:
    """The metadata and the records that a session of the program has received."""
    settings = (KEY, "XNAS.ITCH", compression, str(int(ts_out)))
    written, failure = await output(program, address, *settings, *subscriptions)
    assert not failure
    decoder = dbn.DBNDecoder(ts_out=ts_out)
    return decoder.write_and_decode(written)


def data(records: list) -> list[bytes]:
    """The records of the market, as bytes."""
    others = (dbn.Metadata, dbn.SystemMsg, dbn.ErrorMsg, dbn.SymbolMappingMsg)
    return [bytes(each) for each in records if not isinstance(each, others)]


@pytest.mark.parametrize("compression", ["none", "zstd"])
async def test_all_records_of_a_file(program, trades, compression):
    async with gateway(trades) as address:
        records = await received(
            program, address, "trades/raw_symbol/ALL_SYMBOLS", compression=compression
        )
    assert texts(records)[:4] == [
        "metadata",
        ACK.format(1, "trades"),
        "AAPL = AAPL 1",
        "MSFT = MSFT 2",
    ]
    assert data(records) == [bytes(each) for each in decoded(trades.read_bytes())]


async def test_times_of_sending_are_behind_every_record(program, trades):
    async with gateway(trades) as address:
        records = await received(program, address, "trades/raw_symbol/AAPL,MSFT", ts_out=True)
    metadata, *records = records
    assert metadata.ts_out
    assert len(data(records)) == 3_000
    assert all(MAY_1 < each.ts_out < dbn.UNDEF_TIMESTAMP for each in records)


async def test_a_start_and_a_derived_schema(program, orders):
    start = str(MAY_1 + 30)
    async with gateway(orders, from_ns=MAY_1 + 31) as address:
        records = await received(
            program,
            address,
            f"mbo/instrument_id/1/{start}",
            f"trades/raw_symbol/AAPL,NONE/{start}",
        )
    assert texts(records) == [
        "metadata",
        ACK.format(1, "mbo"),
        "1 = AAPL 1",
        ACK.format(2, "trades"),
        "AAPL = AAPL 1",
        "error 4: Failed to resolve symbol: NONE",
        "MBOMsg 1 30",
        "TradeMsg 1 30",
        "Finished mbo replay",
        "Finished trades replay",
    ]


async def test_a_snapshot(program, orders):
    async with gateway(orders, from_ns=MAY_1 + 30) as address:
        records = await received(program, address, "mbo/raw_symbol/AAPL/snapshot")
    clear, bid, ask, end, trade_ = [each for each in records if isinstance(each, dbn.MBOMsg)]
    assert [str(each.action) for each in (clear, bid, ask, end)] == ["R", "A", "A", "N"]
    assert (clear.flags, bid.order_id, ask.order_id) == (40, 9, 10)
    assert bytes(trade_) == bytes(decoded(orders.read_bytes())[2])


async def test_an_end_of_a_subscription(program, trades):
    async with gateway(trades, at_end="hold") as address:
        records = await received(
            program, address, "trades/raw_symbol/AAPL", "trades/raw_symbol/AAPL/unsubscribe"
        )
    assert texts(records)[-1] == "Unsubscribed from trades data"


async def test_an_unknown_key(program, trades, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("alice " + "a" * 32)
    keys.chmod(0o600)
    async with gateway(trades, keys=str(keys)) as address:
        arguments = (address, KEY, "XNAS.ITCH", "none", "0", "trades/raw_symbol/AAPL")
        written, failure = await output(program, *arguments)
    assert not written
    assert "authentication failed" in failure
