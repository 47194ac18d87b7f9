"""Signing in at an issuer: the authorization code flow, and renewal.

A page sends its user to the issuer with the digest of a secret, and comes back with a code. Code
and secret are exchanged here, so that the issuer needs no rules about the origins of pages, and
pages need no rule about the issuer.

References
----------
RFC 6749, sections 4.1 and 6, and RFC 7636 (PKCE).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mdtool.adapters.identity.config import AuthConfig
from mdtool.adapters.identity.discovery import RejectedError, discover, fetch
from mdtool.adapters.identity.errors import TokenError
from mdtool.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Issued:
    """What an issuer gave.

    Attributes
    ----------
    tokens : sequence of str
        Those by which the user may authenticate, the access token first.
    refresh : str
        What renews them, empty for nothing.
    """

    tokens: Sequence[str]
    refresh: str


class SignIn:
    """Signs users of pages in, at one issuer.

    Parameters
    ----------
    config : AuthConfig
        With a client id.

    Attributes
    ----------
    client_id, scope : str

    Raises
    ------
    ConfigError
        When there is no issuer.
    """

    def __init__(self, config: AuthConfig) -> None:
        if not config.issuer:
            raise ConfigError("[auth] client-id: is a client of an issuer; set issuer too")
        self.client_id = config.client_id
        self.scope = config.scope
        self._issuer = config.issuer
        self._client = {"client_id": config.client_id}
        if config.client_secret:
            self._client["client_secret"] = config.client_secret

    async def authorize(self) -> str:
        """Return the URL to which a page sends its user; raise PeerError while it is unknown."""
        found = await discover(self._issuer, "authorization_endpoint")
        return found["authorization_endpoint"]

    async def exchange(self, code: str, verifier: str, redirect: str) -> Issued:
        """Return what the issuer gives for a code.

        Parameters
        ----------
        code : str
        verifier : str
            The secret whose digest the page sent.
        redirect : str
            The URL of the page, as it sent that.

        Raises
        ------
        TokenError
            When the issuer does not accept them.
        PeerError
            When it does not answer.
        """
        return await self._request(
            grant_type="authorization_code",
            code=code,
            code_verifier=verifier,
            redirect_uri=redirect,
        )

    async def renew(self, refresh: str) -> Issued:
        """Return what the issuer gives in place of tokens that end; see `exchange`."""
        return await self._request(grant_type="refresh_token", refresh_token=refresh)

    async def _request(self, **form: str) -> Issued:
        found = await discover(self._issuer, "token_endpoint")
        try:
            given = await fetch(found["token_endpoint"], {**self._client, **form})
        except RejectedError as error:
            raise TokenError("sign-in: the issuer does not accept it; sign in again") from error
        tokens = [_text(given, name) for name in ("access_token", "id_token")]
        refresh = _text(given, "refresh_token") or form.get("refresh_token", "")
        return Issued([token for token in tokens if token], refresh)


def _text(given: Mapping[str, object], name: str) -> str:
    value = given.get(name)
    return value if isinstance(value, str) else ""
