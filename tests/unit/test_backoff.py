"""The delays between attempts."""

from __future__ import annotations

from itertools import islice

import pytest

from mdtool.core.backoff import delays


def test_delays_double_up_to_the_cap():
    assert list(islice(delays(0.1, 1.0, jitter=0), 6)) == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_jitter_spreads_each_delay_within_its_bounds():
    firsts = [next(delays(1.0, 5.0, jitter=0.2)) for _ in range(200)]
    assert all(0.8 <= first <= 1.2 for first in firsts)
    assert len(set(firsts)) > 1


def test_jitter_does_not_feed_into_the_next_delay():
    last = list(islice(delays(1.0, 64.0, jitter=0.1), 7))[-1]
    assert last == pytest.approx(64, rel=0.1)
