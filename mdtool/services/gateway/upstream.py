"""Requests to what is behind the gateway: repeated, or not made while it keeps failing."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

from mdtool.adapters.book_services import ServiceUnavailableError
from mdtool.adapters.market import RefusedError, UnavailableError, UnknownSymbolError
from mdtool.core.backoff import delays
from mdtool.core.breaker import BreakerRules, Circuit, CircuitBreaker
from mdtool.core.errors import PeerError
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.http.answers import HeadedError

T = TypeVar("T")

Call = Callable[[float], Awaitable[T]]
"""Makes a request once, given how many seconds the response may take."""


def peer_state(address: str, lost_because: str | None) -> Mapping[str, Any]:
    """Return the state of a service behind the gateway, for `/health`.

    Parameters
    ----------
    address : str
    lost_because : str or None
        Why it is unavailable, None where it is not.
    """
    return {"address": address, "connected": lost_because is None, "message": lost_because}


class BrokenCircuitError(UnavailableError, HeadedError):
    """The service failed too often lately, and gets no requests for a while."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How often and how long a request is made.

    Attributes
    ----------
    attempts : int
        At most.
    wait_s : float
        Between one attempt and the next.
    timeout_s : float
        For the whole, waits included.
    """

    attempts: int = 3
    wait_s: float = 0.5
    timeout_s: float = 2.0


class Upstream:
    """Makes requests that change nothing, and so may be repeated.

    A request is repeated when the service did not get it, or lost it with its connection. A service
    that does not respond in time is busy: such a request counts as failed and is not repeated.

    Parameters
    ----------
    name : str
        What errors call the service.
    retry : RetryRules
    breaker : BreakerRules or None
        None for what is not remote, such as a file, which is read once.

    Attributes
    ----------
    answered, failed, repeated, refused : int
        Attempts with a response and without; those of them that were not the first of their
        request; and those that were not made, for the circuit was open.
    """

    def __init__(self, name: str, retry: RetryRules, breaker: BreakerRules | None) -> None:
        self.answered = self.failed = self.repeated = self.refused = 0
        self._name = name
        self._retry = retry
        self._breaker = None if breaker is None else CircuitBreaker(breaker)

    @classmethod
    def remote(cls, name: str, config: GatewayConfig) -> Upstream:
        """Return an upstream with retries and a circuit breaker, for a service."""
        retry = RetryRules(config.attempts, config.retry_ms / 1_000, config.timeout_ms / 1_000)
        breaker = BreakerRules(
            window=config.breaker_window,
            least=config.breaker_least,
            failed_share=config.breaker_failed_percent / 100,
            open_s=config.breaker_open_ms / 1_000,
            trials=config.breaker_trials,
        )
        return cls(name, retry, breaker)

    @classmethod
    def local(cls, name: str, config: GatewayConfig) -> Upstream:
        """Return an upstream that only counts, for a file."""
        return cls(name, RetryRules(1, 0.0, config.timeout_ms / 1_000), None)

    @property
    def circuit(self) -> Circuit:
        """The state of the circuit."""
        if self._breaker is None:
            return Circuit.CLOSED
        return self._breaker.circuit(time.monotonic())

    @property
    def opened(self) -> int:
        """How often the circuit opened."""
        return 0 if self._breaker is None else self._breaker.opened

    async def request(self, call: Call[T]) -> T:
        """Return the response.

        Raises
        ------
        BrokenCircuitError
            When no request was made; its headers say when one may be.
        PeerError
            What the last attempt raised.
        """
        retry = self._retry
        ends_s = time.monotonic() + retry.timeout_s
        waits = delays(retry.wait_s, retry.wait_s, jitter=0)
        for number in count(1):
            try:
                return await self._try(call, ends_s, number)
            except BrokenCircuitError:
                raise
            except (UnavailableError, ServiceUnavailableError):
                if number == retry.attempts or time.monotonic() + retry.wait_s >= ends_s:
                    raise
            await asyncio.sleep(next(waits))
        raise AssertionError

    async def _try(self, call: Call[T], ends_s: float, number: int) -> T:
        now_s, breaker = time.monotonic(), self._breaker
        ticket = 0 if breaker is None else breaker.acquire(now_s)
        if ticket is None:
            self.refused += 1
            raise self._broken(now_s)
        self.repeated += number > 1
        try:
            response = await call(ends_s - now_s)
        except (UnknownSymbolError, RefusedError):  # which are responses
            self._report(ticket, failed=False)
            raise
        except PeerError:
            self._report(ticket, failed=True)
            raise
        except BaseException:
            if breaker is not None:
                breaker.release(ticket)
            raise
        self._report(ticket, failed=False)
        return response

    def _report(self, ticket: int, *, failed: bool) -> None:
        self.failed += failed
        self.answered += not failed
        if self._breaker is not None:
            self._breaker.report(ticket, time.monotonic(), failed=failed)

    def _broken(self, now_s: float) -> BrokenCircuitError:
        assert self._breaker is not None
        wait_s = max(1, math.ceil(self._breaker.wait_s(now_s)))
        message = f"{self._name}: failed too often; next request in {wait_s} s"
        return BrokenCircuitError(message, {"Retry-After": str(wait_s)})
