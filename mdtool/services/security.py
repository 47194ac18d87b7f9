"""How the clients of a service authenticate, and what becomes of their tokens later."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from mdtool.adapters.audit import AuditConfig, AuditLog
from mdtool.adapters.identity.authenticator import Authenticator
from mdtool.adapters.identity.config import NONE, REQUIRED, AuthConfig
from mdtool.adapters.identity.errors import TokenError, UnknownKeyError
from mdtool.adapters.identity.sign_in import SignIn
from mdtool.core.addresses import is_loopback
from mdtool.core.config import DEFAULT, load, load_table, load_tables, origins
from mdtool.core.errors import ConfigError
from mdtool.core.permissions import (
    ANONYMOUS,
    ANONYMOUS_ROLE,
    NOTHING,
    Access,
    ForbiddenError,
    Principal,
    Roles,
)
from mdtool.core.symbols import SymbolTable
from mdtool.core.tls import PeerCertificate
from mdtool.core.trades import Frames, Reason
from mdtool.services.limits import QuotaConfig
from mdtool.wire.websocket import CloseCode

if TYPE_CHECKING:
    from mdtool.services.client import Client

log = logging.getLogger(__name__)

TICKET_S: Final = 30
"""How long a ticket is valid."""
LOGIN_S: Final = 10.0
"""How long a connection may be open without a token where one is required."""
_SCHEME: Final = "bearer"
_WATCH_S: Final = 1.0
_MAX_TICKETS: Final = 100_000
NO_TOKEN: Final = "token: missing; send Authorization: Bearer TOKEN"  # noqa: S105 - a message
NO_TICKET: Final = "ticket: not valid, used before, or too old; request another one"
_NUMBER: Final = re.compile(r"[0-9]{1,4}")
ENDED: Final = "the token has expired, or is revoked"


def bearer(text: str) -> str:
    """Return the token of a header's value, `Bearer TOKEN`.

    Raises
    ------
    TokenError
        When it is anything else.
    """
    scheme, _, token = text.partition(" ")
    token = token.strip()
    if scheme.lower() != _SCHEME or not token or " " in token:
        raise TokenError("token: expects Authorization: Bearer TOKEN")
    return token


def writable(frames: Frames, symbols: SymbolTable, access: Access) -> Frames:
    """Return frames in which trades of symbols that a permission class may not write are refused.

    Parameters
    ----------
    frames : Frames
    symbols : SymbolTable
        The table of their symbols.
    access : Access
    """
    if access.writes_all or not len(frames.trades):
        return frames
    symbol = frames.trades.symbol
    hidden = [each for each in np.unique(symbol) if not access.can_write(symbols[int(each)])]
    return frames.refuse(np.isin(symbol, hidden), Reason.SYMBOL) if hidden else frames


def check_exposed(service: str, host: str, mode: str | None = None) -> AuthConfig:
    """Return how the clients of a service authenticate.

    Parameters
    ----------
    service : str
    host : str
        Where it would listen.
    mode : str, optional
        Its own setting, which goes before `[auth] mode`.

    Raises
    ------
    ConfigError
        When it would listen beyond loopback, and nothing says whether clients authenticate.
    """
    given = origins(AuthConfig, "auth", {"mode": mode})
    config = AuthConfig(**{name: each.value for name, each in given.items()})
    if given["mode"].origin == DEFAULT and not is_loopback(host):
        raise ConfigError(
            f"{service}: would listen on {host or 'every address'} without authentication; set "
            "[auth], or give --auth none to let everybody in"
        )
    return config


def keep_local(service: str, host: str, mode: str | None = None) -> None:
    """Keep a service that does not authenticate its clients on this machine, where others do.

    Raises
    ------
    ConfigError
        When clients are to authenticate, or nothing says that they are not, and it would listen
        beyond loopback.
    """
    if check_exposed(service, host, mode).mode == NONE:
        return
    if not is_loopback(host):
        raise ConfigError(
            f"[auth]: {service} does not authenticate its clients, and would listen on {host}; "
            "let it listen on 127.0.0.1, or give it --keys FILE or --auth none"
        )
    log.warning("%s: does not authenticate its clients, which are those of this machine", service)


class Security:
    """Authenticates the clients of a service.

    Parameters
    ----------
    config : AuthConfig
        Its mode is not `none`.
    roles : Roles
    quotas : mapping of str to QuotaConfig
        By class.
    audit : AuditLog or None

    Attributes
    ----------
    is_required : bool
        Whether a client without a token may do nothing.
    anonymous : Principal
        Of a client without a token.
    tickets : Tickets
    sign_in : SignIn or None
        How users of pages sign in at the issuer.
    recent : dict of str to Principal
        By the headers that had their tokens: those that were valid within the last second.
    """

    def __init__(
        self,
        config: AuthConfig,
        roles: Roles,
        quotas: Mapping[str, QuotaConfig],
        audit: AuditLog | None = None,
    ) -> None:
        self.is_required = config.mode == REQUIRED
        self.quotas = quotas
        self.tickets = Tickets()
        self.recent: dict[str, Principal] = {}
        self.sign_in = SignIn(config) if config.client_id else None
        self._roles = roles
        self._authenticator = Authenticator(config, roles)
        self._audit = audit
        self._refreshing: asyncio.Future[None] | None = None
        self.anonymous = (
            Principal(ANONYMOUS.name, NOTHING)
            if self.is_required
            else roles.principal(ANONYMOUS.name, [ANONYMOUS_ROLE])
        )

    @classmethod
    def load(cls, service: str, host: str, mode: str | None = None) -> Security | None:
        """Return what the settings say, None where nobody authenticates.

        Parameters
        ----------
        service : str
            The name by which the audit log calls it.
        host, mode
            As `check_exposed` has them.

        Raises
        ------
        ConfigError, StartupError
            When a setting is not valid, or a file cannot be read.
        """
        config = check_exposed(service, host, mode)
        roles = Roles(load_tables("roles"))
        tables = load_tables("quotas")
        quotas = {name: load_table(QuotaConfig, "quotas", name, tables[name]) for name in tables}
        if config.mode == NONE:
            return None
        audit = load(AuditConfig, "audit", {})
        return cls(config, roles, quotas, AuditLog(audit, service) if audit.file else None)

    async def run(self, clients: Iterable[Client]) -> None:
        """Keep keys current, and close connections that may not stay, until cancelled.

        Parameters
        ----------
        clients : iterable of Client
            Those that are connected, looked at again and again.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._authenticator.run())
                while True:
                    await asyncio.sleep(_WATCH_S)
                    self.close_ended(list(clients))
        finally:
            if self._audit is not None:
                self._audit.close()

    def close_ended(self, clients: Iterable[Client]) -> None:
        """Close the connections of principals that are not valid any more, or never were."""
        self.recent.clear()
        now_s = time.monotonic()
        for client in clients:
            if client.is_authenticated:
                if not self._authenticator.is_valid(client.principal):
                    self.note(client, "stay connected", ENDED)
                    client.close(CloseCode.UNAUTHORIZED, ENDED)
            elif self.is_required and now_s - client.began_s > LOGIN_S:
                client.close(CloseCode.UNAUTHORIZED, f"no token within {LOGIN_S:g} s")

    def principal(self, token: str) -> Principal:
        """As `Authenticator.authenticate`; the issuer's keys are then read where that may help."""
        try:
            return self._authenticator.authenticate(token)
        except UnknownKeyError:
            self._refreshing = asyncio.ensure_future(self._authenticator.refresh())
            raise

    def certified(self, certificate: PeerCertificate | None) -> Principal | None:
        """Return whom a client's certificate names, None without one that a role names.

        One that has expired since the connection began names nobody any more.
        """
        if certificate is None or certificate.ends_s <= time.time():
            return None
        return self._roles.of_certificate(*certificate)

    async def principal_now(self, token: str) -> Principal:
        """As `Authenticator.authenticate_now`."""
        return await self._authenticator.authenticate_now(token)

    def check_valid(self, principal: Principal) -> None:
        """Raise TokenError where what a principal authenticated by is not valid any more."""
        if not self._authenticator.is_valid(principal):
            raise TokenError("token: expired or revoked")

    @property
    def is_audited(self) -> bool:
        """Whether decisions are logged."""
        return self._audit is not None

    def note(self, client: Client, what: str, refusal: str | None = None) -> None:
        """Log a decision about a client, where there is an audit log."""
        if self._audit is not None:
            self._audit.note(client.principal.name, client.address, what, refusal)

    def check_right(self, client: Client, right: str, what: str) -> None:
        """Raise ForbiddenError where a client does not have a right."""
        if not client.principal.access.has(right):
            why = f"{what}: requires the right {right!r}, which none of your roles has"
            self.note(client, what, why)
            raise ForbiddenError(why)


