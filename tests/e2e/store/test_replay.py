"""`mdtool store replay`: what is stored, as a stream again."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.support.commands import output_of
from tests.support.store_commands import NOON_NS, put, store, trades, url, write
from tests.support.supervised import FREE_PORTS, serve

pytestmark = pytest.mark.usefixtures("no_settings")

SECOND_NS = 10**9
SAMPLE = Path(__file__).parents[3] / "sample_data" / "trades.dbn.zst"


@pytest.fixture
def filled(tmp_path):
    """A store with trades of a file."""
    store(write(tmp_path / "t.dbn", trades(5_000)), "--store", url(tmp_path))
    return url(tmp_path)


def digest(*inputs, stdin=b""):
    return output_of("digest", *inputs, "--by", "symbol", stdin=stdin)


def replayed(where, *options):
    return output_of("store", "replay", "--store", where, *options)


def test_a_replay_has_the_stored_trades_in_order_of_time(filled, tmp_path):
    stream = replayed(filled)
    assert digest("-", stdin=stream) == digest(filled) == digest(tmp_path / "t.dbn")
    lines = [json.loads(line) for line in replayed(filled, "-J", "-s").splitlines()]
    times = [int(line["hd"]["ts_event"]) for line in lines]
    assert times == sorted(times)
    assert {line["symbol"] for line in lines} == {"ESZ5", "CLX5", "BRK/B", "A=B", "50%", "X Y"}


def test_a_replay_has_the_symbols_and_times_that_are_named(filled):
    begin, end = NOON_NS + SECOND_NS, NOON_NS + 9 * SECOND_NS
    options = ["--symbols", "ESZ5,X Y", "--start", begin, "--end", end]
    rows = [json.loads(line) for line in replayed(filled, *options, "-J", "-s").splitlines()]
    assert {row["symbol"] for row in rows} == {"ESZ5", "X Y"}
    assert {int(row["hd"]["ts_event"]) // SECOND_NS - begin // SECOND_NS for row in rows} == set(
        range(8)
    )
    same = ["--symbols", "ESZ5,X Y", "--from", begin, "--to", end]
    assert replayed(filled, *same) == replayed(filled, *options)
    mixed = ["--symbols", "ESZ5,X Y", "--start", begin, "--to", end]
    assert replayed(filled, *mixed) == replayed(filled, *options)
    store("replay", "--store", filled, "--symbols", "NONE", status=1, said="has no trades of NONE")
    store("replay", "--store", filled, "--end", NOON_NS, status=1, said="has no such trades")


@pytest.mark.parametrize("both", [("--start", "--from"), ("--end", "--to")])
def test_a_time_by_both_of_its_names_is_rejected(filled, both):
    options = [each for name in both for each in (name, NOON_NS)]
    said = f"mdtool: {both[0]} and {both[1]}: choose one\n"
    store("replay", "--store", filled, *options, status=2, said=said)


def test_a_replay_is_paced_by_exchange_time(tmp_path):
    rows = [(0, 10**9, 1, NOON_NS + place * SECOND_NS) for place in range(4)]
    put(url(tmp_path), ["ESZ5"], rows)
    began_s = time.monotonic()
    lines = replayed(url(tmp_path), "--speed", 3, "-J").splitlines()
    assert len(lines) == 4
    assert time.monotonic() - began_s >= 1
    store("replay", "--store", url(tmp_path), "--speed", "inf", status=2, said="--speed inf")


def test_a_volume_that_does_not_fit_is_said(tmp_path):
    put(url(tmp_path), ["ESZ5"], [(0, 10**9, 2**33, NOON_NS)])
    store("replay", "--store", url(tmp_path), "-J", status=1, said="does not fit DBN")


def test_a_replay_is_sent_into_a_running_stack(tmp_path):
    first, stack = url(tmp_path), url(tmp_path, "stack")
    store(SAMPLE, "--store", first)
    with serve("all", "-J", "--store", stack, *FREE_PORTS) as services:
        port = services.addresses(4)["serve-tcp"].rpartition(":")[2]
        said = output_of("send", "-", "--port", port, "-q", stdin=replayed(first))
        assert said.startswith(b"Accepted ")
        assert b", refused 0; " in said
    assert digest(stack) == digest(first) == digest(SAMPLE)
