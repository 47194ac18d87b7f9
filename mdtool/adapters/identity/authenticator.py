"""Who presents a token: an API key of a file, or a JWT of an issuer."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mdtool.adapters.identity.api_keys import PREFIX, ApiKey, ApiKeys
from mdtool.adapters.identity.config import AuthConfig
from mdtool.adapters.identity.errors import TokenError, UnknownKeyError
from mdtool.adapters.identity.jwt import JwtVerifier
from mdtool.core.errors import ConfigError, InputError, StartupError
from mdtool.core.permissions import EVERYTHING, Principal, Roles

if TYPE_CHECKING:
    from joserfc.jwk import Key

SERVICE: Final = Principal("service", EVERYTHING, "service")
"""Another service of ours, which has the same `services-secret`."""
POLL_S: Final = 1.0
"""How often the file of API keys is looked at."""
_MAX_VERIFIED: Final = 10_000
"""JWTs whose verification, which takes 0.1 ms, is kept."""


class Authenticator:
    """Returns the principals of tokens.

    Parameters
    ----------
    config : AuthConfig
    roles : Roles

    Raises
    ------
    ConfigError
        When a setting is missing or not valid.
    StartupError
        When the file of API keys cannot be read.
    """

    def __init__(self, config: AuthConfig, roles: Roles) -> None:
        if not (config.keys or config.issuer or config.services_secret):
            raise ConfigError(
                f"[auth] mode {config.mode}: no token could be valid; set keys, by mdtool token "
                "new, or issuer"
            )
        self._roles = roles
        self._services_secret = config.services_secret.encode()
        self._jwts = JwtVerifier(config, roles) if config.issuer else None
        try:
            self._keys = ApiKeys(config.keys) if config.keys else None
        except InputError as error:
            raise StartupError(f"[auth] keys: {error}") from error
        self._verified: dict[str, Principal] = {}
        self._verified_by: Sequence[Key] = ()
        self._of_keys: dict[str, Principal] = {}

    async def run(self) -> None:
        """Keep keys current until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self._jwts is not None:
                tasks.create_task(self._jwts.run())
            while self._keys is not None:
                await asyncio.sleep(POLL_S)
                if await asyncio.to_thread(self._keys.reload):
                    self._of_keys = {}

    def authenticate(self, token: str) -> Principal:
        """Return whom a token names.

        Raises
        ------
        UnknownKeyError
            When only a refresh of the issuer's keys could tell.
        TokenError
            When it is not valid.
        """
        if self._services_secret and hmac.compare_digest(
            token.encode("utf-8", "replace"), self._services_secret
        ):
            return SERVICE
        if token.startswith(PREFIX):
            if self._keys is None:
                raise TokenError("token: API keys are not accepted here")
            return self._principal(self._keys.find(token))
        if self._jwts is None:
            raise TokenError("token: no such API key")
        now_s = time.time()
        if self._verified_by is not self._jwts.keys:  # one may have been withdrawn
            self._verified_by = self._jwts.keys
            self._verified.clear()
        known = self._verified.get(token)
        if known is not None and known.expires_s > now_s:
            return known
        principal = self._jwts.verify(token, now_s)
        if len(self._verified) >= _MAX_VERIFIED:
            self._verified.clear()
        self._verified[token] = principal
        return principal

    async def authenticate_now(self, token: str) -> Principal:
        """As `authenticate`; the issuer's keys are read again where that may help."""
        try:
            return self.authenticate(token)
        except UnknownKeyError:
            await self.refresh()
            return self.authenticate(token)

    async def refresh(self) -> None:
        """Read the issuer's keys again, unless that was done just now."""
        if self._jwts is not None:
            await self._jwts.refresh()

    def is_valid(self, principal: Principal) -> bool:
        """Return whether what a principal authenticated by is still valid."""
        if principal.expires_s <= time.time():
            return False
        if not principal.key_id or self._keys is None:
            return True
        key = self._keys.get(principal.key_id)
        return key is not None and self._principal(key) == principal

    def _principal(self, key: ApiKey) -> Principal:
        principal = self._of_keys.get(key.id)
        if principal is None:
            name = f"key:{key.name}"
            principal = self._roles.principal(name, key.roles, None, key.ends_s, key.id)
            self._of_keys[key.id] = principal
        return principal
