"""The circuit breaker, step by step."""

from __future__ import annotations

import pytest

from mdtool.core.breaker import BreakerRules, Circuit, CircuitBreaker


@pytest.fixture
def breaker():
    return CircuitBreaker(BreakerRules())


def call(breaker, now_s, *, failed):
    """Make a call that ends at once."""
    ticket = breaker.acquire(now_s)
    assert ticket is not None
    breaker.report(ticket, now_s, failed=failed)


def broken(breaker):
    for _ in range(5):
        call(breaker, 0.0, failed=True)
    assert breaker.circuit(0.0) is Circuit.OPEN
    return breaker


def test_four_failures_are_too_few_to_tell(breaker):
    for _ in range(4):
        call(breaker, 0.0, failed=True)
    assert breaker.circuit(0.0) is Circuit.CLOSED


def test_half_of_ten_open_it(breaker):
    for failed in [False] * 5 + [True] * 4:
        call(breaker, 0.0, failed=failed)
    assert breaker.circuit(0.0) is Circuit.CLOSED
    call(breaker, 0.0, failed=True)
    assert breaker.circuit(0.0) is Circuit.OPEN


def test_only_the_last_ten_are_counted(breaker):
    for failed in [False] * 100 + [True] * 4:
        call(breaker, 0.0, failed=failed)
    assert breaker.circuit(0.0) is Circuit.CLOSED
    call(breaker, 0.0, failed=True)
    assert breaker.circuit(0.0) is Circuit.OPEN


def test_nothing_is_called_for_five_seconds(breaker):
    broken(breaker)
    assert breaker.acquire(4.999) is None
    assert breaker.wait_s(3.0) == 2.0
    assert breaker.circuit(5.0) is Circuit.HALF_OPEN
    assert breaker.acquire(5.0) is not None
    assert breaker.wait_s(5.0) == 0.0


def test_three_trials_at_most_are_under_way(breaker):
    broken(breaker)
    assert None not in [breaker.acquire(5.0) for _ in range(3)]
    assert breaker.acquire(5.0) is None


@pytest.mark.parametrize(
    ("failures", "circuit"),
    [(0, Circuit.CLOSED), (1, Circuit.CLOSED), (2, Circuit.OPEN), (3, Circuit.OPEN)],
)
def test_the_trials_decide(breaker, failures, circuit):
    broken(breaker)
    for trial in range(3):
        call(breaker, 6.0, failed=trial < failures)
    assert breaker.circuit(6.0) is circuit
    assert breaker.opened == (2 if circuit is Circuit.OPEN else 1)


def test_a_cancelled_trial_may_be_repeated(breaker):
    broken(breaker)
    tickets = [breaker.acquire(5.0) for _ in range(3)]
    breaker.release(tickets[0])
    assert breaker.acquire(5.0) is not None
    assert breaker.acquire(5.0) is None


def test_calls_from_before_it_opened_are_not_counted(breaker):
    late = breaker.acquire(0.0)
    broken(breaker)
    trial = breaker.acquire(5.0)
    for _ in range(3):
        breaker.report(late, 5.0, failed=True)
        breaker.release(late)
    assert breaker.circuit(5.0) is Circuit.HALF_OPEN
    assert None not in [breaker.acquire(5.0) for _ in range(2)]
    assert breaker.acquire(5.0) is None
    breaker.report(trial, 5.0, failed=False)


def test_a_circuit_that_closed_has_forgotten_its_failures(breaker):
    broken(breaker)
    for _ in range(3):
        call(breaker, 5.0, failed=False)
    for _ in range(4):
        call(breaker, 5.0, failed=True)
    assert breaker.circuit(5.0) is Circuit.CLOSED
