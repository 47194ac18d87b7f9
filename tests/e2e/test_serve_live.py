"""`mdtool serve all --live`: a live gateway beside the other services."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import databento_dbn as dbn
import pytest

from tests.support.live_clients import session, trades_apart, wants
from tests.support.supervised import FREE_PORTS, serve

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.mark.parametrize("form", [(), ("--processes",)], ids=["one process", "processes"])
def test_sessions_beside_the_stack(tmp_path, form):
    path = trades_apart(tmp_path, 20)
    options = ("--live", str(path), "--speed", "0", "-J", "--live-gateway-port", "0")
    with serve("all", *options, *form, *FREE_PORTS) as services:
        addresses = services.addresses(5)
        assert addresses.keys() >= {"live-gateway", "gateway", "serve-tcp"}
        received = asyncio.run(session(addresses["live-gateway"], wants("AAPL")))
    assert sum(isinstance(each, dbn.TradeMsg) for each in received) == 20


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--only", "live-gateway"), "name a file with --live FILE"),
        (("--live", "/nothing.dbn"), "no such file"),
        (("--live", "/", "--only", "gateway"), "which --only leaves out"),
    ],
)
def test_what_is_not_valid(options, why):
    command = [sys.executable, "-m", "mdtool", "serve", "all", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode
    assert why in ended.stderr
