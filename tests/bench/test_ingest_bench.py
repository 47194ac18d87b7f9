"""The measurement of ingest, small."""

from __future__ import annotations

from mdtool.bench.ingest import measure


async def test_each_figure_has_a_baseline_of_the_same_run():
    measured = await measure(ticks=50_000, messages=200, rounds=1)
    against_discarding, together, against_messages = measured
    assert against_discarding.name == "ingest"
    assert together.name == "ingest_one_process"
    assert against_messages.name == "ingest_in_batches"
    for figure in measured:
        assert figure.value > 0
        assert figure.baseline_value > 0
        assert figure.ratio == figure.value / figure.baseline_value
