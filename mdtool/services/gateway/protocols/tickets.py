"""`POST /api/v2/tickets`: a ticket for a WebSocket whose client cannot send headers."""

from __future__ import annotations

import time

from aiohttp import web

from mdtool.core.units import NS_PER_S, format_time
from mdtool.services.gateway.protocols import Paths
from mdtool.services.gateway.protocols.rest import PREFIX
from mdtool.services.http.answers import answer, client_of, encode_object
from mdtool.services.security import TICKET_S, Security


class Tickets:
    """Gives authenticated clients tickets, each for the URL of one WebSocket.

    Parameters
    ----------
    security : Security
    """

    def __init__(self, security: Security) -> None:
        self._security = security

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {("POST", f"{PREFIX}/tickets"): self.issue}

    async def issue(self, request: web.Request) -> web.Response:
        """`POST /api/v2/tickets`."""
        client = client_of(request)
        client.check_authenticated()
        ticket = self._security.tickets.issue(client.principal)
        expires = format_time(time.time_ns() + TICKET_S * NS_PER_S)
        body = {"data": {"ticket": ticket, "expires": expires}, "next": None, "error": None}
        return answer(encode_object(body), {"Cache-Control": "no-store"})
