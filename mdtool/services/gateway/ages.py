"""How old updates are when they are written: from `ingest_timestamp` to the write."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Final

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets; one more is open."""
RECENT_S: Final = 5.0


class Ages:
    """Counts ages in buckets, and remembers the highest of the last seconds.

    The clock of the ingest server and that of the gateway both count.

    Parameters
    ----------
    now_s : callable, optional
        A monotonic clock.

    Attributes
    ----------
    buckets : list of int
        How many ages are in each, not cumulated.
    total_s : float
        Their sum.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0
        self._now_s = now_s
        self._highest: list[tuple[int, float]] = []
        """The number and the highest age of the present period of `RECENT_S` and the one before."""

    def add(self, age_s: float) -> None:
        """Count the age of the oldest update of a round."""
        age_s = max(0.0, age_s)
        self.buckets[bisect_left(BOUNDS_S, age_s)] += 1
        self.total_s += age_s
        period = int(self._now_s() / RECENT_S)
        if self._highest and self._highest[-1][0] == period:
            self._highest[-1] = (period, max(age_s, self._highest[-1][1]))
        else:
            self._highest = [*self._highest[-1:], (period, age_s)]

    def recent_s(self) -> float | None:
        """Return the highest age of the last 5 to 10 s, None where nothing was written."""
        first = int(self._now_s() / RECENT_S) - 1
        return max((age_s for period, age_s in self._highest if period >= first), default=None)
