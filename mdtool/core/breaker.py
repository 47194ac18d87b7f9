"""A circuit breaker: no calls to a service that fails, until trials succeed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum


class Circuit(Enum):
    """The state of a circuit."""

    CLOSED = "closed"
    """Calls are made."""
    OPEN = "open"
    """Calls are rejected, for a while."""
    HALF_OPEN = "half_open"
    """A few trial calls are made, which close or open the circuit."""


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a circuit opens and closes.

    Attributes
    ----------
    window : int
        The number of latest calls that are counted.
    least : int
        The circuit stays closed before so many calls.
    failed_share : float
        The circuit opens when this share of them failed, above 0 and at most 1.
    open_s : float
        How long it stays open.
    trials : int
        The number of trial calls after that; the same share of failures opens it again.
    """

    window: int = 10
    least: int = 5
    failed_share: float = 0.5
    open_s: float = 5.0
    trials: int = 3


class CircuitBreaker:
    """Counts calls that fail. It has no clock: callers pass times in seconds, which never fall.

    Each call is acquired before it is made, and reported or released after it. A call that began in
    an earlier state of the circuit is not counted.

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
        """The number of the state, which is the ticket of its calls."""
        self._failures: deque[bool] = deque(maxlen=rules.window)
        self._free_trials = 0
        self._open_until_s = 0.0

    def circuit(self, now_s: float) -> Circuit:
        """Return the state at a time."""
        if self._circuit is Circuit.OPEN and now_s >= self._open_until_s:
            return Circuit.HALF_OPEN
        return self._circuit

    def acquire(self, now_s: float) -> int | None:
        """Return the ticket of one call, None where it is rejected."""
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
        """Count the outcome of a call."""
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
        """Release a call that was cancelled, whose outcome is unknown."""
        if ticket == self._term and self._circuit is Circuit.HALF_OPEN:
            self._free_trials += 1

    def wait_s(self, now_s: float) -> float:
        """Return how long the circuit stays open, 0 where it is not open."""
        return max(0.0, self._open_until_s - now_s) if self._circuit is Circuit.OPEN else 0.0

    def _open(self, now_s: float) -> None:
        self._enter(Circuit.OPEN, self._rules.window)
        self._open_until_s = now_s + self._rules.open_s
        self.opened += 1

    def _enter(self, circuit: Circuit, window: int) -> None:
        self._circuit = circuit
        self._term += 1
        self._failures = deque(maxlen=window)
