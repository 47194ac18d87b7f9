"""How fast a count has grown of late."""

from __future__ import annotations

import pytest

from mdtool.core.units import NS_PER_S
from mdtool.services.rate import WINDOW_NS, Rate

MS = NS_PER_S // 1_000


def test_nothing_is_known_at_first():
    rate = Rate()
    assert rate.per_second(0, 0) == 0
    rate.update(5, 100)
    assert rate.per_second(5, 100) == 0


def test_steady_growth():
    rate = Rate()
    for at in range(10_000):
        rate.update(at * MS, at * 7)
    assert rate.per_second(9_999 * MS, 9_999 * 7) == pytest.approx(7_000)


def test_only_the_last_two_seconds_count():
    rate = Rate()
    for at in range(0, 10_000, 10):
        rate.update(at * MS, min(at, 5_000))
    assert rate.per_second(9_990 * MS, 5_000) == 0


def test_it_falls_to_nothing_once_nothing_comes():
    rate = Rate()
    rate.update(0, 0)
    rate.update(NS_PER_S, 1_000)
    assert rate.per_second(NS_PER_S, 1_000) == 1_000
    assert rate.per_second(WINDOW_NS + NS_PER_S + 1, 1_000) == 0


def test_it_keeps_few_samples_however_often_it_is_told():
    rate = Rate()
    for at in range(100_000):
        rate.update(at * NS_PER_S // 10_000, at)
    assert len(rate._samples) <= 21
