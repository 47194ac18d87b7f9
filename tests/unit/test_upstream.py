"""Requests that fail: which are repeated, and what they do to the circuit."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from mdtool.adapters.market import (
    RefusedError,
    UnansweredError,
    UnavailableError,
    UnknownSymbolError,
)
from mdtool.core.breaker import BreakerRules, Circuit
from mdtool.core.errors import PeerError
from mdtool.services.gateway import upstream as module
from mdtool.services.gateway.upstream import BrokenCircuitError, RetryRules, Upstream


class Service:
    """Responds to some requests with errors, then with what was requested."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.requests = 0

    async def __call__(self, timeout_s):
        self.requests += 1
        if self.errors:
            raise self.errors.pop(0)
        return timeout_s


def upstream_of(wait_s=0.0, **rules):
    return Upstream("it", RetryRules(wait_s=wait_s, timeout_s=60.0), BreakerRules(**rules))


AWAY = UnavailableError("away")


async def test_what_is_lost_is_repeated():
    service, upstream = Service(AWAY, AWAY), upstream_of()
    assert 0 < await upstream.request(service) <= 60.0
    assert service.requests == 3
    assert (upstream.answered, upstream.failed, upstream.repeated) == (1, 2, 2)


async def test_three_times_and_no_more():
    service = Service(*[AWAY] * 3)
    with pytest.raises(UnavailableError, match="away"):
        await upstream_of().request(service)
    assert service.requests == 3


@pytest.mark.parametrize(
    "error", [UnansweredError("late"), UnknownSymbolError("no"), RefusedError("no"), PeerError("?")]
)
async def test_what_was_received_is_not_repeated(error):
    service = Service(error)
    with pytest.raises(type(error)):
        await upstream_of().request(service)
    assert service.requests == 1


async def test_waits_count_as_time_that_an_answer_may_take():
    service = Service(AWAY, AWAY)
    assert await upstream_of(wait_s=0.01).request(service) <= 59.98


async def test_there_is_no_wait_for_an_attempt_that_would_come_too_late():
    service = Service(AWAY)
    with pytest.raises(UnavailableError):
        await upstream_of(wait_s=3_600.0).request(service)
    assert service.requests == 1


async def test_a_service_that_fails_gets_no_requests_for_a_while(monkeypatch):
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 0.0))
    service, upstream = Service(*[AWAY] * 9), upstream_of(open_s=3_600.0)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await upstream.request(service)
    assert service.requests == 5
    assert upstream.circuit is Circuit.OPEN
    with pytest.raises(BrokenCircuitError, match="next request in 3600 s") as refused:
        await upstream.request(service)
    assert refused.value.headers == {"Retry-After": "3600"}
    assert service.requests == 5
    assert (upstream.opened, upstream.repeated, upstream.refused) == (1, 3, 2)


async def test_answers_that_are_errors_are_no_failures():
    upstream = upstream_of()
    for _ in range(20):
        with pytest.raises(UnknownSymbolError):
            await upstream.request(Service(UnknownSymbolError("no")))
    assert upstream.circuit is Circuit.CLOSED
    assert upstream.answered == 20


async def test_a_circuit_closes_when_its_trials_are_answered():
    service, upstream = Service(*[UnansweredError("late")] * 5), upstream_of(open_s=0.0)
    for _ in range(5):
        with pytest.raises(UnansweredError):
            await upstream.request(service)
    assert upstream.opened == 1
    assert upstream.circuit is Circuit.HALF_OPEN
    for _ in range(3):
        await upstream.request(service)
    assert upstream.circuit is Circuit.CLOSED


async def test_a_client_that_leaves_says_nothing_about_the_service():
    upstream = upstream_of(open_s=0.0, trials=1)
    for _ in range(5):
        with pytest.raises(UnansweredError):
            await upstream.request(Service(UnansweredError("late")))
    begun = asyncio.Event()

    async def never(timeout_s):
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(upstream.request(never))
    await begun.wait()
    with pytest.raises(BrokenCircuitError):
        await upstream.request(Service())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await upstream.request(Service())
    assert upstream.circuit is Circuit.CLOSED


async def test_a_file_is_read_once_and_no_circuit_opens_before_it():
    upstream = Upstream("it", RetryRules(attempts=1), None)
    for _ in range(20):
        service = Service(AWAY)
        with pytest.raises(UnavailableError, match="away"):
            await upstream.request(service)
        assert service.requests == 1
    assert upstream.circuit is Circuit.CLOSED
    assert (upstream.failed, upstream.opened, upstream.refused) == (20, 0, 0)
