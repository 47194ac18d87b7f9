"""`bench detect` measures what it says, here at a size that takes a moment."""

from __future__ import annotations

from mdtool.bench import detect
from mdtool.engine.detect import KINDS


def test_accuracy_and_speed_are_measured(monkeypatch):
    monkeypatch.delenv("MDTOOL_TEST_DATA", raising=False)
    monkeypatch.setattr(detect, "_ROUNDS", 1)
    figures = {figure.name: figure for figure in detect.measure(seeds=2, records=100_000)}
    names = [kind.replace("-", "_") for kind in KINDS]
    assert [*figures] == [
        *(f"detect_{name}_{what}" for name in names for what in ("precision", "recall")),
        "detect_records",
    ]
    assert all(figures[f"detect_{name}_recall"].value >= 0.5 for name in names)
    assert min(figures["detect_records"].baseline_value, figures["detect_records"].value) > 0
