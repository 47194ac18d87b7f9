"""`mdtool serve all` with a source: a simulated market, or a file that is replayed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager

import aiohttp
import databento_dbn as dbn
import pytest

from tests.support.supervised import FREE_PORTS, PATIENCE_S, Watch, needs_pidfd, serve

pytestmark = pytest.mark.usefixtures("no_settings")

PROGRAMS = ("simulate", "serve-tcp", "aggregate", "gateway")
in_both_forms = pytest.mark.parametrize(
    "form", [(), ("--processes",)], ids=["one process", "processes"]
)


@pytest.fixture
def form():
    """Options for the default form."""
    return ()


@pytest.fixture
def simulation(form):
    with serve("all", "--simulate", "-J", *form, *FREE_PORTS) as services:
        yield services


@pytest.fixture(scope="module")
def trades(tmp_path_factory):
    """A file of simulated trades, and what each symbol's volume comes to."""
    file = tmp_path_factory.mktemp("trades") / "trades.dbn"
    options = ["--schema", "trades", "--limit", "5000", "-o", str(file)]
    subprocess.run(
        [sys.executable, "-m", "mdtool", "simulate", *options], check=True, capture_output=True
    )
    decoder = dbn.DBNDecoder()
    decoder.write(file.read_bytes())
    metadata, *records = decoder.decode()
    symbols = {
        int(interval["symbol"]): symbol
        for symbol, intervals in metadata.mappings.items()
        for interval in intervals
    }
    volumes = Counter()
    for record in records:
        volumes[symbols[record.instrument_id]] += record.size
    return file, volumes


@asynccontextmanager
async def updates(gateway, symbol):
    """Give the aggregates of a symbol as they come."""
    url = f"http://{gateway}/ws/marketdata?symbol={symbol}"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:

        async def messages():
            async for message in socket:
                yield json.loads(message.data)

        yield messages()


async def market_data(gateway, symbol):
    url = f"http://{gateway}/api/v1/marketdata/{symbol}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        return await response.json()


async def volume_reaches(gateway, symbol, volume):
    async with updates(gateway, symbol) as aggregates:
        async for aggregate in aggregates:
            assert aggregate["volume"] <= volume
            if aggregate["volume"] == volume:
                return


@in_both_forms
async def test_a_simulated_market_is_served_live(simulation):
    gateway = simulation.addresses(4)["gateway"]
    async with asyncio.timeout(PATIENCE_S), updates(gateway, "AAPL") as aggregates:
        first = later = await anext(aggregates)
        while later["volume"] == first["volume"]:
            later = await anext(aggregates)
    assert later["volume"] > first["volume"]
    seen = await market_data(gateway, "AAPL")
    assert set(seen) == {"symbol", "open", "high", "low", "close", "volume", "timestamp"}
    assert seen["symbol"] == "AAPL"
    assert seen["low"] <= seen["open"] <= seen["high"]
    assert seen["low"] <= seen["close"] <= seen["high"]
    assert int(seen["volume"]) >= later["volume"]
    assert isinstance(seen["volume"], str)
    assert int(seen["timestamp"]) >= later["timestamp"]
    assert isinstance(seen["timestamp"], str)
    url = f"http://{gateway}/ws?symbols=AAPL"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        async with asyncio.timeout(PATIENCE_S):
            while (quote := await socket.receive_json())["bid"] is None:
                pass
    assert quote["bid"] < quote["ask"]
    assert quote["last"] > 0


@pytest.mark.parametrize(
    ("form", "name"), [((), "services"), *((("--processes",), name) for name in PROGRAMS)]
)
async def test_data_flows_on_after_any_process_is_killed(simulation, name):
    gateway = simulation.addresses(4)["gateway"]
    async with updates(gateway, "AAPL") as aggregates:
        before = await anext(aggregates)
    os.kill(simulation.pids()[name], signal.SIGKILL)
    simulation.heard(rf"WARNING {name} was killed by SIGKILL; starting it again")
    simulation.heard(rf"{name}: started as process")
    if name != "simulate":
        simulation.heard(rf"{name}: running again")
    async with updates(gateway, "AAPL") as aggregates:
        async for aggregate in aggregates:
            if aggregate["timestamp"] > before["timestamp"] and "stale" not in aggregate:
                break
    assert simulation.end(signal.SIGTERM) == 0


