"""Databento's official client as a live source, against the live gateway of mdtool."""

from __future__ import annotations

import asyncio
import signal
import socket
import warnings

import aiohttp
import databento_dbn as dbn
import pytest

from mdtool.adapters.live.config import SourceConfig
from mdtool.adapters.live.records import open_live
from mdtool.core.dtypes import RTYPE_MBO, RTYPE_SYSTEM, RTYPE_TRADE
from mdtool.core.errors import MdtoolError, PeerError, UsageError
from mdtool.core.stream_warnings import ERROR_RECORD, warnings_in
from tests.support.commands import output_of
from tests.support.dbn_files import MAY_1, header, order, trade, write
from tests.support.live_clients import gateway
from tests.support.live_sources import Reader
from tests.support.supervised import FREE_PORTS, serve
from tests.support.waiting import WITHIN_S, bounded

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of pandas, which it imports
    pytest.importorskip("databento", reason="the official client is not installed")
    import mdtool.adapters.live.databento

N_RECORDS = 3_000
NAMES = {"AAPL": {1: 1}, "MSFT": {1: 2}}
KEY = "k" * 32


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv(mdtool.adapters.live.databento.KEY, KEY)


@pytest.fixture
def trades(tmp_path):
    records = [trade(1 + at % 2, MAY_1 + at * 10**5, 10, 1) for at in range(N_RECORDS)]
    return write(tmp_path / "trades.dbn", header(NAMES), *records)


async def read(address: str, *symbols: str, **settings) -> dict[int, list]:
    """Read a source to its end; return its batches by rtype."""
    fixed = {"gateway": address, "dataset": "XNAS.ITCH", "max_wait_s": 0.05}
    config = SourceConfig(**{**fixed, **settings})

    def work() -> dict[int, list]:
        found: dict[int, list] = {}
        with open_live("databento", symbols or ["ALL_SYMBOLS"], config) as source:
            for batch in source:
                found.setdefault(batch.rtype, []).append(batch)
        return found

    async with asyncio.timeout(WITHIN_S):
        return await asyncio.to_thread(work)


async def test_a_replay_is_read_to_its_end(trades):
    async with gateway(trades) as address:
        batches = (await read(address, "AAPL"))[RTYPE_TRADE]
    assert sum(map(len, batches)) == N_RECORDS // 2
    assert {symbol for batch in batches for symbol in batch.symbols} == {"AAPL"}


async def test_several_schemas(tmp_path):
    orders = [order(1, MAY_1 + at, "A", "B", 10, 1, order_id=1 + at) for at in range(10)]
    file = write(tmp_path / "mbo.dbn", header(NAMES, "mbo"), *orders)
    async with gateway(file) as address:
        batches = await read(address, schema="mbo,trades")
    assert sum(map(len, batches[RTYPE_MBO])) == 10


async def test_a_rejected_key_is_not_shown(trades, tmp_path, caplog):
    keys = tmp_path / "keys"
    keys.write_text(f"me {'o' * 32}\n")
    keys.chmod(0o600)
    async with gateway(trades, keys=str(keys)) as address:
        with pytest.raises(PeerError, match=r"databento: rejected .* check DATABENTO_API_KEY") as e:
            await read(address, "AAPL")
    assert KEY not in caplog.text + str(e.value)


async def test_a_dataset_that_is_not_served_ends_it(trades, caplog):
    async with gateway(trades) as address:
        with pytest.raises(PeerError) as rejected:
            await read(address, "AAPL", dataset="GLBX.MDP3")
    said = "dataset GLBX.MDP3 is not served here; choose from XNAS.ITCH"
    assert str(rejected.value) == f"databento: rejected ({said})"
    assert "connecting again" not in caplog.text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Not authorized for XNAS.ITCH", "; check DATABENTO_API_KEY"),
        ("A live data license is required to access XNAS.ITCH.", ""),
        ("words that nobody knows", ""),
    ],
)
async def test_whatever_the_authentication_rejects_ends_it_unless_it_passes(trades, text, hint):
    async with gateway(trades, faults=f"wrong-auth text={text}") as address:
        with pytest.raises(PeerError) as rejected:
            await read(address, "AAPL")
    assert str(rejected.value) == f"databento: rejected ({text}){hint}"


async def test_an_unknown_symbol_is_an_error_at_the_end(trades):
    async with gateway(trades) as address:
        with pytest.raises(PeerError, match="Failed to resolve symbol: NONE"):
            await read(address, "AAPL", "NONE")


async def test_a_session_that_is_reset_is_a_gap_and_another_one_follows(trades):
    async with gateway(trades, faults="reset after=1000 session=1", at_end="loop") as address:
        config = SourceConfig(gateway=address, dataset="XNAS.ITCH", max_wait_s=0.05)
        source = await asyncio.to_thread(open_live, "databento", ["AAPL"], config)
        reader = Reader(source)
        try:
            await reader.of(RTYPE_TRADE)
            while not (found := warnings_in((await reader.of(RTYPE_SYSTEM)).records)):
                pass
            assert found[0].kind == "skipped_records"
            await reader.of(RTYPE_TRADE)
            assert source.counts["gaps"] == 1
        finally:
            await asyncio.to_thread(source.close)


