"""When records of the past are due in a replay: at their own pace, or a multiple of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from mdtool.core.batch import Batch
from mdtool.core.units import NS_PER_S

Timestamps: TypeAlias = npt.NDArray[np.int64]

_FIRST_LOOK: Final = 64
"""How many timestamps are compared first when due records are searched; each step doubles it."""
_NEVER_NS: Final = 2**62
"""The longest wait that can be slept."""
_LONGEST_SLEEP_NS: Final = NS_PER_S // 2
"""A signal that arrives just before a sleep begins is handled only after it, and Ctrl-C with it."""


class Pacer:
    """Says how many records are due, and how long until the next one is.

    Every record is measured from the first one, so that neither the time a record takes nor a
    sleep that lasted too long adds up. One without a time (UNDEF_TIMESTAMP) is due with the one
    before it.

    Parameters
    ----------
    speed : float
        1 is the records' own pace, 10 ten times that; 0 is all at once.
    """

    def __init__(self, speed: float) -> None:
        self._numerator, self._denominator = speed.as_integer_ratio()
        self._first_ns: int | None = None
        self._began_ns = 0

    def start(self, first_ns: int, now_ns: int) -> None:
        """Let the records' time be `first_ns` now, rather than that of the first record."""
        self._first_ns, self._began_ns = first_ns, now_ns

    def reached_ns(self, now_ns: int) -> int | None:
        """Return the time up to which records are due, None for all or before the first one."""
        if self._numerator == 0 or self._first_ns is None:
            return None
        return self._first_ns + (now_ns - self._began_ns) * self._numerator // self._denominator

    def due(self, timestamps_ns: Timestamps, now_ns: int) -> int:
        """Return how many of the next records are due.

        Parameters
        ----------
        timestamps_ns : int64 array, shape (n,)
            Times of the records that come next, in order. One earlier than one before it is due
            with that one.
        now_ns : int
            Of any clock that never goes back. The first record is due at the first call.
        """
        n = len(timestamps_ns)
        if self._numerator == 0:
            return n
        reached_ns = self.reached_ns(now_ns)
        if reached_ns is None:
            has_time = timestamps_ns >= 0
            if not has_time.any():
                return n
            reached_ns = int(timestamps_ns[has_time.argmax()])
            self.start(reached_ns, now_ns)
        n_due, look = 0, _FIRST_LOOK
        while n_due < n:
            is_later = timestamps_ns[n_due : n_due + look] > reached_ns
            if is_later.any():
                return n_due + int(is_later.argmax())
            n_due, look = n_due + len(is_later), look * 2
        return n

    def wait_ns(self, timestamp_ns: int, now_ns: int) -> int:
        """Return the nanoseconds until a record of this time is due, 0 when it is."""
        if self._numerator == 0 or self._first_ns is None:
            return 0
        distance_ns = (timestamp_ns - self._first_ns) * self._denominator
        # Rounded up, so that the record is due once this long has passed.
        due_ns = self._began_ns - (-distance_ns // self._numerator)
        return min(max(due_ns - now_ns, 0), _NEVER_NS)


def paced(
    batches: Iterable[Batch],
    timestamps_of: Callable[[Batch], Timestamps],
    pacer: Pacer,
    clock_ns: Callable[[], int],
    sleep_s: Callable[[float], None],
) -> Iterator[Batch]:
    """Yield records when they are due: whatever is due together, together.

    Parameters
    ----------
    batches : iterable of Batch
    timestamps_of : callable
        The times by which to pace.
    pacer : Pacer
    clock_ns, sleep_s : callable
        `time.monotonic_ns` and `time.sleep`, or replacements in tests.
    """
    for batch in batches:
        timestamps_ns = timestamps_of(batch)
        done = 0
        while done < len(batch):
            now_ns = clock_ns()
            n_due = pacer.due(timestamps_ns[done:], now_ns)
            if n_due:
                yield batch[done : done + n_due]
                done += n_due
            else:
                wait_ns = pacer.wait_ns(int(timestamps_ns[done]), now_ns)
                sleep_s(min(wait_ns, _LONGEST_SLEEP_NS) / NS_PER_S)
