"""`bench live` measures what it says of sources, here at a size that takes a moment."""

from __future__ import annotations

from mdtool.bench import sources


def test_messages_are_measured_beside_their_json():
    figure = sources.ingest_kraken(messages=2_000, rounds=1)
    assert figure.name == "ingest_kraken"
    assert min(figure.value, figure.baseline_value, figure.ratio) > 0
