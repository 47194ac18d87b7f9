"""How fast counts grow, over the last second or so."""

from __future__ import annotations

from collections import deque
from typing import Final

from mdtool.core.units import NS_PER_S

WINDOW_NS: Final = NS_PER_S


class Rates:
    """Growth of several counts a second, from samples taken as often as one likes.

    Measured between the first sample inside the last `WINDOW_NS` and the last one.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[int, tuple[int, ...]]] = deque()

    def sample(self, now_ns: int, *counts: int) -> list[float]:
        """Take the counts as they are now; return how much each grows a second."""
        self._samples.append((now_ns, counts))
        while now_ns - self._samples[0][0] > WINDOW_NS:
            self._samples.popleft()
        first_ns, first = self._samples[0]
        elapsed_s = (now_ns - first_ns) / NS_PER_S
        if not elapsed_s:
            return [0.0] * len(counts)
        return [(now - then) / elapsed_s for now, then in zip(counts, first, strict=True)]

    def forget(self) -> None:
        """Begin anew: what is counted is something else from now on."""
        self._samples.clear()
