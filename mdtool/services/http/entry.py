"""How requests enter: by the policy of their route, with the token that they carry."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final

from aiohttp import hdrs, web

from mdtool.adapters.identity.errors import TokenError, UnknownKeyError
from mdtool.core.logs import PRINCIPAL
from mdtool.core.permissions import ForbiddenError, Principal
from mdtool.core.tls import peer_certificate
from mdtool.services.client import Client
from mdtool.services.http.answers import CLIENT, Handler, Statuses, client_of
from mdtool.services.limits import LimitError
from mdtool.services.security import Security

ENTRY_STATUSES: Final[Statuses] = {
    TokenError: (401, "unauthorized"),
    ForbiddenError: (403, "forbidden"),
    LimitError: (429, "too_many_requests"),
}
"""The status and code of each error of a request that may not enter."""
TICKET: Final = "ticket"
"""The parameter of a WebSocket's URL that has a ticket in place of the header."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may request a route, where clients authenticate.

    Attributes
    ----------
    is_open : bool
        Everybody, without a token.
    is_in_band : bool
        Everybody may connect, since a token can follow within the protocol; what needs one is
        rejected there until it has come.
    is_socket : bool
        A request for a WebSocket may have a ticket in place of a token.
    right : str
        Who has this right; empty for every principal.
    feed : str
        Principals that may read something of this feed; empty for every principal.
    """

    is_open: bool = False
    is_in_band: bool = False
    is_socket: bool = False
    right: str = ""
    feed: str = ""


OPEN: Final = Policy(is_open=True)
IN_BAND: Final = Policy(is_in_band=True)
SOCKET: Final = Policy(is_in_band=True, is_socket=True)
TOKEN: Final = Policy()


def enter(
    request: web.Request, client: Client, policy: Policy, *, is_limited: bool = True
) -> Awaitable[None] | None:
    """Authenticate the client of a request, and check that it may make it.

    Parameters
    ----------
    request : web.Request
        `client_of` returns the client from then on.
    client : Client
        It has not authenticated yet.
    policy : Policy
        Of the route.
    is_limited : bool
        Whether the request counts against the client's limit.

    Returns
    -------
    awaitable or None
        What is left to wait for: the issuer's keys, when the token names one that is unknown; or
        another process of the service, which has issued the ticket.

    Raises
    ------
    TokenError
        When the token is missing or not valid.
    ForbiddenError
        When the client does not have the right, or the feed, of the policy.
    LimitError
        When there were too many requests.
    """
    request[CLIENT] = client
    security = client.security
    if security is not None:
        PRINCIPAL.set("")  # the connection's request before this one may have had another
    if security is not None and not policy.is_open:
        headers = request.headers.getall(hdrs.AUTHORIZATION, ())
        header = ",".join(headers)
        if header.strip():
            principal = security.recent.get(header)
            if principal is not None:
                client.adopt(principal)
            else:
                token = client.bearer(headers)
                try:
                    client.authenticate(token)
                except UnknownKeyError:
                    authenticated = client.authenticate_now(token)
                    return _enter_later(authenticated, request, client, policy, is_limited)
                security.recent[header] = client.principal
        elif (
            policy.is_socket and (ticket := request.query.get(TICKET)) and requests_socket(request)
        ):
            redeemed = client.redeem(ticket)
            if redeemed is not None:
                return _enter_later(redeemed, request, client, policy, is_limited)
        elif (principal := _certified(request, security)) is not None:
            client.adopt(principal)
    _check(request, client, policy, is_limited)
    return None


async def _enter_later(
    authenticated: Awaitable[None],
    request: web.Request,
    client: Client,
    policy: Policy,
    is_limited: bool,
) -> None:
    await authenticated
    _check(request, client, policy, is_limited)


def _check(request: web.Request, client: Client, policy: Policy, is_limited: bool) -> None:
    if is_limited:
        client.spend_request()
    security = client.security
    if security is None or policy.is_open:
        return
    if not policy.is_in_band:
        client.check_token()
    if policy.feed:
        client.check_feed(policy.feed)
    if policy.right:
        security.check_right(client, policy.right, f"{request.method} {request.path}")
    if security.is_audited:
        security.note(client, f"{request.method} {request.path}")


def metered(handler: Handler) -> Handler:
    """Return a handler whose requests' and answers' bodies count as bytes of their client.

    Answers that are written piece by piece count themselves.
    """

    async def counted(request: web.Request) -> web.StreamResponse:
        client = client_of(request)
        try:
            response = await handler(request)
        finally:
            client.spend_bytes(request.content.total_bytes)
        if isinstance(response, web.Response):
            client.spend_bytes(response.content_length or 0)
        return response

    return counted


def requests_socket(request: web.Request) -> bool:
    """Return whether a request is for a WebSocket.

    Others, such as h2c, are offers that a server may ignore.
    """
    return request.headers.get(hdrs.UPGRADE, "").strip().lower() == "websocket"


def _certified(request: web.Request, security: Security) -> Principal | None:
    transport = request.transport
    return None if transport is None else security.certified(peer_certificate(transport))
