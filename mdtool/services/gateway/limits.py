"""How much each client may ask for: requests a second, and WebSockets at once."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from mdtool.core.throttle import Throttle
from mdtool.core.units import NS_PER_S
from mdtool.services.gateway.clients import CLIENT
from mdtool.services.http.answers import Handler, HeadedError

UNLIMITED: Final = 0


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
            self.refused += 1
            rate, wait_s = self._throttle.rate_per_s, max(1, math.ceil(wait_ns / NS_PER_S))
            message = f"more than {rate:,} such requests a second; wait {wait_s} s"
            raise LimitError(message, {"Retry-After": str(wait_s), **self._headers(0, wait_s)})

    def headers(self, client: str) -> Mapping[str, str]:
        """Return what is left for a client, as headers of an answer."""
        if self._throttle is None:
            return {}
        left = self._throttle.left(client, time.monotonic_ns())
        return self._headers(left, 0 if left else 1)

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

    def headers(self) -> Mapping[str, str]:
        """Return what is left for that client, as headers of an answer."""
        return self._limit.headers(CLIENT.get())


class SocketLimit:
    """How many WebSockets each client may have open.

    Parameters
    ----------
    most : int
        Or UNLIMITED.

    Attributes
    ----------
    refused : int
        Those that were turned away.
    """

    def __init__(self, most: int) -> None:
        self.refused = 0
        self._most = most
        self._open: Counter[str] = Counter()

    def over(self, handler: Handler) -> Handler:
        """Return a handler of WebSockets that counts those of another one while they are open.

        Requests that ask for no WebSocket are not counted.
        """
        if self._most == UNLIMITED:
            return handler

        async def run(request: web.Request) -> web.StreamResponse:
            if "Upgrade" not in request.headers:
                return await handler(request)
            client = CLIENT.get()
            if self._open[client] >= self._most:
                self.refused += 1
                raise LimitError(
                    f"{self._most:,} WebSockets of this client are open", {"Retry-After": "1"}
                )
            self._open[client] += 1
            try:
                return await handler(request)
            finally:
                self._open[client] -= 1
                if not self._open[client]:
                    del self._open[client]

        return run
