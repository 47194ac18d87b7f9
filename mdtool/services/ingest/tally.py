"""How many ticks a connection brought, and why some of them were refused."""

from __future__ import annotations

from typing import Final

import numpy as np

from mdtool.core.trades import Frames, Reason

_NUMBERS: Final = max(Reason) + 1


class Tally:
    """Counts of one connection."""

    __slots__ = ("_refused", "accepted")

    def __init__(self) -> None:
        self.accepted = 0
        self._refused = np.zeros(_NUMBERS, np.int64)

    @property
    def refused(self) -> int:
        """How many ticks were refused."""
        return int(self._refused.sum())

    def add(self, frames: Frames) -> None:
        """Count frames."""
        self.accepted += len(frames.trades)
        if len(frames.refused_reason):
            self._refused += np.bincount(frames.refused_reason, minlength=_NUMBERS)

    def __str__(self) -> str:
        text = f"Accepted {self.accepted} tick{'s' * (self.accepted != 1)}, refused {self.refused}"
        reasons = [
            f"{count} {reason.label}" for reason in Reason if (count := self._refused[reason])
        ]
        return f"{text} ({', '.join(reasons)})" if reasons else text
