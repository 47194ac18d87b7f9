"""How much each client may ask for: requests a second, and WebSockets at once."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, NoReturn

from mdtool.adapters.aggregator import UnavailableError
from mdtool.core.throttle import Throttle
from mdtool.core.units import NS_PER_S
from mdtool.services.gateway.clients import CLIENT
from mdtool.services.gateway.tallies import SocketTally
from mdtool.services.http.answers import HeadedError

UNLIMITED: Final = 0
LONGEST_WAIT_S: Final = 10
"""For what a client follows, which is asked for later where there was too much at once."""


class LimitError(HeadedError):
    """A client asks for more than it may have; the headers say when there is more."""


class RequestLimit:
    """How many requests a second each client may make.

    What is left is told as draft-ietf-httpapi-ratelimit-headers has it: `RateLimit-Policy` and
    `RateLimit`.

    Parameters
    ----------
    name : str
        What the headers call it.
    rate_per_s : int
        In the long run, or UNLIMITED.
    burst : int
        At once, by who asked for nothing before.

    Attributes
    ----------
    refused : int
        Requests that were turned away.
    """

    def __init__(self, name: str, rate_per_s: int, burst: int) -> None:
        self.refused = 0
        self._name = name
        self._throttle = Throttle(rate_per_s, burst) if rate_per_s != UNLIMITED else None
        window_s = math.ceil(burst / rate_per_s) if rate_per_s else 0
        self._policy = f'"{name}";q={burst};w={window_s}'

    def spend(self, client: str) -> None:
        """Count a request.

        Raises
        ------
        LimitError
            When there were too many.
        """
        if self._throttle is None:
            return
        wait_ns = self._throttle.spend(client, time.monotonic_ns())
        if wait_ns:
            self._refuse(self._throttle.rate_per_s, wait_ns)

    def reserve(self, client: str) -> float:
        """Count a request that is made later, and return after how many seconds.

        Raises
        ------
        LimitError
            When that is more than `LONGEST_WAIT_S`.
        """
        if self._throttle is None:
            return 0.0
        now_ns = time.monotonic_ns()
        wait_ns = self._throttle.wait_ns(client, now_ns)
        if wait_ns > LONGEST_WAIT_S * NS_PER_S:
            self._refuse(self._throttle.rate_per_s, wait_ns)
        self._throttle.charge(client, now_ns, 1)
        return wait_ns / NS_PER_S

    def headers(self, client: str) -> Mapping[str, str]:
        """Return what is left for a client, as headers of an answer."""
        if self._throttle is None:
            return {}
        left = self._throttle.left(client, time.monotonic_ns())
        return self._headers(left, 0 if left else 1)

    def _refuse(self, rate_per_s: int, wait_ns: int) -> NoReturn:
        self.refused += 1
        wait_s = max(1, math.ceil(wait_ns / NS_PER_S))
        message = f"more than {rate_per_s:,} such requests a second; wait {wait_s} s"
        raise LimitError(message, {"Retry-After": str(wait_s), **self._headers(0, wait_s)})

    def _headers(self, left: int, wait_s: int) -> Mapping[str, str]:
        state = f'"{self._name}";r={left}' + (f";t={wait_s}" if wait_s else "")
        return {"RateLimit-Policy": self._policy, "RateLimit": state}


class UpstreamLimit:
    """The limit of what reaches the aggregator or a store, whichever protocol asks for it."""

    def __init__(self, rate_per_s: int, burst: int) -> None:
        self._limit = RequestLimit("upstream", rate_per_s, burst)

    @property
    def refused(self) -> int:
        """Questions that were turned away."""
        return self._limit.refused

    def spend(self) -> None:
        """Count a question of the client for whom the present task works.

        Raises
        ------
        LimitError
            When it asked too many.
        """
        self._limit.spend(CLIENT.get())

    def reserve(self) -> float:
        """Count a question of that client which is asked later; return after how many seconds.

        Raises
        ------
        LimitError
            When it asked too many.
        """
        return self._limit.reserve(CLIENT.get())

    def headers(self) -> Mapping[str, str]:
        """Return what is left for that client, as headers of an answer."""
        return self._limit.headers(CLIENT.get())


class SocketLimit:
    """How many connections that last there may be: WebSockets, and sessions of SockJS.

    Parameters
    ----------
    most : int
        At once.
    most_of_client : int
        Of each client, or UNLIMITED.

    Attributes
    ----------
    refused : int
        Those that were turned away.
    """

    def __init__(self, most: int, most_of_client: int) -> None:
        self.refused = 0
        self._most = most
        self._most_of_client = most_of_client
        self._open = 0
        self._open_of: Counter[str] = Counter()

    @contextlib.contextmanager
    def opened(self, tally: SocketTally) -> Iterator[None]:
        """Have one of the client's for whom the present task works be open within the block.

        Raises
        ------
        LimitError
            When the client has too many.
        UnavailableError
            When all clients together have.
        """
        client = CLIENT.get()
        if self._open >= self._most:
            self._refuse(tally)
            raise UnavailableError(f"{self._most:,} WebSockets are open")
        if self._open_of[client] >= self._most_of_client != UNLIMITED:
            self._refuse(tally)
            message = f"{self._most_of_client:,} WebSockets of this client are open"
            raise LimitError(message, {"Retry-After": "1"})
        self._open += 1
        self._open_of[client] += 1
        tally.opened += 1
        tally.open += 1
        try:
            yield
        finally:
            tally.open -= 1
            self._open -= 1
            self._open_of[client] -= 1
            if not self._open_of[client]:
                del self._open_of[client]

    def _refuse(self, tally: SocketTally) -> None:
        self.refused += 1
        tally.refused += 1
