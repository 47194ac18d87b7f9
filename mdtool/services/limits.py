"""What clients may use: rates of requests, numbers of connections, and classes of both."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from mdtool.core.config import setting
from mdtool.core.errors import MdtoolError
from mdtool.core.throttle import Throttle
from mdtool.core.units import NS_PER_S

UNLIMITED: Final = 0
LONGEST_WAIT_S: Final = 10
"""How long a subscription's first upstream request, or a message of a WebSocket, may be delayed
before it is rejected."""
_HERE: Final = frozenset({"localhost", "::/64"})
"""What identifies clients on this machine, besides 127.0.0.0/8: a name, and the network of ::1."""


class LimitError(MdtoolError):
    """A client exceeds a limit of its own.

    Attributes
    ----------
    headers : mapping of str to str
        `Retry-After` and the rate limit's state, for answers over HTTP.
    """

    def __init__(self, message: str, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.headers = headers


class CapacityError(MdtoolError):
    """The service has as many connections as it admits, of all clients together."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What each client may use, and all of them together.

    Attributes
    ----------
    requests_per_s : int
        Requests of one client, answered from memory, in the long run and at once; or UNLIMITED.
    upstream_per_s, upstream_burst : int
        Requests of one client that reach another service or a store, in the long run and at once.
    upstream_here_per_s : int or None
        The same for clients on this machine, also at once; None for that of others.
    connections : int or None
        Open at the same time, of all clients together; None for any number.
    connections_of_client : int
        Open at the same time, of one client, or UNLIMITED.
    time_percent : float
        How much of the service's time one client's messages may take while others wait.
    """

    requests_per_s: int = UNLIMITED
    upstream_per_s: int = UNLIMITED
    upstream_burst: int = 1
    upstream_here_per_s: int | None = None
    connections: int | None = None
    connections_of_client: int = UNLIMITED
    time_percent: float = 100.0


class RateLimit:
    """A rate of requests for each client, described in headers.

    The headers are those of draft-ietf-httpapi-ratelimit-headers: `RateLimit-Policy` and
    `RateLimit`.

    Parameters
    ----------
    name : str
        What the headers call it.
    rate_per_s : int
        In the long run, or UNLIMITED.
    burst : int
        At once, by a client that requested nothing before.
    here_per_s : int, optional
        The rate and the burst of clients on this machine, if these differ.

    Attributes
    ----------
    refused : int
        Requests rejected.
    spent : Counter of str or None
        Requests by client, for other processes that share the limit; None where there are none.
    """

    def __init__(
        self, name: str, rate_per_s: int, burst: int, here_per_s: int | None = None
    ) -> None:
        self.refused = 0
        self.spent: Counter[str] | None = None
        self._name = name
        self._throttle = _throttle(rate_per_s, burst)
        self._here = self._throttle
        if here_per_s is not None:
            self._here = _throttle(here_per_s, here_per_s)

    def spend(self, client: str) -> None:
        """Count a request; raise LimitError when there were too many."""
        throttle = self._of(client)
        if throttle is None:
            return
        wait_ns = throttle.spend(client, time.monotonic_ns())
        if wait_ns:
            self._reject(throttle, wait_ns)
        if self.spent is not None:
            self.spent[client] += 1

    def reserve(self, client: str) -> float:
        """Count a request that is made later, and return after how many seconds.

        Raises
        ------
        LimitError
            When that is more than `LONGEST_WAIT_S`.
        """
        throttle = self._of(client)
        if throttle is None:
            return 0.0
        now_ns = time.monotonic_ns()
        wait_ns = throttle.wait_ns(client, now_ns)
        if wait_ns > LONGEST_WAIT_S * NS_PER_S:
            self._reject(throttle, wait_ns)
        throttle.charge(client, now_ns, 1)
        if self.spent is not None:
            self.spent[client] += 1
        return wait_ns / NS_PER_S

    def charge(self, client: str, requests: int) -> None:
        """Count requests that another process has answered."""
        throttle = self._of(client)
        if throttle is not None:
            throttle.charge(client, time.monotonic_ns(), requests)

    def headers(self, client: str) -> Mapping[str, str]:
        """Return what a client may still request, as headers of an answer."""
        throttle = self._of(client)
        if throttle is None:
            return {}
        left = throttle.left(client, time.monotonic_ns())
        return self._headers(throttle, left, 0 if left else 1)

    def _of(self, client: str) -> Throttle | None:
        return self._here if client in _HERE or client.startswith("127.") else self._throttle

    def _reject(self, throttle: Throttle, wait_ns: int) -> NoReturn:
        self.refused += 1
        wait_s = max(1, math.ceil(wait_ns / NS_PER_S))
        rate = f"{throttle.rate_per_s:,} requests a second"
        message = f"rate limit of {rate} exceeded; retry in {wait_s} s"
        raise LimitError(
            message, {"Retry-After": str(wait_s), **self._headers(throttle, 0, wait_s)}
        )

    def _headers(self, throttle: Throttle, left: int, wait_s: int) -> Mapping[str, str]:
        window_s = math.ceil(throttle.burst / throttle.rate_per_s)
        policy = f'"{self._name}";q={throttle.burst};w={window_s}'
        state = f'"{self._name}";r={left}' + (f";t={wait_s}" if wait_s else "")
        return {"RateLimit-Policy": policy, "RateLimit": state}


class Volume:
    """An amount a second for each client; more waits, and what has passed is never rejected.

    Parameters
    ----------
    rate_per_s : int
        In the long run, and at once.

    Attributes
    ----------
    rate_per_s : int
    spent : Counter of str or None
        As that of RateLimit.
    """

    def __init__(self, rate_per_s: int) -> None:
        self.rate_per_s = rate_per_s
        self.spent: Counter[str] | None = None
        self._throttle = Throttle(rate_per_s, rate_per_s)

    def spend(self, client: str, count: int) -> float:
        """Count what has passed; return for how many seconds more has to wait."""
        now_ns = time.monotonic_ns()
        if count:
            self._throttle.charge(client, now_ns, count)
            if self.spent is not None:
                self.spent[client] += count
        return self._throttle.wait_ns(client, now_ns) / NS_PER_S

    def charge(self, client: str, count: int) -> None:
        """Count what has passed in another process."""
        self._throttle.charge(client, time.monotonic_ns(), count)


def _throttle(rate_per_s: int, burst: int) -> Throttle | None:
    return None if rate_per_s == UNLIMITED else Throttle(rate_per_s, burst)


@dataclass(frozen=True, slots=True)
class QuotaConfig:
    """What one principal of a class may use, `[quotas.CLASS]`; what is not given stays as it is."""

    requests_per_s: int | None = setting(None, "Requests a second from memory.", low=0)
    upstream_per_s: int | None = setting(None, "Requests a second that go upstream.", low=0)
    upstream_burst: int | None = setting(None, "How many of those at once.", low=1)
    connections: int | None = setting(None, "Connections at the same time.", low=0)
    subscriptions: int | None = setting(None, "Subscriptions at the same time.", low=0)
    ticks_per_s: int | None = setting(
        None, "Ticks a second that are taken, 0 for any number; more wait with their sender.", low=0
    )
    bytes_per_s: int | None = setting(
        None,
        "Bytes a second that are sent and received, 0 for any number; what is more waits.",
        low=0,
    )


class Quota:
    """What one class of principals may use, as rates and numbers.

    Parameters
    ----------
    limits : Limits
        Of the service.
    given : QuotaConfig
        What the class has instead.

    Attributes
    ----------
    requests, upstream : RateLimit
    connections, subscriptions : int
        Of one client, or UNLIMITED.
    ticks : Volume or None
        Of the ticks that clients send, None for any number.
    bytes : Volume or None
        Of the bytes that clients send and are sent, None for any number.
    """

    def __init__(self, limits: Limits, given: QuotaConfig) -> None:
        rate_per_s = limits.requests_per_s
        if given.requests_per_s is not None:
            rate_per_s = given.requests_per_s
        self.requests = RateLimit("memory", rate_per_s, max(1, rate_per_s))
        upstream_per_s, here_per_s = limits.upstream_per_s, limits.upstream_here_per_s
        if given.upstream_per_s is not None:
            upstream_per_s, here_per_s = given.upstream_per_s, None
        burst = given.upstream_burst or limits.upstream_burst
        self.upstream = RateLimit("upstream", upstream_per_s, burst, here_per_s)
        self.connections = limits.connections_of_client
        if given.connections is not None:
            self.connections = given.connections
        self.subscriptions = given.subscriptions or UNLIMITED
        self.ticks = Volume(given.ticks_per_s) if given.ticks_per_s else None
        self.bytes = Volume(given.bytes_per_s) if given.bytes_per_s else None

    @property
    def rates(self) -> Mapping[str, RateLimit | Volume]:
        """What is counted as it is used, by its name."""
        rates = {
            "requests": self.requests,
            "upstream": self.upstream,
            "ticks": self.ticks,
            "bytes": self.bytes,
        }
        return {name: rate for name, rate in rates.items() if rate is not None}


SERVICE_QUOTA: Final = "service"
"""The class of services of ours, which has no limits."""
DEFAULT_QUOTA: Final = "default"
"""The class of principals without one, and of clients without a token."""
