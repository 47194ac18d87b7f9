"""Questions that fail: which are repeated, and what they do to the circuit."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from mdtool.adapters.aggregator import (
    RefusedError,
    UnansweredError,
    UnavailableError,
    UnknownSymbolError,
)
from mdtool.core.breaker import BreakerRules, Circuit
from mdtool.core.errors import PeerError
from mdtool.services.gateway import resilience as module
from mdtool.services.gateway.resilience import BrokenCircuitError, Resilience, RetryRules


class Service:
    """Answers a number of questions with errors, then with what was asked of it."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.asked = 0

    async def __call__(self, timeout_s):
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return timeout_s


def resilience(wait_s=0.0, **rules):
    return Resilience("it", RetryRules(wait_s=wait_s, timeout_s=60.0), BreakerRules(**rules))


AWAY = UnavailableError("away")


async def test_what_is_lost_is_asked_again():
    service, asking = Service(AWAY, AWAY), resilience()
    assert 0 < await asking.ask(service) <= 60.0
    assert service.asked == 3
    assert (asking.answered, asking.failed, asking.repeated) == (1, 2, 2)


async def test_three_times_and_no_more():
    service = Service(*[AWAY] * 3)
    with pytest.raises(UnavailableError, match="away"):
        await resilience().ask(service)
    assert service.asked == 3


@pytest.mark.parametrize(
    "error", [UnansweredError("late"), UnknownSymbolError("no"), RefusedError("no"), PeerError("?")]
)
async def test_what_was_heard_is_not_asked_again(error):
    service = Service(error)
    with pytest.raises(type(error)):
        await resilience().ask(service)
    assert service.asked == 1


async def test_waits_count_as_time_that_an_answer_may_take():
    service = Service(AWAY, AWAY)
    assert await resilience(wait_s=0.01).ask(service) <= 59.98


async def test_there_is_no_wait_for_a_try_that_would_come_too_late():
    service = Service(AWAY)
    with pytest.raises(UnavailableError):
        await resilience(wait_s=3_600.0).ask(service)
    assert service.asked == 1


async def test_a_service_that_fails_is_left_alone(monkeypatch):
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 0.0))
    service, asking = Service(*[AWAY] * 9), resilience(open_s=3_600.0)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await asking.ask(service)
    assert service.asked == 5
    assert asking.circuit is Circuit.OPEN
    with pytest.raises(BrokenCircuitError, match="asked again in 3600 s") as refused:
        await asking.ask(service)
    assert refused.value.headers == {"Retry-After": "3600"}
    assert service.asked == 5
    assert (asking.opened, asking.repeated, asking.refused) == (1, 3, 2)


async def test_answers_that_are_errors_are_no_failures():
    asking = resilience()
    for _ in range(20):
        with pytest.raises(UnknownSymbolError):
            await asking.ask(Service(UnknownSymbolError("no")))
    assert asking.circuit is Circuit.CLOSED
    assert asking.answered == 20


async def test_a_circuit_closes_when_its_trials_are_answered():
    service, asking = Service(*[UnansweredError("late")] * 5), resilience(open_s=0.0)
    for _ in range(5):
        with pytest.raises(UnansweredError):
            await asking.ask(service)
    assert asking.opened == 1
    assert asking.circuit is Circuit.HALF_OPEN
    for _ in range(3):
        await asking.ask(service)
    assert asking.circuit is Circuit.CLOSED


async def test_a_client_that_leaves_says_nothing_about_the_service():
    asking = resilience(open_s=0.0, trials=1)
    for _ in range(5):
        with pytest.raises(UnansweredError):
            await asking.ask(Service(UnansweredError("late")))
    begun = asyncio.Event()

    async def never(timeout_s):
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(asking.ask(never))
    await begun.wait()
    with pytest.raises(BrokenCircuitError):
        await asking.ask(Service())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asking.ask(Service())
    assert asking.circuit is Circuit.CLOSED
