"""`bench dashboard` measures what it says, here for a moment."""

from __future__ import annotations

from mdtool.bench import dashboard
from tests.support.requirements import needs


async def test_frames_memory_and_the_first_price_are_measured(monkeypatch):
    program = needs("chromium")
    monkeypatch.setattr(dashboard.shutil, "which", lambda _name: program)
    monkeypatch.setattr(dashboard, "_SETTLE_S", 0.0)
    monkeypatch.setattr(dashboard, "_OPENINGS", 1)
    figures = {figure.name: figure for figure in await dashboard.measure(minutes=4 / 60, rate=50)}
    assert figures["dashboard_first_price"].value > 0
    assert figures["dashboard_frames"].value > 0
    assert figures["dashboard_heap"].value > 0
    assert 0 <= figures["dashboard_slow_frames"].value <= 100
    assert 0 <= figures["dashboard_slow_frames"].baseline_value <= 100
