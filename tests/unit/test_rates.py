"""How fast a count has grown of late."""

from __future__ import annotations

import pytest

from mdtool.core.rates import WINDOW_NS, Rates
from mdtool.core.units import NS_PER_S

MS = NS_PER_S // 1_000


def test_nothing_is_known_at_first():
    rates = Rates()
    assert rates.per_second(0, 0) == [0]
    rates.update(5, 100)
    assert rates.per_second(5, 100) == [0]


def test_steady_growth():
    rates = Rates()
    for at in range(10_000):
        rates.update(at * MS, at * 7)
    assert rates.per_second(9_999 * MS, 9_999 * 7) == pytest.approx([7_000])


def test_only_the_last_two_seconds_count():
    rates = Rates()
    for at in range(0, 10_000, 10):
        rates.update(at * MS, min(at, 5_000))
    assert rates.per_second(9_990 * MS, 5_000) == [0]


def test_it_falls_to_nothing_once_nothing_comes():
    rates = Rates()
    rates.update(0, 0)
    rates.update(NS_PER_S, 1_000)
    assert rates.per_second(NS_PER_S, 1_000) == [1_000]
    assert rates.per_second(WINDOW_NS + NS_PER_S + 1, 1_000) == [0]


def test_it_stores_few_samples_whatever_the_rate_of_updates():
    rates = Rates()
    for at in range(100_000):
        rates.update(at * NS_PER_S // 10_000, at)
    assert len(rates._samples) <= 21


def test_several_counts_in_a_window_of_ones_own():
    rates = Rates(NS_PER_S)
    rates.update(0, 5, 100)
    assert rates.per_second(500 * MS, 10, 100) == [10, 0]
    rates.update(600 * MS, 12, 40)
    assert rates.per_second(1_200 * MS, 18, 100) == [10, 100]


def test_forgotten_counts_are_not_compared():
    rates = Rates()
    rates.update(0, 1_000_000)
    rates.forget()
    rates.update(MS, 3)
    assert rates.per_second(501 * MS, 4) == [2]
