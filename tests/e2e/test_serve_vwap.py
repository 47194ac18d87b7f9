"""The VWAP feed among the services: what it tells is what the filter says of the same trades."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket

import pytest

from mdtool.adapters.aggregator import AggregatorClient
from mdtool.adapters.outputs import OutputSpec, open_output
from mdtool.engine.simulate import Exchange
from mdtool.wire.dbn_metadata import make_metadata
from tests.support.commands import output_of
from tests.support.instruments import batch
from tests.support.services import port_for
from tests.support.supervised import FREE_PORTS, check, serve
from tests.support.vwap_feeds import vwap_feed

SYMBOLS = ("AAPL", "MSFT")
ONLY = ["--only", "serve-tcp,aggregate,vwap"]


def filtered(path) -> dict[str, float]:
    """The last VWAP of each symbol, by the filter."""
    rows = map(json.loads, output_of("vwap", path, "-J", "-p", "-s").splitlines())
    return {row["symbol"]: float(row["price"]) for row in rows}


def wait_for(address: str, expected: dict[str, float]) -> None:
    """Read the feed until it tells these VWAPs."""
    host, _, port = address.rpartition(":")
    told: dict[str, float] = {}
    with socket.create_connection((host, int(port))) as connection:
        for line in connection.makefile("rb"):
            state = json.loads(line)
            told[state["symbol"]] = state["vwap"]
            if told == expected:
                return
    raise AssertionError(f"the feed ended with {told}, not {expected}")


@pytest.mark.parametrize(("form", "name"), [((), "services"), (("--processes",), "vwap")])
def test_the_feed_agrees_with_the_filter_also_after_a_kill(tmp_path, form, name):
    exchange = Exchange(SYMBOLS, seed=3)
    trades = exchange.generate(20_000, "trades")
    path = tmp_path / "trades.dbn"
    metadata = make_metadata("TEST", "trades", exchange.start_ns, None, exchange.instruments)
    output = open_output(OutputSpec("dbn", str(path)), metadata)
    output.write(batch(trades))
    output.close()
    expected = filtered(path)
    assert set(expected) == set(SYMBOLS)

    data = ["--data-dir", str(tmp_path / "data")]
    source = ["--replay", str(path), "--speed", "0"]
    with serve("all", *form, *ONLY, *source, "-J", *FREE_PORTS, *data) as services:
        address = services.addresses(3)["vwap"]
        wait_for(address, expected)
        os.kill(services.pids()[name], signal.SIGKILL)
        services.heard(f"{name}: running again")
        wait_for(address, expected)
        assert services.end(signal.SIGTERM) == 0


async def first_probe(aggregator: str) -> None:
    """Wait until the aggregator has any."""
    came = asyncio.Event()

    def receive(_symbols, updates):
        if updates.probes:
            came.set()

    async with AggregatorClient(aggregator) as client:
        following = asyncio.create_task(client.follow(receive))
        await came.wait()
        following.cancel()


@contextlib.asynccontextmanager
async def relay(port: int, address: str):
    """Hand on to an address whatever comes at a port, until the block ends."""
    host, _, target = address.rpartition(":")
    writers = []

    async def copy(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()

    async def serve_one(reader, writer):
        far_reader, far_writer = await asyncio.open_connection(host, int(target))
        writers.extend([writer, far_writer])
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    async with await asyncio.start_server(serve_one, "127.0.0.1", port):
        yield
        for writer in writers:
            writer.close()


async def test_a_check_waits_for_a_feed_that_finds_the_aggregator_late():
    with serve("all", "--only", "serve-tcp,aggregate", "-J", *FREE_PORTS) as services:
        addresses = await asyncio.to_thread(services.addresses, 2)
        port = port_for(services)
        async with vwap_feed(f"127.0.0.1:{port}") as vwap:
            asked = {**addresses, "vwap": vwap}
            only = ["--only", "serve-tcp,aggregate,vwap"]
            checking = asyncio.create_task(asyncio.to_thread(check, asked, *only))
            await first_probe(addresses["aggregate"])
            async with relay(port, addresses["aggregate"]):
                checked = await checking
        assert (checked.returncode, checked.stderr) == (0, "")
        assert services.end(signal.SIGTERM) == 0
