"""A client of a service: who it is, what it may use, what it has used, and how it is closed.

Every listener admits its connections and requests through the service's one `Admission`; what
protocols get is the `Client`. Nobody is admitted, limited or counted anywhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mdtool.adapters.identity.errors import TokenError, UnknownKeyError
from mdtool.core.errors import MdtoolError
from mdtool.core.logs import PRINCIPAL
from mdtool.core.permissions import ANONYMOUS, CERTIFIED, ForbiddenError, Principal
from mdtool.core.throttle import Throttle
from mdtool.core.tls import TLS_TO_PLAIN, peer_certificate
from mdtool.core.units import NS_PER_S
from mdtool.services.client_address import client_address
from mdtool.services.holdings import Holdings, Tally
from mdtool.services.limits import (
    DEFAULT_QUOTA,
    SERVICE_QUOTA,
    UNLIMITED,
    CapacityError,
    LimitError,
    Limits,
    Quota,
    QuotaConfig,
    RateLimit,
)
from mdtool.services.security import NO_TOKEN, Security, bearer

log = logging.getLogger(__name__)

_QUIET_S: Final = 60.0
"""How long no further client is reported that speaks TLS to a port that does not."""
_TIME_BURST_US: Final = 250_000
_US_PER_PERCENT: Final = 10_000
_NS_PER_US: Final = 1_000
BY_PRINCIPAL: Final = "principal "
"""How the identity begins of a client that has authenticated."""
_DRAIN_STEP_S: Final = 0.05
GOODBYE_S: Final = 3.0
"""How long a client that is dismissed may take to read what was written."""
_LEAST_TURN_WAIT_S: Final = 0.1
"""The shortest wait for a turn: shorter waits of many connections would keep the CPU busy."""


@dataclass(slots=True)
class Admission:
    """Admits the clients of one service.

    Parameters
    ----------
    limits : Limits
    security : Security, optional
        How clients authenticate; without it everybody may do everything.

    Attributes
    ----------
    tallies : dict of str to Tally
        By listener or path.
    waits : int
        Messages that waited because their client had used its share of the time.
    requests, upstream : RateLimit
        Of the default class of quotas.
    time_share : Throttle
        Its tokens are microseconds.
    open : dict of Client
        Those that are connected; `rejected` counts those refused.
    connections, subscriptions : Holdings
        Subscriptions only where clients authenticate.
    is_metered : bool
        Whether a class of quotas bounds the bytes that clients send and are sent.
    """

    limits: Limits
    security: Security | None = None
    tallies: dict[str, Tally] = field(default_factory=dict)
    waits: int = 0
    requests: RateLimit = field(init=False)
    upstream: RateLimit = field(init=False)
    time_share: Throttle = field(init=False)
    open: dict[Client, None] = field(init=False, default_factory=dict)
    rejected: int = field(init=False, default=0)
    connections: Holdings = field(init=False, default_factory=Holdings)
    subscriptions: Holdings = field(init=False, default_factory=Holdings)
    quotas: dict[str, Quota] = field(init=False, default_factory=dict)
    is_metered: bool = field(init=False)
    _tls_reported_s: float = field(init=False, default=-math.inf)

    def __post_init__(self) -> None:
        limits = self.limits
        given = {} if self.security is None else self.security.quotas
        for name in {DEFAULT_QUOTA, *given}:
            self.quotas[name] = Quota(limits, given.get(name, QuotaConfig()))
        self.quotas.setdefault(SERVICE_QUOTA, Quota(Limits(), QuotaConfig()))
        self.is_metered = any(quota.bytes is not None for quota in self.quotas.values())
        default = self.quotas[DEFAULT_QUOTA]
        self.requests, self.upstream = default.requests, default.upstream
        rate = max(1, round(limits.time_percent * _US_PER_PERCENT))
        self.time_share = Throttle(rate, _TIME_BURST_US)

    def __len__(self) -> int:
        """Return how many connections are open, to all workers of the service."""
        elsewhere = self.connections.elsewhere.values()
        return len(self.open) + sum(process.total for process in elsewhere if process.is_worker)

    def quota(self, principal: Principal) -> Quota:
        """Return the quotas of a principal: those of its class, if that exists."""
        return self.quotas.get(principal.quota) or self.quotas[DEFAULT_QUOTA]

    @property
    def refused(self) -> Mapping[str, int]:
        """How much was rejected, by limit."""
        return {
            "requests": sum(quota.requests.refused for quota in self.quotas.values()),
            "upstream": sum(quota.upstream.refused for quota in self.quotas.values()),
            "sockets": self.rejected,
        }

    def tally(self, listener: str) -> Tally:
        """Return the tally of a listener or path."""
        return self.tallies.setdefault(listener, Tally())

    def client(self, address: str, principal: Principal | None = None) -> Client:
        """Return the client of one request or connection.

        Parameters
        ----------
        address : str
            What identifies a client that does not authenticate: its IPv4 address or IPv6 network.
        principal : Principal, optional
            One that has authenticated.
        """
        return Client(self, address, principal)

    def peer(self, transport: asyncio.BaseTransport) -> Client:
        """Return the client at the other end of a TCP connection, whom its certificate may name."""
        # A connection that is lost already has no peer name.
        host, *_ = transport.get_extra_info("peername") or ("",)
        security = self.security
        principal = None if security is None else security.certified(peer_certificate(transport))
        return self.client(client_address(host), principal)

    def report_tls(self, peer: str) -> None:
        """Log that a client speaks TLS to a port that does not, once a minute at most."""
        now_s = time.monotonic()
        if now_s - self._tls_reported_s >= _QUIET_S:
            self._tls_reported_s = now_s
            log.warning("client %s: %s", peer, TLS_TO_PLAIN)

    def check_connections(self, identity: str, quota: Quota) -> None:
        """Raise LimitError where a client has as many connections as it may have."""
        most = quota.connections
        if most != UNLIMITED and self.connections.of(identity) >= most:
            self.rejected += 1
            message = f"connection limit of {most:,} for one client reached"
            raise LimitError(message, {"Retry-After": "1"})

    async def close_over(self, duration_s: float, code: int, reason: str) -> None:
        """Close connections one after the other, evenly over a time, those too that come in it."""
        now_s = asyncio.get_running_loop().time
        began_s, closed = now_s(), 0
        while (passed_s := now_s() - began_s) < duration_s:
            due = (closed + len(self.open)) * passed_s / duration_s
            for client in list(self.open)[: int(due) - closed]:
                client.close(code, reason)
                closed += 1
            await asyncio.sleep(min(_DRAIN_STEP_S, duration_s - passed_s))

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
    principal : Principal, optional
        One that has authenticated; otherwise the client may authenticate later.

    Attributes
    ----------
    identity : str
        What limits count by: the address of an anonymous client, else the principal.
    began_s : float
        When it came, on a monotonic clock; 0 where nobody authenticates.
    """

    __slots__ = (
        *("_admission", "_close", "_quota", "address", "began_s", "identity"),
        *("is_authenticated", "principal", "tally"),
    )

    def __init__(
        self, admission: Admission, address: str, principal: Principal | None = None
    ) -> None:
        security = admission.security
        self._admission = admission
        self._close: Callable[[int, str], None] | None = None
        self.address = address
        self.identity = address
        self.tally: Tally | None = None
        self.is_authenticated = principal is not None
        self.began_s = 0.0 if security is None else time.monotonic()
        if principal is not None:
            self.principal = principal
            self.identity = _identity(principal)
            PRINCIPAL.set(principal.name)
        else:
            self.principal = ANONYMOUS if security is None else security.anonymous
        self._quota = admission.quota(self.principal)

    @property
    def security(self) -> Security | None:
        """How clients of the service authenticate, None where they do not."""
        return self._admission.security

    def report_tls(self, peer: str) -> None:
        """As `Admission.report_tls`."""
        self._admission.report_tls(peer)

    def check_authenticated(self) -> None:
        """Raise TokenError where the client has not authenticated, whether or not it has to."""
        if not self.is_authenticated:
            raise TokenError(NO_TOKEN)

    @property
    def needs_token(self) -> bool:
        """Whether a token is required, and the client has not sent any."""
        security = self._admission.security
        return security is not None and security.is_required and not self.is_authenticated

    def check_token(self) -> None:
        """Raise TokenError where a token is required, and the client has not sent any."""
        if self.needs_token:
            assert self.security is not None
            self.security.note(self, "enter", NO_TOKEN)
            raise TokenError(NO_TOKEN)

    def check_feed(self, feed: str) -> None:
        """Raise where the client may read nothing of a feed.

        Raises
        ------
        TokenError
            When it has yet to authenticate.
        ForbiddenError
            When none of its roles has the feed.
        """
        self.check_token()
        security = self._admission.security
        if security is not None and not self.principal.access.has_feed(feed):
            why = f"{feed}: none of your roles has this feed"
            security.note(self, f"read {feed}", why)
            raise ForbiddenError(why)

    def check_right(self, right: str, what: str) -> None:
        """Raise TokenError before the client has authenticated, ForbiddenError without a right.

        Parameters
        ----------
        right : str
            Of RIGHTS.
        what : str
            What requires it, for the error and the audit log.
        """
        self.check_token()
        security = self._admission.security
        if security is not None:
            security.check_right(self, right, what)

    def bearer(self, values: Sequence[str]) -> str:
        """Return the token of the values of `Authorization`.

        Raises
        ------
        TokenError
            When there are several, or it is not a bearer token.
        """
        try:
            return _bearer_of(values)
        except TokenError as error:
            if self.security is not None:
                self.security.note(self, "authenticate", str(error))
            raise

    def authenticate(self, token: str) -> None:
        """Take a token: the client's first one, or a newer one of the same principal.

        Raises
        ------
        UnknownKeyError
            When only a refresh of the issuer's keys could tell; see `authenticate_now`.
        TokenError
            When it is not valid.
        LimitError
            When the client sent too many that are not, or its principal has too many connections.
        """
        security = self._admission.security
        if security is not None:
            self._enter(security, lambda: security.principal(token))

    async def authenticate_now(self, token: str) -> None:
        """As `authenticate`; the issuer's keys are read again where that may help."""
        security = self._admission.security
        if security is None:
            return
        try:
            self.authenticate(token)
        except UnknownKeyError:
            principal: Principal | TokenError
            try:
                principal = await security.principal_now(token)
            except UnknownKeyError as error:  # nothing could tell any more
                principal = TokenError(str(error))
            except TokenError as error:
                principal = error
            self._enter(security, lambda: _result(principal))

    def redeem(self, ticket: str) -> Awaitable[None] | None:
        """Take a ticket in place of a token.

        Returns
        -------
        awaitable or None
            What is left to wait for, where another process of the service has issued the ticket.

        Raises
        ------
        TokenError, LimitError
            As `authenticate`; of the awaitable likewise.
        """
        security = self._admission.security
        if security is None:
            return None
        elsewhere = security.tickets.redeemed_elsewhere(ticket)
        if elsewhere is not None:
            return self._redeem_later(security, elsewhere)
        self._enter(security, lambda: security.tickets.redeem(ticket))
        return None

    async def _redeem_later(self, security: Security, redeemed: Awaitable[Principal]) -> None:
        found: Principal | TokenError
        try:
            found = await redeemed
        except TokenError as error:
            found = error
        self._enter(security, lambda: _result(found))

    def _enter(self, security: Security, find: Callable[[], Principal]) -> None:
        """Become the principal that `find` returns."""
        try:
            principal = find()
            security.check_valid(principal)
            self._become(principal)
        except UnknownKeyError:
            raise
        except TokenError as error:
            security.note(self, "authenticate", str(error))
            self._admission.requests.spend(self.address)
            raise

    def _become(self, principal: Principal) -> None:
        admission = self._admission
        # A token goes before a certificate.
        if self.is_authenticated and not self.principal.name.startswith(CERTIFIED):
            known = self.principal
            if (principal.name, principal.access) != (known.name, known.access):
                raise TokenError(
                    "token: of another principal, or with other permissions; open a new connection"
                )
            self.principal = principal
            return
        identity, quota = _identity(principal), admission.quota(principal)
        if self._close is not None:
            admission.check_connections(identity, quota)
            admission.connections.note(self.identity, -1)
            admission.connections.note(identity, 1)
        self.adopt(principal)
        if self._close is not None and self.security is not None:
            self.security.note(self, "authenticate")

    def adopt(self, principal: Principal) -> None:
        """Become a principal whose token was checked already; not while connected."""
        self.principal, self.identity = principal, _identity(principal)
        self._quota = self._admission.quota(principal)
        self.is_authenticated = True
        PRINCIPAL.set(principal.name)

    def subscribe(self) -> Callable[[], None]:
        """Count a subscription; return what ends that.

        Raises
        ------
        LimitError
            When the client has as many as it may have.
        """
        identity, most = self.identity, self._quota.subscriptions
        subscriptions = self._admission.subscriptions
        if most != UNLIMITED and subscriptions.of(identity) >= most:
            message = f"limit of {most:,} subscriptions for one client reached"
            raise LimitError(message, {"Retry-After": "1"})
        subscriptions.note(identity, 1)
        return functools.partial(subscriptions.note, identity, -1)

    def spend_request(self) -> None:
        """Count a request answered from memory; raise LimitError when there were too many.

        Also when the client has sent, and was sent, more bytes than its quota allows by now.
        """
        quota = self._quota.bytes
        if quota is not None and (wait_s := quota.spend(self.identity, 0)):
            retry_s = math.ceil(wait_s)
            message = f"quota of {quota.rate_per_s:,} bytes a second is used up"
            raise LimitError(f"{message}; retry in {retry_s} s", {"Retry-After": str(retry_s)})
        self._quota.requests.spend(self.identity)

    def spend_ticks(self, ticks: int) -> float:
        """Count ticks that the client has sent; return for how many seconds it has to wait.

        Its other connections wait too. A client is blocked by backpressure, and loses nothing.
        """
        quota = self._quota.ticks
        return 0.0 if quota is None else quota.spend(self.identity, ticks)

    @property
    def is_metered(self) -> bool:
        """Whether the bytes that clients send and are sent have to be counted."""
        return self._admission.is_metered

    def spend_bytes(self, passed: int) -> float:
        """Count bytes that the client was sent, or has sent.

        Returns
        -------
        float
            For how many seconds further ones have to wait, in either direction.
        """
        quota = self._quota.bytes
        return 0.0 if quota is None else quota.spend(self.identity, passed)

    async def pay(self, passed: int) -> None:
        """Count bytes that the client was sent, or has sent, and wait until there may be more."""
        if self._admission.is_metered and (wait_s := self.spend_bytes(passed)):
            await asyncio.sleep(wait_s)

    def spend_upstream(self) -> None:
        """Count a request that reaches another service; raise LimitError likewise."""
        self._quota.upstream.spend(self.identity)

    def reserve_upstream(self) -> float:
        """Count such a request that is made later, and return after how many seconds.

        Raises
        ------
        LimitError
            When that is more than `LONGEST_WAIT_S`.
        """
        return self._quota.upstream.reserve(self.identity)

    def upstream_headers(self) -> Mapping[str, str]:
        """Return what the client may still request upstream, as headers."""
        return self._quota.upstream.headers(self.identity)

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
        admission.connections.note(self.identity, 1)
        tally.opened += 1
        tally.open += 1
        self._close, self.tally = close, tally
        try:
            yield tally
        finally:
            tally.open -= 1
            self._close = None
            del admission.open[self]
            admission.connections.note(self.identity, -1)

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
        try:
            admission.check_connections(self.identity, self._quota)
        except LimitError:
            tally.refused += 1
            raise


