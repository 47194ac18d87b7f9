"""Questions to a service that may be away: asked again, or not at all while it keeps failing."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from mdtool.adapters.aggregator import RefusedError, UnavailableError, UnknownSymbolError
from mdtool.core.backoff import delays
from mdtool.core.breaker import BreakerRules, Circuit, CircuitBreaker
from mdtool.core.errors import PeerError
from mdtool.services.http.answers import HeadedError

T = TypeVar("T")

Ask = Callable[[float], Awaitable[T]]
"""Asks once, given how many seconds the answer may take."""


class BrokenCircuitError(UnavailableError, HeadedError):
    """The service failed too often lately, and is left alone for a while."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How often and how long a question is asked.

    Attributes
    ----------
    attempts : int
        How often at most.
    wait_s : float
        Between one attempt and the next.
    timeout_s : float
        What the whole may take, waits included.
    """

    attempts: int = 3
    wait_s: float = 0.5
    timeout_s: float = 2.0


class Resilience:
    """Asks a service questions that change nothing there, and so may be repeated.

    Asked again is what the service did not get, or lost with its connection. A service that does
    not answer in time has enough to do: such a question counts as failed, but is not repeated.

    Parameters
    ----------
    name : str
        What errors call the service.
    retry : RetryRules
    breaker : BreakerRules

    Attributes
    ----------
    answered, failed, repeated, refused : int
        Attempts that the service answered and did not, those of them that were not the first of
        their question, and those that were not made for the circuit was open.
    """

    def __init__(self, name: str, retry: RetryRules, breaker: BreakerRules) -> None:
        self.answered = self.failed = self.repeated = self.refused = 0
        self._name = name
        self._retry = retry
        self._breaker = CircuitBreaker(breaker)

    @property
    def circuit(self) -> Circuit:
        """The state of the circuit."""
        return self._breaker.circuit(time.monotonic())

    @property
    def opened(self) -> int:
        """How often the circuit opened."""
        return self._breaker.opened

    async def ask(self, question: Ask[T]) -> T:
        """Return the answer.

        Raises
        ------
        BrokenCircuitError
            When the service was not asked; its headers say when it may be again.
        PeerError
            What the last attempt raised.
        """
        retry = self._retry
        ends_s = time.monotonic() + retry.timeout_s

        def may_repeat(error: UnavailableError) -> bool:
            is_broken = isinstance(error, BrokenCircuitError)
            return not is_broken and time.monotonic() + retry.wait_s < ends_s

        waits = delays(retry.wait_s, retry.wait_s, jitter=0)
        for number in count(1):
            try:
                return await self._try(question, ends_s, number)
            except UnavailableError as error:
                if number == retry.attempts or not may_repeat(error):
                    raise
            await asyncio.sleep(next(waits))
        raise AssertionError

    async def _try(self, question: Ask[T], ends_s: float, number: int) -> T:
        now_s = time.monotonic()
        ticket = self._breaker.acquire(now_s)
        if ticket is None:
            self.refused += 1
            raise self._broken(now_s)
        self.repeated += number > 1
        try:
            answer = await question(ends_s - now_s)
        except (UnknownSymbolError, RefusedError):
            self._report(ticket, failed=False)  # which are answers
            raise
        except PeerError:
            self._report(ticket, failed=True)
            raise
        except BaseException:
            self._breaker.release(ticket)
            raise
        self._report(ticket, failed=False)
        return answer

    def _report(self, ticket: int, *, failed: bool) -> None:
        self.failed += failed
        self.answered += not failed
        self._breaker.report(ticket, time.monotonic(), failed=failed)

    def _broken(self, now_s: float) -> BrokenCircuitError:
        wait_s = max(1, math.ceil(self._breaker.wait_s(now_s)))
        message = f"{self._name} failed too often, and is asked again in {wait_s} s"
        return BrokenCircuitError(message, {"Retry-After": str(wait_s)})