@needs_pidfd
@in_both_forms
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
async def test_a_stop_in_full_flow_commits_what_was_accepted(simulation, number, status):
    gateway = simulation.addresses(4)["gateway"]
    async with updates(gateway, "AAPL") as aggregates:
        await anext(aggregates)
    with Watch(simulation.pids().values()) as processes:
        assert simulation.end(number) == status
        assert processes.all_ended(timeout_s=0)
    said = "".join(simulation.lines)
    assert "WARNING" not in said
    assert "Traceback" not in said
    assert "stopped with" not in said
    assert "killed" not in said


@needs_pidfd
async def test_nothing_is_left_of_a_supervisor_that_is_killed_in_full_flow(simulation):
    gateway = simulation.addresses(4)["gateway"]
    async with updates(gateway, "AAPL") as aggregates:
        await anext(aggregates)
    with Watch(simulation.pids().values()) as processes:
        simulation.process.kill()
        assert processes.all_ended(PATIENCE_S)


@in_both_forms
async def test_a_replay_counts_every_trade_once_and_leaves_the_services_running(trades, form):
    file, volumes = trades
    options = ["--replay", str(file), "--speed", "0", "-J", *form, *FREE_PORTS]
    with serve("all", *options) as services:
        gateway = services.addresses(4)["gateway"]
        assert services.heard("replay (has ended|failed.*)")[1] == "has ended"
        for symbol, volume in volumes.items():
            await volume_reaches(gateway, symbol, volume)
        assert services.end(signal.SIGTERM) == 0


async def test_a_file_that_is_replayed_into_a_store_again_changes_nothing(trades, tmp_path):
    file, volumes = trades
    replay = ("all", "--replay", str(file), "--data-dir", str(tmp_path), "-J", *FREE_PORTS)
    for speed, said in [("0", "Accepted 5000 ticks"), ("0.001", "All 5,000 .*--again")]:
        with serve(*replay, "--speed", speed) as services:
            gateway = services.addresses(4)["gateway"]
            services.heard(rf"replay +\| .*{said}")
            for symbol, volume in volumes.items():
                await volume_reaches(gateway, symbol, volume)
            assert services.end(signal.SIGTERM) == 0
    with serve(*replay, "--speed", "0", "--again") as services:
        gateway = services.addresses(4)["gateway"]
        services.heard(r"replay +\| .*Accepted 5000 ticks")
        for symbol, volume in volumes.items():
            await volume_reaches(gateway, symbol, 2 * volume)
        assert services.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("form", "name"),
    [((), "services"), (("--processes",), "replay"), (("--processes",), "serve-tcp")],
)
async def test_a_replay_that_is_cut_off_still_counts_every_trade_once(trades, form, name):
    file, volumes = trades
    options = ["--replay", str(file), "--speed", "8", "-J", *form, *FREE_PORTS]  # for 9 s
    with serve("all", *options) as services:
        gateway = services.addresses(4)["gateway"]
        async with updates(gateway, "AAPL") as aggregates:
            await anext(aggregates)
            os.kill(services.pids()[name], signal.SIGKILL)
        services.heard(f"{name} was killed by SIGKILL")
        assert services.heard("replay (has ended|failed.*)")[1] == "has ended"
        for symbol, volume in volumes.items():
            await volume_reaches(gateway, symbol, volume)
        assert services.end(signal.SIGTERM) == 0


def test_input_that_is_not_dbn_is_reported_and_leaves_the_services_running(tmp_path):
    (tmp_path / "notes.txt").write_text("no market data here\n" * 10)
    options = ["--replay", "notes.txt", "-J", *FREE_PORTS]
    with serve("all", *options) as services:
        services.heard(r"replay +\| .* ERROR +replay failed: notes.txt")
        services.addresses(4)
        assert services.end(signal.SIGTERM) == 0
    with serve("all", "--processes", *options) as services:
        services.heard(r"replay +\| mdtool: notes.txt")
        services.heard("ERROR +replay failed with exit status 1")
        services.addresses(4)
        assert services.end(signal.SIGTERM) == 0
