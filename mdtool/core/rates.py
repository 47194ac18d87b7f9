"""The recent rates of counts."""

from __future__ import annotations

from collections import deque
from typing import Final

from mdtool.core.units import NS_PER_S

WINDOW_NS: Final = 2 * NS_PER_S
_MOST_SAMPLES: Final = 20
"""The most samples of a window, however often the counts are updated."""


class Rates:
    """The growth of counts per second, over a recent window.

    Parameters
    ----------
    window_ns : int
        The length of the window.
    """

    __slots__ = ("_samples", "_step_ns", "_window_ns")

    def __init__(self, window_ns: int = WINDOW_NS) -> None:
        self._window_ns = window_ns
        self._step_ns = window_ns // _MOST_SAMPLES
        self._samples: deque[tuple[int, tuple[int, ...]]] = deque()

    def update(self, now_ns: int, *counts: int) -> None:
        """Record the current counts, always the same number of them."""
        if not self._samples or now_ns - self._samples[-1][0] >= self._step_ns:
            self._samples.append((now_ns, counts))
            self._drop_old(now_ns)

    def per_second(self, now_ns: int, *counts: int) -> list[float]:
        """Return the growth of each per second; `counts` are the current ones."""
        self._drop_old(now_ns)
        if not self._samples or now_ns == self._samples[0][0]:
            return [0.0] * len(counts)
        then_ns, then = self._samples[0]
        elapsed_ns = now_ns - then_ns
        grown = (now - before for now, before in zip(counts, then, strict=True))
        return [growth * NS_PER_S / elapsed_ns for growth in grown]

    def forget(self) -> None:
        """Drop all samples: something else is counted from now on."""
        self._samples.clear()

    def _drop_old(self, now_ns: int) -> None:
        while self._samples and now_ns - self._samples[0][0] > self._window_ns:
            self._samples.popleft()