class Tickets:
    """Tickets, each of which authenticates a client once that cannot send headers.

    A ticket begins with the number of the process that has issued it, and that alone redeems it.

    Attributes
    ----------
    worker : int
        The number of this process.
    elsewhere : callable or None
        Redeems a ticket at the process of a number, as `redeem` does; None where there is none.
    """

    def __init__(self) -> None:
        self.worker = 0
        self.elsewhere: Callable[[int, str], Awaitable[Principal]] | None = None
        self._issued: dict[bytes, tuple[float, Principal]] = {}

    def issue(self, principal: Principal) -> str:
        """Return a new ticket, which is valid for `TICKET_S`."""
        now_s = time.monotonic()
        while self._issued:
            oldest = next(iter(self._issued))
            if self._issued[oldest][0] > now_s and len(self._issued) < _MAX_TICKETS:
                break
            del self._issued[oldest]
        ticket = f"{self.worker}.{secrets.token_urlsafe(32)}"
        self._issued[_digest(ticket)] = (now_s + TICKET_S, principal)
        return ticket

    def redeem(self, ticket: str) -> Principal:
        """Return the principal of a ticket, which is not valid any more.

        Raises
        ------
        TokenError
            When there is no such ticket, or it was used, or is too old.
        """
        ends_s, principal = self._issued.pop(_digest(ticket), (0.0, ANONYMOUS))
        if ends_s <= time.monotonic():
            raise TokenError(NO_TICKET)
        return principal

    def redeemed_elsewhere(self, ticket: str) -> Awaitable[Principal] | None:
        """Return the principal of a ticket of another process, None where that is this one."""
        number = ticket.partition(".")[0]
        if self.elsewhere is None or not _NUMBER.fullmatch(number) or int(number) == self.worker:
            return None
        return self.elsewhere(int(number), ticket)


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "replace")).digest()
