"""The VWAP feed among the services: what it tells is what the filter says of the same trades."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

from mdtool.adapters.outputs import OutputSpec, open_output
from mdtool.engine.simulate import Exchange
from mdtool.wire.dbn_metadata import make_metadata
from tests.e2e.supervised import FREE_PORTS, serve

SYMBOLS = ("AAPL", "MSFT")
ONLY = ["--only", "serve-tcp,aggregate,vwap"]


def filtered(path) -> dict[str, float]:
    """The last VWAP of each symbol, by the filter."""
    done = subprocess.run(
        [sys.executable, "-m", "mdtool", "vwap", str(path), "-J", "-p", "-s"],
        capture_output=True,
        check=True,
    )
    rows = map(json.loads, done.stdout.splitlines())
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


def test_the_feed_tells_what_the_filter_does_also_once_it_was_killed(tmp_path):
    exchange = Exchange(SYMBOLS, seed=3)
    trades = exchange.generate(20_000, "trades")
    path = tmp_path / "trades.dbn"
    metadata = make_metadata("TEST", "trades", exchange.start_ns, None, exchange.instruments)
    output = open_output(OutputSpec("dbn", str(path)), metadata)
    output.write(trades)
    output.close()
    expected = filtered(path)
    assert set(expected) == set(SYMBOLS)

    data = ["--data-dir", str(tmp_path / "data")]
    source = ["--replay", str(path), "--speed", "0"]
    with serve("all", *ONLY, *source, "-J", *FREE_PORTS, *data) as services:
        address = services.addresses(3)["vwap"]
        wait_for(address, expected)
        os.kill(services.pids()["vwap"], signal.SIGKILL)
        services.heard("vwap: running again")
        wait_for(address, expected)
        assert services.end(signal.SIGTERM) == 0
