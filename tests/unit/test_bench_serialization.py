"""The serialization bench measures what it says, beside a baseline that agrees with it."""

from __future__ import annotations

import pytest

from mdtool.bench import serialization
from mdtool.core.errors import CheckError


def test_it_measures_both_ways_beside_their_baselines():
    figures = serialization.measure(ticks=2_000)
    assert [figure.name for figure in figures] == ["decode", "encode"]
    for figure in figures:
        assert figure.unit == "ticks/s"
        assert figure.ratio == pytest.approx(figure.value / figure.baseline_value)


def test_it_fails_where_the_baseline_disagrees(monkeypatch):
    monkeypatch.setattr(serialization, "_is_valid", lambda tick: tick.volume > 1_000)
    with pytest.raises(CheckError, match="decode different ticks"):
        serialization.measure(ticks=2_000)
