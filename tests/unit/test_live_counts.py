"""What a live source has brought, in words."""

from __future__ import annotations

from collections import Counter

from mdtool.adapters.live.counts import described


def test_counts_in_words():
    assert described(Counter()) == "nothing"
    assert described(Counter(trades=1, gaps=1, irregular=1, lot=1)) == (
        "1 trade, 1 irregular, 1 gap; refused 1 lot"
    )
    assert described(Counter(trades=1_203, gaps=2)) == "1,203 trades, 2 gaps"
