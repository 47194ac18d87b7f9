"""An issuer at which users of pages sign in, as strict as PKCE requires, and gateways of it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets

from aiohttp import web

from mdtool.adapters.identity.config import REQUIRED, AuthConfig
from mdtool.core.permissions import Roles
from mdtool.services.security import Security
from tests.support.issuers import CLIENT, claims, new_key, sign
from tests.support.tokens import ROLES


class StrictIssuer:
    """It asks nobody, checks everything, and renews tokens.

    Attributes
    ----------
    issuer : str
    valid_s : int
        For how long its tokens are valid.
    authorized, renewed : list
        The queries of users, and the refresh tokens of pages.
    """

    def __init__(self) -> None:
        self.issuer = ""
        self.valid_s = 600
        self.authorized: list = []
        self.renewed: list[str] = []
        self._key = new_key()
        self._codes: dict[str, dict] = {}
        self._refresh: set[str] = set()

    @contextlib.asynccontextmanager
    async def serving(self):
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/jwks", self._jwks)
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/token", self._token)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.issuer = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _discovery(self, _request):
        return web.json_response(
            {
                "issuer": self.issuer,
                "jwks_uri": f"{self.issuer}/jwks",
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
            }
        )

    async def _jwks(self, _request):
        return web.json_response({"keys": [self._key.as_dict(private=False)]})

    async def _authorize(self, request):
        query = dict(request.query)
        self.authorized.append(query)
        code = secrets.token_urlsafe(8)
        self._codes[code] = query
        raise web.HTTPFound(f"{query['redirect_uri']}?code={code}&state={query['state']}")

    async def _token(self, request):
        form = await request.post()
        if form["grant_type"] == "refresh_token":
            is_right = form["refresh_token"] in self._refresh
            self._refresh.discard(form["refresh_token"])
            self.renewed.append(form["refresh_token"])
        else:
            asked = self._codes.pop(form["code"], {})
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            is_right = (
                asked.get("code_challenge") == challenge
                and asked["code_challenge_method"] == "S256"
                and asked["redirect_uri"] == form["redirect_uri"]
            )
        if not is_right or form["client_id"] != CLIENT:
            return web.json_response({"error": "invalid_grant"}, status=400)
        refresh = secrets.token_urlsafe(8)
        self._refresh.add(refresh)
        now = claims()["exp"] - 600
        content = claims(iss=self.issuer, exp=now + self.valid_s, mdtool={"roles": ["some"]})
        return web.json_response(
            {"access_token": sign(self._key, content), "refresh_token": refresh}
        )


def security_of(issuer: str, **settings: str) -> Security:
    """What a gateway authenticates the users of an issuer by."""
    config = AuthConfig(
        mode=REQUIRED, issuer=issuer, audience=CLIENT, client_id=CLIENT, leeway_s=0.0, **settings
    )
    return Security(config, Roles(ROLES), {})
