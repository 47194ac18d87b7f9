"""What the gateway counts of its own work, as cheaply as a counter can be."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

BOUNDS_S: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
"""Upper bounds, inclusive, of the buckets of request times; one without a bound follows."""


@dataclass(slots=True)
class Times:
    """Request times in buckets.

    Attributes
    ----------
    buckets : list of int
        How many fell into each, not cumulated.
    total_s : float
        Their sum.
    """

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0


class RouteTally:
    """The times of one route's requests by status.

    A Histogram of prometheus_client takes 4 us for each, a tenth of what a request takes.
    """

    __slots__ = ("by_status",)

    def __init__(self) -> None:
        self.by_status: dict[int, Times] = {}

    def add(self, status: int, time_s: float) -> None:
        """Count a request."""
        times = self.by_status.get(status)
        if times is None:
            times = self.by_status[status] = Times()
        times.buckets[bisect_left(BOUNDS_S, time_s)] += 1
        times.total_s += time_s


@dataclass(slots=True)
class SocketTally:
    """The connections of one WebSocket path, and what went out over them.

    Attributes
    ----------
    open, opened, refused : int
        Connections that there are, that there were, and that were turned away for their number.
    sent, conflated : int
        Messages that were written, and that a later one of their topic replaced unwritten.
    behind : int
        Connections that were closed because the client did not read.
    """

    open: int = 0
    opened: int = 0
    refused: int = 0
    sent: int = 0
    conflated: int = 0
    behind: int = 0


@dataclass(slots=True)
class Tallies:
    """All of them, by route."""

    routes: dict[str, RouteTally] = field(default_factory=dict)
    sockets: dict[str, SocketTally] = field(default_factory=dict)

    def route(self, path: str) -> RouteTally:
        """Return the tally of a route."""
        return self.routes.setdefault(path, RouteTally())

    def socket(self, path: str) -> SocketTally:
        """Return the tally of a WebSocket path."""
        return self.sockets.setdefault(path, SocketTally())
