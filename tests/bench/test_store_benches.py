"""The benches of stores, run for a moment: what they measure is there, whatever it is."""

from __future__ import annotations

from mdtool.bench import durable, restart


async def test_durable_ingest_is_measured_against_plain_inserts():
    (figure,) = await durable.measure(ticks=20_000, rounds=1)
    assert figure.name == "durable"
    assert figure.value > 0
    assert figure.baseline_value > 0
    assert figure.ratio > 0


async def test_a_restart_is_measured_against_one_with_nothing_stored():
    (figure,) = await restart.measure(trades=250_000, rounds=1)
    assert figure.name == "restart"
    assert figure.better == "lower"
    assert figure.value > 0
    assert figure.ratio > 0
