"""A client of a service: who it is, what it may use, what it has used, and how it is closed.

Every listener admits its connections and requests through the service's one `Admission`; what
protocols get is the `Client`. Nobody is admitted, limited or counted anywhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address, IPv6Network
from typing import Final, NoReturn

from mdtool.core.errors import MdtoolError
from mdtool.core.throttle import Throttle
from mdtool.core.units import NS_PER_S

UNLIMITED: Final = 0
LONGEST_WAIT_S: Final = 10
"""How long a subscription's first upstream request may be delayed before it is rejected."""
_TIME_BURST_US: Final = 250_000
_US_PER_PERCENT: Final = 10_000
_NS_PER_US: Final = 1_000
_IPV6_PREFIX: Final = 64
"""Bits of the network that one host has to itself: it may use a new address for each request."""
_LEAST_TURN_WAIT_S: Final = 0.1
"""The shortest wait for a turn: shorter waits of many connections would keep the CPU busy."""


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
class Principal:
    """Who a client is.

    Attributes
    ----------
    name : str
        Unique among principals.
    """

    name: str


ANONYMOUS: Final = Principal("anonymous")
_HERE: Final = frozenset({"localhost", "::/64"})
"""What identifies clients on this machine, besides 127.0.0.0/8: a name, and the network of ::1."""


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


@dataclass(slots=True)
class Tally:
    """The connections of one listener or path, and what was written to them.

    Attributes
    ----------
    open, opened, refused : int
        Connections open now, ever, and rejected for their number.
    sent, conflated, dropped : int
        Messages written; replaced unwritten by a later one of the same state; and events dropped
        and reported as missed.
    behind : int
        Connections closed because the client did not read.
    """

    open: int = 0
    opened: int = 0
    refused: int = 0
    sent: int = 0
    conflated: int = 0
    dropped: int = 0
    behind: int = 0


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
        Requests by client, for other processes of the service that share the limit; None where
        there are none.
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
        """Count requests that another process of the service has answered."""
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


def _throttle(rate_per_s: int, burst: int) -> Throttle | None:
    return None if rate_per_s == UNLIMITED else Throttle(rate_per_s, burst)


@dataclass(slots=True)
class Elsewhere:
    """The connections to another process of the service.

    Attributes
    ----------
    total : int
    of : dict of str to int
        By identity.
    """

    total: int = 0
    of: dict[str, int] = field(default_factory=dict)

    def update(self, changed: Mapping[str, int]) -> None:
        """Set how many connections some identities have."""
        for identity, count in changed.items():
            self.total += count - self.of.pop(identity, 0)
            if count:
                self.of[identity] = count


@dataclass(slots=True)
class Admission:
    """Admits the clients of one service.

    Parameters
    ----------
    limits : Limits

    Attributes
    ----------
    tallies : dict of str to Tally
        By listener or path.
    waits : int
        Messages that waited because their client had used its share of the time.
    requests, upstream : RateLimit
    time_share : Throttle
        Its tokens are microseconds.
    open : dict of Client
        Those that are connected; `open_of` counts them by identity, `rejected` those refused.
    changed : set of str or None
        Identities whose number of connections changed, for other processes of the service that
        share the limits; None where there are none.
    elsewhere : dict of int to Elsewhere
        The connections to those processes.
    """

    limits: Limits
    tallies: dict[str, Tally] = field(default_factory=dict)
    waits: int = 0
    requests: RateLimit = field(init=False)
    upstream: RateLimit = field(init=False)
    time_share: Throttle = field(init=False)
    open: dict[Client, None] = field(init=False, default_factory=dict)
    open_of: Counter[str] = field(init=False, default_factory=Counter)
    rejected: int = field(init=False, default=0)
    changed: set[str] | None = field(init=False, default=None)
    elsewhere: dict[int, Elsewhere] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        limits = self.limits
        rate_per_s = limits.requests_per_s
        self.requests = RateLimit("memory", rate_per_s, max(1, rate_per_s))
        self.upstream = RateLimit(
            "upstream", limits.upstream_per_s, limits.upstream_burst, limits.upstream_here_per_s
        )
        rate = max(1, round(limits.time_percent * _US_PER_PERCENT))
        self.time_share = Throttle(rate, _TIME_BURST_US)

    def __len__(self) -> int:
        """Return how many connections are open, to all processes of the service."""
        return len(self.open) + sum(process.total for process in self.elsewhere.values())

    @property
    def refused(self) -> Mapping[str, int]:
        """How much was rejected, by limit."""
        return {
            "requests": self.requests.refused,
            "upstream": self.upstream.refused,
            "sockets": self.rejected,
        }

    def connections_of(self, identity: str) -> int:
        """Return how many connections a client has, to all processes of the service."""
        elsewhere = sum(process.of.get(identity, 0) for process in self.elsewhere.values())
        return self.open_of[identity] + elsewhere

    def note(self, identity: str, change: int) -> None:
        """Count a connection that is opened or closed."""
        self.open_of[identity] += change
        if not self.open_of[identity]:
            del self.open_of[identity]
        if self.changed is not None:
            self.changed.add(identity)

    def tally(self, listener: str) -> Tally:
        """Return the tally of a listener or path."""
        return self.tallies.setdefault(listener, Tally())

    def client(self, address: str, principal: Principal = ANONYMOUS) -> Client:
        """Return the client of one request or connection.

        Parameters
        ----------
        address : str
            What identifies a client that does not authenticate: its IPv4 address or IPv6 network.
        principal : Principal
        """
        return Client(self, address, principal)

    def peer(self, transport: asyncio.BaseTransport) -> Client:
        """Return the anonymous client at the other end of a TCP connection."""
        # A connection that is lost already has no peer name.
        host, *_ = transport.get_extra_info("peername") or ("",)
        return self.client(client_address(host))

    def close_all(self, code: int, reason: str) -> None:
        """Close every connection."""
        for client in list(self.open):
            client.close(code, reason)