@pytest.mark.parametrize(
    "fault",
    [
        "error code=3 text=busy after=10",
        "error code=6 text=internal after=10",
        "error code=7 text=skipped after=10",
        "wrong-auth text=User has reached their open connection limit",
    ],
)
async def test_an_error_of_the_moment_is_followed_by_another_session(trades, fault):
    async with gateway(trades, faults=f"{fault} session=1") as address:
        batches = (await read(address, "AAPL"))[RTYPE_TRADE]
    # What came of the first session comes again.
    assert sum(map(len, batches)) >= N_RECORDS // 2


@pytest.fixture
def capture(tmp_path):
    """Two trades, and an error of the recorded session between them."""
    error = dbn.ErrorMsg(ts_event=MAY_1 + 1, err="at the time", is_last=True, code=dbn.ErrorCode(6))
    records = [trade(1, MAY_1, 10, 1), bytes(error), trade(1, MAY_1 + 2, 10, 1)]
    return write(tmp_path / "capture.dbn", header(NAMES), *records)


async def test_a_recorded_error_is_none_of_the_session(capture):
    async with gateway(capture) as address:
        batches = await read(address, "AAPL")
    assert sum(map(len, batches[RTYPE_TRADE])) == 2
    warned = [each for batch in batches[RTYPE_SYSTEM] for each in warnings_in(batch.records)]
    assert [(each.kind, each.text) for each in warned] == [(ERROR_RECORD, "at the time (code 6)")]


async def test_sessions_that_all_end_at_one_record_end_it(capture):
    """As of input that breaks off; here the file's records are sent unchanged."""
    said = (
        "databento: 3 sessions in succession ended at the same record, after 2 (at the time); "
        "check what the gateway plays"
    )
    async with gateway(capture, bare=True) as address:
        with pytest.raises(PeerError) as ended:
            await read(address, "AAPL")
    assert str(ended.value) == said


async def test_input_that_breaks_off_is_not_read_for_ever(trades):
    with trades.open("r+b") as file:
        file.truncate(trades.stat().st_size - 10)
    async with gateway(trades) as address:
        with pytest.raises(PeerError, match=r"3 sessions .* after 2,999 \(.*trades\.dbn"):
            await read(address, "ALL_SYMBOLS")


@pytest.mark.parametrize("code", [2, 5, 8])
async def test_a_rejection_ends_it(trades, code):
    async with gateway(trades, faults=f"error code={code} text=because after=10") as address:
        with pytest.raises(PeerError, match="databento: because"):
            await read(address, "AAPL")


async def test_an_end_leaves_what_has_come_and_nothing_more(trades):
    """However fast the gateway goes on sending."""
    async with gateway(trades, at_end="loop") as address:
        config = SourceConfig(gateway=address, dataset="XNAS.ITCH")
        source = await asyncio.to_thread(open_live, "databento", ["AAPL"], config)
        reader = Reader(source)
        try:
            n_records = 0
            while n_records < N_RECORDS:
                n_records += len(await reader.next())
            source.end()
            n_come = source.counts["records"]
            while (batch := await reader.next()) is not None:
                n_records += len(batch)
            assert n_records == n_come == source.counts["records"]
        finally:
            await asyncio.to_thread(source.close)


@pytest.mark.usefixtures("no_settings")
async def test_a_stack_is_served_while_its_source_is_unavailable(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("MDTOOL_INGEST_GATEWAY", address)
    monkeypatch.setenv("MDTOOL_INGEST_DATASET", "XNAS.ITCH")
    options = ("--ingest", "databento", "--symbols", "AAPL", "--memory", *FREE_PORTS)
    with serve("all", "-J", *options) as services:
        addresses = await asyncio.to_thread(services.addresses, 4)
        url = f"http://{addresses['gateway']}/api/v2/symbols"
        async with bounded(), aiohttp.ClientSession() as http, http.get(url) as answer:
            assert (await answer.json())["data"] == []
        assert await asyncio.to_thread(services.end, signal.SIGINT) == 130


@pytest.mark.parametrize("dataset", ["XNAS.ITHC", "xnas.itch"])
async def test_a_dataset_that_does_not_exist_is_not_looked_for(dataset):
    """The names of the vendor's gateways have the dataset's."""
    with pytest.raises(UsageError) as rejected:
        await read("", "AAPL", dataset=dataset)
    assert str(rejected.value) == (
        f"--dataset {dataset}: is not known to the installed client; --gateway HOST:PORT "
        "connects to others; did you mean 'XNAS.ITCH'?"
    )


@pytest.mark.usefixtures("no_settings")
def test_a_stack_without_a_dataset_does_not_start():
    arguments = ("serve", "all", "--ingest", "databento", "--symbols", "AAPL", "--memory")
    output_of(*arguments, status=2, said="ingest databento: name its dataset")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dataset": ""}, "name its dataset"),
        ({"record": "x"}, "write it with -o"),
        ({"schema": "nope"}, "databento: .*nope"),
        ({"stype_in": "nope"}, "databento: .*nope"),
    ],
)
async def test_wrong_usage(trades, settings, said):
    async with gateway(trades) as address:
        with pytest.raises(MdtoolError, match=said):
            await read(address, "AAPL", **settings)
