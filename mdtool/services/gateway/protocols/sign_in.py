"""`/api/v2/sign-in`: how pages sign users in at the issuer of tokens, and renew these."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from mdtool.adapters.identity.errors import TokenError
from mdtool.adapters.identity.sign_in import Issued
from mdtool.services.gateway.parameters import ParameterError
from mdtool.services.gateway.protocols import Paths
from mdtool.services.gateway.protocols.rest import PREFIX
from mdtool.services.http.answers import answer, client_of, encode_object
from mdtool.services.http.bodies import read_body
from mdtool.services.security import Security

PATH: Final = f"{PREFIX}/sign-in"
_MAX_BYTES: Final = 1 << 15
_EXCHANGE: Final = frozenset({"code", "verifier", "redirect"})
_RENEW: Final = frozenset({"refresh"})


class SignInPages:
    """Tells pages where users sign in, and exchanges what they come back with.

    Parameters
    ----------
    security : Security
    """

    def __init__(self, security: Security) -> None:
        self._security = security

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {("GET", PATH): self.about, ("POST", PATH): self.exchange}

    async def about(self, request: web.Request) -> web.Response:
        """`GET /api/v2/sign-in`: where users sign in; null where they paste a token."""
        data = None
        if (sign_in := self._security.sign_in) is not None:
            client_of(request).spend_upstream()
            url = await sign_in.authorize()
            data = {"authorize": url, "client_id": sign_in.client_id, "scope": sign_in.scope}
        return _answer(data)

    async def exchange(self, request: web.Request) -> web.Response:
        """`POST /api/v2/sign-in`: a token for `code`, `verifier`, `redirect`, or for `refresh`."""
        if (sign_in := self._security.sign_in) is None:
            raise ParameterError("sign-in: [auth] client-id is not set; paste a token")
        client_of(request).spend_upstream()
        given = _object(await read_body(request, _MAX_BYTES))
        if given.keys() == _EXCHANGE:
            issued = await sign_in.exchange(given["code"], given["verifier"], given["redirect"])
        elif given.keys() == _RENEW:
            issued = await sign_in.renew(given["refresh"])
        else:
            raise ParameterError("sign-in: expects code, verifier and redirect, or refresh")
        token, expires_s = await self._accepted(issued)
        return _answer(
            {"token": token, "refresh": issued.refresh or None, "expires_in_s": int(expires_s)}
        )

    async def _accepted(self, issued: Issued) -> tuple[str, float]:
        """Return the first token by which the user authenticates, and for how long it does so."""
        why = TokenError("sign-in: the issuer gave no token")
        for token in issued.tokens:
            try:
                principal = await self._security.principal_now(token)
            except TokenError as error:
                why = error
            else:
                return token, principal.expires_s - time.time()
        raise why


def _answer(data: Mapping[str, object] | None) -> web.Response:
    body = encode_object({"data": data, "next": None, "error": None})
    return answer(body, {"Cache-Control": "no-store"})


def _object(body: bytes | None) -> dict[str, str]:
    try:
        given = json.loads(body or b"")
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not all(isinstance(each, str) for each in given.values()):
        raise ParameterError("sign-in: expects a JSON object of texts")
    return given
