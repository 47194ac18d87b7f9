"""How long requests and commits take, how large batches are, and how old updates are when shown."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

REQUEST_BOUNDS_S: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
"""Upper bounds of the buckets of request times."""
COMMIT_BOUNDS_S: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of the buckets of commits."""
AGE_BOUNDS_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of the buckets of ages."""
BATCH_BOUNDS: Final = (*(1, 4, 16, 64, 256, 1_024), *(4_096, 16_384, 65_536))
"""Upper bounds of the buckets of ticks in a batch."""
RECENT_S: Final = 5.0
"""The period whose highest age is remembered."""


class Histogram:
    """Times, or other amounts, in buckets.

    A Histogram of prometheus_client takes 4 us a time, a tenth of what a request takes.

    Parameters
    ----------
    bounds_s : sequence of float
        Upper bounds of the buckets, inclusive; one more is open.

    Attributes
    ----------
    bounds_s : sequence of float
    buckets : list of int
        How many times are in each, not cumulated.
    total_s : float
        Their sum.
    """

    __slots__ = ("bounds_s", "buckets", "total_s")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self.bounds_s = bounds_s
        self.buckets = [0] * (len(bounds_s) + 1)
        self.total_s = 0.0

    def add(self, time_s: float) -> None:
        """Count a time."""
        self.buckets[bisect_left(self.bounds_s, time_s)] += 1
        self.total_s += time_s


class RouteTimes:
    """The times of one route's requests.

    Attributes
    ----------
    by_status : dict of int to Histogram
    """

    __slots__ = ("by_status",)

    def __init__(self) -> None:
        self.by_status: dict[int, Histogram] = {}

    def add(self, status: int, time_s: float) -> None:
        """Count a request."""
        times = self.by_status.get(status)
        if times is None:
            times = self.by_status[status] = Histogram(REQUEST_BOUNDS_S)
        times.add(time_s)


class Ages(Histogram):
    """Ages of updates, from `ingest_timestamp` to the write, and the highest of the last seconds.

    The clock of the ingest server and that of the gateway both count.

    Parameters
    ----------
    now_s : callable, optional
        A monotonic clock.
    """

    __slots__ = ("_highest", "_now_s")

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__(AGE_BOUNDS_S)
        self._now_s = now_s
        self._highest: list[tuple[int, float]] = []
        """Of the present period of `RECENT_S` and the one before: its number, and the highest."""

    def add(self, time_s: float) -> None:
        """Count the age of the oldest update of a round."""
        age_s = max(0.0, time_s)
        super().add(age_s)
        period = int(self._now_s() / RECENT_S)
        if self._highest and self._highest[-1][0] == period:
            self._highest[-1] = (period, max(age_s, self._highest[-1][1]))
        else:
            self._highest = [*self._highest[-1:], (period, age_s)]

    def recent_s(self) -> float | None:
        """Return the highest age of the last 5 to 10 s, None where nothing was written."""
        first = int(self._now_s() / RECENT_S) - 1
        return max((age_s for period, age_s in self._highest if period >= first), default=None)
