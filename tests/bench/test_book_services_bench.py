"""The measurement of the sender and the receiver, small."""

from __future__ import annotations

from mdtool.bench.book_services import measure


async def test_both_figures_have_a_baseline_of_the_same_run():
    replayed, told = await measure(records=20_000, lines=5_000, rounds=1)
    assert replayed.name == "book_replay"
    assert told.name == "book_lines"
    for figure in (replayed, told):
        assert figure.value > 0
        assert figure.baseline_value > 0
        assert figure.ratio == figure.value / figure.baseline_value
