"""The benches of stores, run for a moment: what they measure is there, whatever it is."""

from __future__ import annotations

from mdtool.bench import durable, restart


async def test_durable_ingest_is_measured_against_plain_inserts_and_its_own_beginning():
    figures = await durable.measure(ticks=20_000, rounds=2, long_ticks=60_000)
    assert [figure.name for figure in figures] == [
        *("durable", "durable_overlapping", "durable_last"),
    ]
    for figure in figures:
        assert figure.value > 0
        assert figure.baseline_value > 0
        assert figure.ratio > 0
    assert figures[-1].baseline == "the first 20,000 of 60,000 ticks"


async def test_a_restart_is_measured_against_one_with_nothing_stored():
    (figure,) = await restart.measure(trades=250_000, rounds=1)
    assert figure.name == "restart"
    assert figure.better == "lower"
    assert figure.value > 0
    assert figure.ratio > 0