class Client:
    """One connection, or one request.

    Parameters
    ----------
    admission : Admission
        Of the service; its limits count by `identity`.
    address : str
    principal : Principal

    Attributes
    ----------
    identity : str
        What limits count by: the address of an anonymous client, else the principal.
    """

    __slots__ = ("_admission", "_close", "address", "identity", "principal", "tally")

    def __init__(
        self, admission: Admission, address: str, principal: Principal = ANONYMOUS
    ) -> None:
        self._admission = admission
        self._close: Callable[[int, str], None] | None = None
        self.address = address
        self.principal = principal
        self.identity = address if principal is ANONYMOUS else principal.name
        self.tally: Tally | None = None

    def spend_request(self) -> None:
        """Count a request answered from memory; raise LimitError when there were too many."""
        self._admission.requests.spend(self.identity)

    def spend_upstream(self) -> None:
        """Count a request that reaches another service; raise LimitError likewise."""
        self._admission.upstream.spend(self.identity)

    def reserve_upstream(self) -> float:
        """Count such a request that is made later, and return after how many seconds.

        Raises
        ------
        LimitError
            When that is more than `LONGEST_WAIT_S`.
        """
        return self._admission.upstream.reserve(self.identity)

    def upstream_headers(self) -> Mapping[str, str]:
        """Return what the client may still request upstream, as headers."""
        return self._admission.upstream.headers(self.identity)

    async def turn(self) -> Turn:
        """Wait until the client has time left, and return a block that charges it.

        What a message costs is known only afterwards, so the next one waits, on whichever of the
        client's connections. The block of the turn must not await.
        """
        admission = self._admission
        throttle = admission.time_share
        has_waited = False
        # Another connection of the client may use what was waited for.
        while wait_ns := throttle.wait_ns(self.identity, time.monotonic_ns()):
            if not has_waited:
                has_waited = True
                admission.waits += 1
            await asyncio.sleep(max(_LEAST_TURN_WAIT_S, wait_ns / NS_PER_S))
        return Turn(throttle, self.identity)

    @contextlib.contextmanager
    def connected(self, listener: str, close: Callable[[int, str], None]) -> Iterator[Tally]:
        """Count the client as a connection within the block, and give the listener's tally.

        Parameters
        ----------
        listener : str
            The listener or path, as metrics name it.
        close : callable
            Closes the connection, with a code and a reason.

        Raises
        ------
        LimitError
            When the client has as many as it may have.
        CapacityError
            When all clients together have.
        """
        admission, tally = self._admission, self._admission.tally(listener)
        self._admit(tally)
        admission.open[self] = None
        admission.note(self.identity, 1)
        tally.opened += 1
        tally.open += 1
        self._close, self.tally = close, tally
        try:
            yield tally
        finally:
            tally.open -= 1
            self._close = None
            del admission.open[self]
            admission.note(self.identity, -1)

    def close(self, code: int, reason: str) -> None:
        """Close the connection; nothing happens where the client has none."""
        if self._close is not None:
            self._close(code, reason)

    def _admit(self, tally: Tally) -> None:
        admission, limits = self._admission, self._admission.limits
        if limits.connections is not None and len(admission) >= limits.connections:
            tally.refused += 1
            admission.rejected += 1
            raise CapacityError(f"connection limit of {limits.connections:,} reached")
        of_client = limits.connections_of_client
        if of_client != UNLIMITED and admission.connections_of(self.identity) >= of_client:
            tally.refused += 1
            admission.rejected += 1
            message = f"connection limit of {of_client:,} for one client reached"
            raise LimitError(message, {"Retry-After": "1"})


@functools.lru_cache(4_096)
def client_address(text: str) -> str:
    """Return what identifies an anonymous client: its IPv4 address, or its IPv6 network.

    Parameters
    ----------
    text : str
        An address of either family, also with a port, an IPv6 one then in brackets. Any other text
        is returned as it is.
    """
    if ":" not in text:
        return text
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    try:
        ipv6 = IPv6Address(text)
    except AddressValueError:
        return _without_port(text)
    if ipv6.ipv4_mapped is not None:
        return str(ipv6.ipv4_mapped)
    return str(IPv6Network((int(ipv6), _IPV6_PREFIX), strict=False))


def _without_port(text: str) -> str:
    host = text.partition(":")[0]
    try:
        return str(IPv4Address(host))
    except AddressValueError:
        return text


class Turn:
    """A block whose time is charged to a client.

    Parameters
    ----------
    throttle : Throttle
        Its tokens are microseconds.
    identity : str
    """

    __slots__ = ("_began_ns", "_identity", "_throttle")

    def __init__(self, throttle: Throttle, identity: str) -> None:
        self._throttle = throttle
        self._identity = identity
        self._began_ns = 0

    def __enter__(self) -> None:
        self._began_ns = time.monotonic_ns()

    def __exit__(self, *exc_info: object) -> None:
        now_ns = time.monotonic_ns()
        self._throttle.charge(self._identity, now_ns, (now_ns - self._began_ns) // _NS_PER_US)
