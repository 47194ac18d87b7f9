"""How much of the gateway's time each client gets for what it says."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from mdtool.core.throttle import Throttle
from mdtool.core.units import NS_PER_S
from mdtool.services.gateway.clients import CLIENT

_NS_PER_US: Final = 1_000
_US_PER_PERCENT: Final = 10_000
_AT_ONCE_US: Final = 250_000
_LEAST_WAIT_S: Final = 0.1
"""Else all connections of a client would look every few microseconds whether it is their turn."""


class TimeShare:
    """Has each client wait with what it says, once that has taken more than its share of the time.

    What one message costs, such as a GraphQL document that is validated for 0.1 s, is known only
    afterwards; so it is the next one that waits, on whichever of the client's connections.

    Parameters
    ----------
    percent : float
        What each client gets, of the time during which all others wait; 100 is all of it.

    Attributes
    ----------
    waits : int
        How many messages have had to wait.
    """

    def __init__(self, percent: float) -> None:
        self.waits = 0
        self._throttle = Throttle(max(1, round(percent * _US_PER_PERCENT)), _AT_ONCE_US)

    async def turn(self) -> Turn:
        """Wait for the turn of the client for whom the present task works, and return it.

        The block of the turn must not wait for anything.
        """
        client = CLIENT.get()
        has_waited = False
        # Time is what is waited for; another connection of the client may have taken it meanwhile.
        while wait_ns := self._throttle.wait_ns(client, time.monotonic_ns()):
            if not has_waited:
                has_waited = True
                self.waits += 1
            await asyncio.sleep(max(_LEAST_WAIT_S, wait_ns / NS_PER_S))
        return Turn(self._throttle, client)


class Turn:
    """Charges a client for the time that a block takes.

    Parameters
    ----------
    throttle : Throttle
        Its tokens are microseconds.
    client : str
    """

    __slots__ = ("_began_ns", "_client", "_throttle")

    def __init__(self, throttle: Throttle, client: str) -> None:
        self._throttle = throttle
        self._client = client
        self._began_ns = 0

    def __enter__(self) -> None:
        self._began_ns = time.monotonic_ns()

    def __exit__(self, *exc_info: object) -> None:
        now_ns = time.monotonic_ns()
        self._throttle.charge(self._client, now_ns, (now_ns - self._began_ns) // _NS_PER_US)
