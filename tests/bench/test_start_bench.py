"""`bench start` measures what it says, here at a size that takes a moment."""

from __future__ import annotations

import pytest

from mdtool.bench import start


def test_commands_and_services_are_measured_beside_their_baselines(monkeypatch):
    monkeypatch.setattr(start, "_LONG_ROUNDS", 1)
    monkeypatch.setattr(start, "_FIRST_USES", ["aggregate"])
    figures = {figure.name: figure for figure in start.measure(3000, 3000, rounds=1)}
    assert list(figures) == [
        *("start_book", "start_aggregate", "first_use_aggregate"),
        *("start_book_final", "start_bars"),
        *("rest_aggregate", "rest_serve_tcp", "rest_gateway"),
    ]
    for figure in figures.values():
        assert figure.value > 0 < figure.baseline_value
        assert figure.ratio == pytest.approx(figure.baseline_value / figure.value)
