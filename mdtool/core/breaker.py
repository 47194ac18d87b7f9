"""A circuit breaker: when a service that fails is left alone, and when it is tried again."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum


class Circuit(Enum):
    """What becomes of calls."""

    CLOSED = "closed"
    """All are made."""
    OPEN = "open"
    """None is made, for a while."""
    HALF_OPEN = "half_open"
    """A few are made, which decide what comes next."""


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a circuit opens and closes.

    Attributes
    ----------
    window : int
        How many of the last calls are looked at.
    least : int
        How many there must have been before the circuit opens.
    failed_share : float
        It opens when at least this share of them failed, from above 0 to 1.
    open_s : float
        How long it stays open.
    trials : int
        How many calls are then made to decide; the same share of them opens it again.
    """

    window: int = 10
    least: int = 5
    failed_share: float = 0.5
    open_s: float = 5.0
    trials: int = 3


class CircuitBreaker:
    """Counts calls that fail. It has no clock: times are the caller's, in seconds, and never fall.

    Each call that is made is acquired first and reported or released afterwards. A call that
    began in an earlier state of the circuit says nothing about the present one and is not counted.

    Attributes
    ----------
    opened : int
        How often the circuit opened.
    """

    def __init__(self, rules: BreakerRules) -> None:
        self.opened = 0
        self._rules = rules
        self._circuit = Circuit.CLOSED
        self._term = 0
        """Counts the states that there were, which is what tickets are of."""
        self._failures: deque[bool] = deque(maxlen=rules.window)
        self._free_trials = 0
        self._open_until_s = 0.0

    def circuit(self, now_s: float) -> Circuit:
        """Return the state at a time."""
        if self._circuit is Circuit.OPEN and now_s >= self._open_until_s:
            return Circuit.HALF_OPEN
        return self._circuit

    def acquire(self, now_s: float) -> int | None:
        """Return a ticket for one call, None where it must not be made."""
        if self._circuit is Circuit.OPEN and now_s >= self._open_until_s:
            self._enter(Circuit.HALF_OPEN, self._rules.trials)
            self._free_trials = self._rules.trials
        if self._circuit is Circuit.OPEN:
            return None
        if self._circuit is Circuit.HALF_OPEN:
            if self._free_trials == 0:
                return None
            self._free_trials -= 1
        return self._term

    def report(self, ticket: int, now_s: float, *, failed: bool) -> None:
        """Count how a call ended."""
        if ticket != self._term:
            return
        self._failures.append(failed)
        rules, n = self._rules, len(self._failures)
        is_failing = sum(self._failures) >= rules.failed_share * n
        if self._circuit is Circuit.CLOSED:
            if is_failing and n >= min(rules.least, rules.window):
                self._open(now_s)
        elif n == rules.trials:
            if is_failing:
                self._open(now_s)
            else:
                self._enter(Circuit.CLOSED, rules.window)

    def release(self, ticket: int) -> None:
        """Take back a call that was given up: nobody knows how it would have ended."""
        if ticket == self._term and self._circuit is Circuit.HALF_OPEN:
            self._free_trials += 1

    def wait_s(self, now_s: float) -> float:
        """Return how long the circuit stays open, 0 where it is not."""
        return max(0.0, self._open_until_s - now_s) if self._circuit is Circuit.OPEN else 0.0

    def _open(self, now_s: float) -> None:
        self._enter(Circuit.OPEN, self._rules.window)
        self._open_until_s = now_s + self._rules.open_s
        self.opened += 1

    def _enter(self, circuit: Circuit, window: int) -> None:
        self._circuit = circuit
        self._term += 1
        self._failures = deque(maxlen=window)
