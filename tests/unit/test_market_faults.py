"""Faults of a simulated market: what they change, and their labels."""

from __future__ import annotations

import numpy as np
import pytest

from mdtool.adapters.simulated import SimulatedSource
from mdtool.core.errors import UsageError
from mdtool.core.records import index_timestamps, is_trade
from mdtool.core.units import NS_PER_S
from mdtool.engine.market_faults import FaultyMarket, parse_faults
from mdtool.engine.simulate import TICK, Exchange

SYMBOLS = ("AAPL", "MSFT")
DURATION_NS = 40 * NS_PER_S


def market(text="", schema="mbp-1", chunk_records=4_096):
    """Return the records of a market with faults, and the labels."""
    exchange = Exchange(SYMBOLS, seed=5)
    planned = parse_faults(text, SYMBOLS)
    faults = FaultyMarket(planned, exchange.instruments, exchange.start_ns, TICK, schema)
    source = SimulatedSource(exchange, schema, DURATION_NS, chunk_records, faults)
    records = np.concatenate([batch.records for batch in source])
    return records, faults.labels, exchange.start_ns


def own(records, start_ns, begin_s, end_s, instrument_id=1):
    times_ns = index_timestamps(records) - start_ns
    is_within = (times_ns >= begin_s * NS_PER_S) & (times_ns < end_s * NS_PER_S)
    return records[is_within & (records["instrument_id"] == instrument_id)]


@pytest.mark.parametrize("text", ["jump@10s", "burst@10s:5s,gap@20s", "stale@10s:5s,band@1s:9s"])
def test_faults_are_the_same_however_the_market_is_cut(text):
    whole, labels, _ = market(text, chunk_records=1 << 20)
    parts, labels_of_parts, _ = market(text, chunk_records=512)
    assert whole.tobytes() == parts.tobytes()
    assert {(each.kind, each.begin_ns) for each in labels} == {
        (each.kind, each.begin_ns) for each in labels_of_parts
    }
    assert len(labels) == text.count("@")


def test_packets_are_numbered_without_holes_but_for_a_gap():
    plain, _, start_ns = market()
    steps = np.diff(plain["sequence"].astype(np.int64))
    assert set(steps.tolist()) == {0, 1}
    silent, [label], _ = market("stale@10s:5s")
    assert set(np.diff(silent["sequence"].astype(np.int64)).tolist()) == {0, 1}
    assert not len(own(silent, start_ns, 10, 15))
    assert len(own(silent, start_ns, 10, 15, 2)) == len(own(plain, start_ns, 10, 15, 2))
    assert (label.begin_ns - start_ns, label.end_ns - start_ns) == (10 * NS_PER_S, 15 * NS_PER_S)
    lost, [label], _ = market("gap@10s")
    steps = np.diff(lost["sequence"].astype(np.int64))
    assert sorted(steps.tolist())[-2:] == [1, 11]
    assert index_timestamps(lost)[np.argmax(steps)] < label.begin_ns


def test_each_kind_changes_what_it_says():
    plain, _, start_ns = market()
    jumped, _, _ = market("jump@10s,jump@20s")
    at = [own(jumped, start_ns, begin, begin + 10) for begin in (0, 10, 20)]
    was = [own(plain, start_ns, begin, begin + 10) for begin in (0, 10, 20)]
    ratio = [(a["price"] / b["price"]).mean() for a, b in zip(at, was, strict=True)]
    assert ratio == pytest.approx([1, 1.02, 1], abs=1e-4)
    burst, _, _ = market("burst@10s:5s/MSFT")
    traded = own(plain, start_ns, 10, 15, 2)
    many = own(burst, start_ns, 10, 15, 2)["size"]
    times = np.where(is_trade(traded), 20, 1)
    assert (many == traded["size"] * times).all()
    crossed = own(market("crossed@10s:3s")[0], start_ns, 10, 13)
    assert (crossed["bid_px_00"] == crossed["ask_px_00"]).all()
    wide = own(market("spread@10s:3s")[0], start_ns, 10, 13)
    usual = own(plain, start_ns, 10, 13)
    spreads = [each["ask_px_00"] - each["bid_px_00"] for each in (wide, usual)]
    assert (spreads[0] == 25 * spreads[1]).all()
    off, [label], _ = market("off-quote@10s")
    [changed] = np.flatnonzero(off["price"] != plain["price"])
    assert off["price"][changed] > off["ask_px_00"][changed] * 1.002
    assert off["ts_recv"][changed] == label.begin_ns == label.end_ns


def test_a_band_is_left_step_by_step_and_entered_again():
    records, [label], start_ns = market("band@2s:15s")
    trades = own(records[is_trade(records)], start_ns, 0, 40)
    move = np.abs(np.diff(trades["price"]) / trades["price"][:-1])
    assert move.max() < 0.0025
    assert trades["price"].max() / trades["price"][0] > 1.1
    assert label.end_ns - start_ns > 17 * NS_PER_S


@pytest.mark.parametrize(
    ("text", "schema", "message"),
    [
        ("jmp@1s", "mbp-1", "did you mean 'jump'"),
        ("jump", "mbp-1", "such as jump@10s"),
        ("jump@1s:5s", "mbp-1", "is a moment"),
        ("jump@soon", "mbp-1", "not a duration"),
        ("jump@1s/AAPX", "mbp-1", "did you mean 'AAPL'"),
        ("crossed@1s", "trades", "--schema mbp-1"),
        ("jump@1s", "mbo", "choose a schema from trades, mbp-1"),
    ],
)
def test_faults_that_are_not_valid(text, schema, message):
    with pytest.raises(UsageError, match=message):
        market(text, schema)
