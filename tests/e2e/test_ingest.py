"""`mdtool ingest` as users run it: into files, into pipes, interrupted, and with metrics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request

import aiohttp
import pytest

from mdtool.adapters.dbn_files import open_source
from mdtool.adapters.stores import open_history
from mdtool.adapters.stores.port import SymbolTotals
from tests.support.commands import MDTOOL, completed, output_of
from tests.support.live_clients import gateway, session, texts, wants
from tests.support.live_sources import AT_NS, Finnhub, Kraken, subscribed
from tests.support.services import service
from tests.support.supervised import FREE_PORTS, serve
from tests.support.waiting import WITHIN_S, bounded


@contextlib.asynccontextmanager
async def ingesting(*arguments: object, env=None):
    """The command as a process, within the block."""
    process = await asyncio.create_subprocess_exec(
        *MDTOOL,
        "ingest",
        *map(str, arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def ended(process) -> tuple[int, bytes, str]:
    async with asyncio.timeout(WITHIN_S):
        out, errors = await process.communicate()
    return process.returncode, out, errors.decode()


@pytest.fixture
async def kraken():
    async with Kraken().running() as server:
        yield server


def trades_of(path) -> list[int]:
    with open_source(str(path)) as source:
        return [price for batch in source if batch.rtype == 0 for price in batch.records["price"]]


async def test_ctrl_c_completes_a_file(kraken, tmp_path, free_port):
    path = tmp_path / "day.dbn.zst"
    options = ("--url", kraken.url, "-o", path, "--metrics-port", free_port)
    async with ingesting("kraken", "BTC/USD", *options) as process:
        client = await subscribed(kraken)
        await client.say(*(kraken.trade("BTC/USD", str(n), "1", AT_NS, n) for n in (1, 2, 3)))
        url = f"http://127.0.0.1:{free_port}/metrics"
        async with bounded():
            while b'trades_total{source="kraken"} 3.0' not in await asyncio.to_thread(fetched, url):
                await client.say('{"channel":"heartbeat"}')
        process.send_signal(signal.SIGINT)
        status, _, errors = await ended(process)
    assert status == 130, errors
    assert "kraken: 3 trades" in errors
    assert trades_of(path) == [10**9, 2 * 10**9, 3 * 10**9]


def fetched(url: str) -> bytes:
    """What is there; nothing while nobody listens yet."""
    try:
        with urllib.request.urlopen(url, timeout=WITHIN_S) as answer:
            return answer.read()
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError:
        return b""


async def test_a_limit_counts_trades_not_definitions(kraken):
    options = ("--url", kraken.url, "-l", "2")
    async with ingesting("kraken", "BTC/USD", *options) as process:
        client = await subscribed(kraken)
        await client.say(*(kraken.trade("BTC/USD", str(n), "0.5", AT_NS, n) for n in (1, 2, 3)))
        status, out, errors = await ended(process)
    assert status == 0, errors
    bars = output_of("vwap", "-", "--window", "2", "-J", "-p", "-s", stdin=out)
    values = [each for line in bars.splitlines() if "quantity" in (each := json.loads(line))]
    assert [(each["symbol"], each["quantity"]) for each in values] == [
        ("BTC/USD", "50000"),
        ("BTC/USD", "100000"),
    ]


async def test_text_has_the_trades(kraken):
    options = ("--url", kraken.url, "-l", "1", "-C", "-p", "-s")
    async with ingesting("kraken", "BTC/USD", *options) as process:
        client = await subscribed(kraken)
        await client.say(kraken.trade("BTC/USD", "50000.1", "0.5", AT_NS, 1))
        status, out, errors = await ended(process)
    assert status == 0, errors
    _, row = out.decode().splitlines()
    assert "50000.100000000" in row
    assert row.endswith("BTC/USD")


async def test_a_recording_is_run_again_without_a_network(kraken, tmp_path):
    options = ("--url", kraken.url, "--record", tmp_path, "-l", "2")
    async with ingesting("kraken", "BTC/USD", *options) as process:
        client = await subscribed(kraken)
        await client.say(*(kraken.trade("BTC/USD", str(n), "1", AT_NS, n) for n in (1, 2)))
        status, out, errors = await ended(process)
    assert status == 0, errors
    again = await asyncio.to_thread(completed, "ingest", "kraken", "--replay", tmp_path)
    assert again.returncode == 0
    assert again.stdout == out


@pytest.mark.parametrize("is_piped", [False, True])
async def test_a_live_gateway_makes_bars_of_what_a_source_sends(kraken, tmp_path, is_piped):
    """No header of a source names a schema: its first trades do."""
    options = ("--url", kraken.url, "-l", "2")
    async with ingesting("kraken", "BTC/USD", *options) as process:
        client = await subscribed(kraken)
        await client.say(*(kraken.trade("BTC/USD", str(n), "0.5", AT_NS, n) for n in (1, 2)))
        status, out, errors = await ended(process)
    assert status == 0, errors
    path = tmp_path / "ingested.dbn"
    path.write_bytes(out)
    bars = wants("BTC/USD", schema="ohlcv-1s")
    async with contextlib.AsyncExitStack() as stack:
        if is_piped:
            source = stack.enter_context(path.open("rb"))
            child = service("live-gateway", "-", "--port", 0, stdin=source)
            address = stack.enter_context(child).address
        else:
            address = await stack.enter_async_context(gateway(path))
        received = await session(address, bars, wants("BTC/USD"), dataset="KRAKEN")
    assert texts(received)[-4:] == [
        f"TradeMsg 1 {AT_NS % 10**9}",
        f"TradeMsg 1 {AT_NS % 10**9}",
        "OHLCVMsg 1 0",
        "End of interval for ohlcv-1s",
    ]


async def test_a_rejected_key_ends_the_command(tmp_path):
    async with Finnhub().running() as server:
        server.accepts_keys = False
        env = {"FINNHUB_API_KEY": "very-secret"}
        options = ("--url", server.url)
        async with ingesting("finnhub", "AAPL", *options, env=env) as process:
            status, _, errors = await ended(process)
    assert status == 1
    assert "finnhub: rejected (status 401); check FINNHUB_API_KEY" in errors
    assert "very-secret" not in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["krakn", "BTC/USD"], "no such source; did you mean 'kraken'"),
        (["kraken"], "name its symbols"),
        (["kraken", "é"], "is not a symbol"),
        (["kraken", "BTC/USD", "--schema", "mbp-1"], "the source has trades"),
        (["kraken", "BTC/USD", "--lot", "1"], "is not SYMBOL=STEP"),
        (["kraken", "BTC/USD", "--lot", "BTC/USDT=1"], "requested; did you mean 'BTC/USD'?"),
        (["binance", "btcusdt", "--lot", "btcusdt=1"], "requested; choose from BTCUSDT"),
        (["databento", "ES.c.0", "--dataset", "X", "--lot", "A=1"], "sends its own sizes"),
        (["alpaca", "A", "--dataset", "nope"], "needs a key; set APCA_API_KEY_ID and"),
    ],
)
def test_wrong_usage(arguments, said):
    output_of("ingest", *arguments, status=2, said=said)


def test_no_recording(tmp_path):
    output_of("ingest", "kraken", "--replay", tmp_path, status=1, said="has no recording of kraken")
    file = tmp_path / "kraken-1.tsv"
    file.write_text("1\tsource\tkraken A\nnonsense\n")
    output_of("ingest", "kraken", "--replay", tmp_path, status=1, said="line 2 is not of a")


def test_keys_that_others_can_read(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("FINNHUB_API_KEY=x")
    keys.chmod(0o644)
    output_of("ingest", "finnhub", "A", "--keys", keys, status=1, said="chmod 600")


@pytest.mark.usefixtures("no_settings")
@pytest.mark.parametrize("form", [(), ("--processes",)], ids=["one process", "processes"])
async def test_a_live_source_feeds_the_stack(kraken, form, monkeypatch):
    monkeypatch.setenv("MDTOOL_INGEST_URL", kraken.url)
    options = ("--ingest", "kraken", "--symbols", "BTC/USD, ETH/USD", *FREE_PORTS)
    with serve("all", "-J", *form, *options) as services:
        client = await subscribed(kraken)
        await client.say(
            kraken.trade("BTC/USD", "50000.1", "0.5", AT_NS, 1),
            kraken.trade("ETH/USD", "3000", "2", AT_NS, 2),
        )
        addresses = await asyncio.to_thread(services.addresses, 4)
        url = f"http://{addresses['gateway']}/api/v2/aggregates/BTC%2FUSD"
        async with bounded():
            while (found := await asyncio.to_thread(served, url)) is None:
                await client.say('{"channel":"heartbeat"}')
        url = f"http://{addresses['gateway']}/api/v2/symbols"
        symbols = json.loads(await asyncio.to_thread(fetched, url))["data"]
        streamed = await first_of_stream(f"ws://{addresses['gateway']}/stream", "symbols")
        assert await asyncio.to_thread(services.end, signal.SIGINT) == 130
    assert {each["symbol"]: each["lot"] for each in symbols}["BTC/USD"] == "0.00001"
    assert streamed["lot"] == "0.00001"
    assert (found["close"], found["volume"]) == ("50000.1", "50000")


async def first_of_stream(url: str, channel: str) -> dict:
    """The first that `/stream` sends of BTC/USD."""
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        await socket.send_json(
            {"op": "subscribe", "id": 1, "channel": channel, "symbols": ["BTC/USD"]}
        )
        async with bounded():
            while "data" not in (message := await socket.receive_json()):
                pass
        return message["data"]


def served(url: str) -> dict | None:
    """What the gateway has of a symbol, None before it knows it."""
    try:
        return json.loads(fetched(url))["data"]
    except urllib.error.HTTPError as error:
        with error:
            return None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lot": "BTC/USDT=1"}, "requested; did you mean 'BTC/USD'?"),
        ({"lot": "1"}, "is not SYMBOL=STEP"),
        ({"schema": "mbo"}, "the source has trades"),
    ],
)
def test_settings_of_the_source_are_checked_before_the_stack_starts(settings, said, monkeypatch):
    for name, value in settings.items():
        monkeypatch.setenv(f"MDTOOL_INGEST_{name.upper()}", value)
    output_of("serve", "all", "--ingest", "kraken", "--symbols", "BTC/USD", status=2, said=said)


def test_the_stack_does_not_start_without_the_sources_key(monkeypatch):
    monkeypatch.delenv("FINNHUB_API_KEY", raising=False)
    options = ("--ingest", "finnhub", "--symbols", "AAPL")
    output_of("serve", "all", *options, status=2, said="finnhub: needs a key; set FINNHUB_API_KEY")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ingest", "kraken"], "name its symbols with --symbols"),
        (["--ingest", "krakn", "--symbols", "A"], "no such source; did you mean 'kraken'"),
        (["--symbols", "A"], "name it with --ingest SOURCE"),
        (["--ingest", "kraken", "--symbols", "A", "--simulate"], "--simulate and --ingest: choose"),
    ],
)
def test_wrong_sources_of_the_stack(arguments, said):
    output_of("serve", "all", *arguments, status=2, said=said)


async def test_info_shows_the_lots(kraken):
    options = ("--url", kraken.url, "-l", "1")
    async with ingesting("kraken", "BTC/USD", *options) as process:
        client = await subscribed(kraken)
        await client.say(kraken.trade("BTC/USD", "1", "0.5", AT_NS, 1))
        _, out, _ = await ended(process)
    report = json.loads(output_of("info", "-", "--json", "--deep", stdin=out))
    assert report["lots"] == [{"symbol": "BTC/USD", "lot": "0.00001"}]


async def test_a_capture_is_stored_with_its_lots_and_refused_with_others(kraken, tmp_path):
    captures = []
    for step in ("0.00001", "0.00002"):
        captures.append(tmp_path / f"{step}.dbn.zst")
        options = ("--url", kraken.url, "-l", "1", "-o", captures[-1], "--lot", f"BTC/USD={step}")
        async with ingesting("kraken", "BTC/USD", *options) as process:
            client = await subscribed(kraken)
            await client.say(kraken.trade("BTC/USD", "1", "0.5", AT_NS, 1))
            await ended(process)
    url = f"sqlite:///{tmp_path / 'trades.db'}"
    output_of("store", "import", captures[0], "--store", url)
    with open_history(url) as history:
        assert history.symbols() == [SymbolTotals("BTC/USD", 1, AT_NS, 10_000)]
    output_of("store", "import", captures[1], "--store", url, status=1, said="has a lot of 0.00002")
    output_of("aggregate", *captures, status=1, said="the lot of BTC/USD is 0.00002, and 0.00001")


def test_a_port_of_metrics_that_is_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = ("--metrics-port", port, "--url", "ws://127.0.0.1:1")
        output_of(
            "ingest", "kraken", "A", *options, status=3, said=f"port {port} on 127.0.0.1 is in use"
        )
