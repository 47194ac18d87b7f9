"""The measurement of ingest, small."""

from __future__ import annotations

from mdtool.bench.ingest import measure


async def test_both_figures_have_a_baseline_of_the_same_run():
    against_discarding, against_messages = await measure(ticks=50_000, messages=200, rounds=1)
    assert against_discarding.name == "ingest"
    assert against_messages.name == "ingest_in_batches"
    for figure in (against_discarding, against_messages):
        assert figure.value > 0
        assert figure.baseline_value > 0
        assert figure.ratio == figure.value / figure.baseline_value
