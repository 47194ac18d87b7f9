"""`bench vwap` measures what it says, here at a size that takes a moment."""

from __future__ import annotations

from mdtool.bench import vwap


def test_both_windows_and_the_kernel_are_measured(monkeypatch):
    monkeypatch.setattr(vwap, "_PLAIN_TRADES", 20_000)
    figures = vwap.measure(trades=20_000, large=15_000, rounds=1)
    assert [figure.name for figure in figures] == [
        "vwap_filter",
        "vwap_filter_large",
        "vwap_kernel",
    ]
    assert all(figure.value > 0 for figure in figures)
    assert figures[1].baseline_value == figures[0].value
