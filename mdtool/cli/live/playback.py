"""The position of a replay in its stream's time, its speed, and its pauses."""

from __future__ import annotations

from typing import Final

from mdtool.core.units import NS_PER_S
from mdtool.engine.pacing import Pacer, Timestamps

FLAT_OUT: Final = 0.0
REAL_TIME: Final = 1.0
SPEEDS: Final = tuple(
    digit * 10.0**power for power in range(-1, 5) for digit in (1, 2, 5) if digit * 10**power <= 1e4
)
"""The speeds of `faster` and `slower`; beyond the last is flat out."""


class Playback:
    """Decides which records are due as its user pauses, steps and changes the speed.

    A pure state machine over the times that it is given. The stream's time does not jump when the
    speed changes.

    Parameters
    ----------
    speed : float
        1 is the records' own pace, 10 ten times that, 0 flat out.
    from_ns : int, optional
        Where pacing begins; earlier records are due at once.

    Attributes
    ----------
    speed : float
    is_paused : bool
    steps : int
        How many events are still to be played during a pause.
    """

    def __init__(self, speed: float, from_ns: int | None = None) -> None:
        self.speed = speed
        self.is_paused = False
        self.steps = 0
        self._pacer = Pacer(speed)
        self._position_ns: int | None = None
        self._is_waiting = False
        self._from_ns = from_ns

    def due(self, timestamps_ns: Timestamps, now_ns: int) -> int:
        """Return how many of the next records are due, as `Pacer.due`; none during a pause."""
        if self.is_paused:
            return 0
        if self._from_ns is not None:
            is_later = timestamps_ns >= self._from_ns
            n_earlier = int(is_later.argmax()) if is_later.any() else len(timestamps_ns)
            if n_earlier:
                return n_earlier
            self._position_ns, self._from_ns = self._from_ns, None
            self._restart(now_ns)
        n_due = self._pacer.due(timestamps_ns, now_ns)
        self._is_waiting = n_due == 0
        return n_due

    def wait_s(self, timestamp_ns: int, now_ns: int) -> float | None:
        """Return the seconds until a record of this time is due, None during a pause."""
        if self.is_paused:
            return None
        return self._pacer.wait_ns(timestamp_ns, now_ns) / NS_PER_S

    def played(self, timestamp_ns: int) -> None:
        """Record that a record of this time was played."""
        if self._position_ns is None or timestamp_ns > self._position_ns:
            self._position_ns = timestamp_ns if timestamp_ns >= 0 else self._position_ns

    def position_ns(self, now_ns: int) -> int | None:
        """Return the stream's time, None before its first record.

        It is the last record's, and advances while the next one is not due.
        """
        if self._is_waiting and not self.is_paused:
            reached_ns = self._pacer.reached_ns(now_ns)
            return self._position_ns if reached_ns is None else reached_ns
        return self._position_ns

    def toggle_pause(self, now_ns: int) -> None:
        """Pause or continue; steps that are left are dropped."""
        if self.is_paused:
            self.is_paused = False
            self._restart(now_ns)
        else:
            self._pause(now_ns)
        self.steps = 0

    def step(self, now_ns: int) -> None:
        """Pause, and play one more event."""
        if not self.is_paused:
            self._pause(now_ns)
        self.steps += 1

    def stepped(self) -> None:
        """Record that the event of a step was played."""
        self.steps = max(self.steps - 1, 0)

    def faster(self, now_ns: int) -> None:
        """Change to the next higher speed."""
        if self.speed != FLAT_OUT:
            self.set_speed(min((s for s in SPEEDS if s > self.speed), default=FLAT_OUT), now_ns)

    def slower(self, now_ns: int) -> None:
        """Change to the next lower speed, unless it is the lowest."""
        limit = float("inf") if self.speed == FLAT_OUT else self.speed
        self.set_speed(max((s for s in SPEEDS if s < limit), default=self.speed), now_ns)

    def set_speed(self, speed: float, now_ns: int) -> None:
        """Change the speed; a pause continues."""
        self._position_ns = self.position_ns(now_ns)
        self.speed = speed
        self._restart(now_ns)

    def _pause(self, now_ns: int) -> None:
        self._position_ns = self.position_ns(now_ns)
        self.is_paused = True

    def _restart(self, now_ns: int) -> None:
        self._is_waiting = False
        self._pacer = Pacer(self.speed)
        if self._position_ns is not None:
            self._pacer.start(self._position_ns, now_ns)
