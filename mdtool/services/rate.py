"""How fast a count has grown of late."""

from __future__ import annotations

from collections import deque
from typing import Final

from mdtool.core.units import NS_PER_S

WINDOW_NS: Final = 2 * NS_PER_S
_STEP_NS: Final = WINDOW_NS // 20


class Rate:
    """Growth of a count a second, over the last two seconds.

    It takes twenty samples in that time, however often it is told.
    """

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int]] = deque()

    def update(self, now_ns: int, count: int) -> None:
        """Take note of the count as it is now."""
        if not self._samples or now_ns - self._samples[-1][0] >= _STEP_NS:
            self._samples.append((now_ns, count))
            while now_ns - self._samples[0][0] > WINDOW_NS:
                self._samples.popleft()

    def per_second(self, now_ns: int, count: int) -> float:
        """Return the growth up to now; `count` is as it is now."""
        while self._samples and now_ns - self._samples[0][0] > WINDOW_NS:
            self._samples.popleft()
        if not self._samples or now_ns == self._samples[0][0]:
            return 0.0
        then_ns, then = self._samples[0]
        return (count - then) * NS_PER_S / (now_ns - then_ns)