class DismissedError(MdtoolError):
    """A client's connection is to be closed: its token has expired, for example."""


class Dismissal:
    """Ends a block of the task that serves a client with DismissedError once it is to be closed.

    To close the transport would not do: asyncio still sends what is written to one that closes, as
    long as something that was written before waits for its client.
    """

    __slots__ = ("_reason", "_task")

    def __init__(self) -> None:
        self._reason: str | None = None
        self._task: asyncio.Task[Any] | None = None

    def close(self, _code: int, reason: str) -> None:
        """As `Client.connected` calls it, again and again; outside of the block nothing happens."""
        if self._reason is None and self._task is not None:
            self._reason = reason
            self._task.cancel()

    def __enter__(self) -> None:
        self._task = asyncio.current_task()

    def __exit__(self, kind: type[BaseException] | None, *_exc_info: object) -> None:
        task, self._task = self._task, None
        if self._reason is None or task is None:
            return
        is_cancelled = task.uncancel() > 0  # by others, too
        if kind is asyncio.CancelledError and not is_cancelled:
            raise DismissedError(self._reason)


class ClientLog(logging.LoggerAdapter[logging.Logger]):
    """A logger for callbacks of a client's connection: its lines have the client's principal.

    Elsewhere they have that of the task, which serves one client.

    Parameters
    ----------
    logger : logging.Logger
    client : Client
    """

    def __init__(self, logger: logging.Logger, client: Client) -> None:
        super().__init__(logger)
        self._client = client

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the principal to a line."""
        name = self._client.principal.name if self._client.is_authenticated else ""
        return msg, {**kwargs, "extra": {"principal": name}}


def _identity(principal: Principal) -> str:
    """Return what limits count a principal by, which no address can be."""
    return f"{BY_PRINCIPAL}{principal.name}"


def _bearer_of(values: Sequence[str]) -> str:
    if len(values) > 1:
        raise TokenError("token: several values of Authorization; send one")
    return bearer(values[0])


def _result(found: Principal | TokenError) -> Principal:
    if isinstance(found, TokenError):
        raise found
    return found


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
